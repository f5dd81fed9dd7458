//! Opens the storage domains of the configuration.

use crate::config::{Config, ObjectConfig, StorageConfig};
use anyhow::Context as _;
use livemerge_storage::{
    Capabilities, ExporterPlace, FileStore, LiveVolumes, LvmStore, ObjectVolumes, RemovalOrder,
    StorageId,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A storage domain, how its volumes are removed, and how much they may take.
#[derive(Clone)]
pub struct Domain {
    /// Its volumes.
    pub store: Arc<dyn LiveVolumes>,
    /// How they are removed.
    pub removal: RemovalPolicy,
    /// The most that they may take together, in bytes.
    pub quota_bytes: Option<u64>,
}

impl Domain {
    /// A domain without a quota, whose volumes are neither kept nor wiped when they are removed.
    pub fn plain(store: Arc<dyn LiveVolumes>) -> Self {
        Self {
            store,
            removal: RemovalPolicy::default(),
            quota_bytes: None,
        }
    }
}

/// How the volumes of a domain are removed once nothing needs them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemovalPolicy {
    /// How long a removed volume can be brought back.
    pub keep_for: Duration,
    /// Whether what it held is overwritten.
    pub wipe: bool,
    /// Whether the device below is told that the space is free.
    pub discard: bool,
}

impl RemovalPolicy {
    /// The order, as this domain wants it done.
    pub(crate) fn order(self, order: &RemovalOrder) -> RemovalOrder {
        RemovalOrder {
            keep_for: self.keep_for,
            wipe: self.wipe,
            discard: self.discard,
            ..order.clone()
        }
    }

    fn check(self, can: Capabilities) -> anyhow::Result<()> {
        for (wished, can, what) in [
            (self.wipe, can.wipe, "wipe"),
            (self.discard, can.discard, "discard"),
        ] {
            anyhow::ensure!(
                can || !wished,
                "removal.{what}: this kind of storage cannot"
            );
        }
        Ok(())
    }
}

/// Opens all of them.
///
/// # Errors
/// When one is not there, cannot do what it is configured for, or lies in another.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Vec<Domain>> {
    refuse_overlaps(config)?;
    let mut domains = Vec::new();
    for (id, storage) in &config.storage {
        let at = || format!("storage domain {id}");
        let store: Arc<dyn LiveVolumes> = match storage {
            StorageConfig::File(file) => {
                let wiped_per_second = file.wiped_per_second().with_context(at)?;
                let store = FileStore::open(id.clone(), &file.path).await;
                Arc::new(store.with_context(at)?.wiping_at(wiped_per_second))
            }
            StorageConfig::Lvm(lvm) => {
                let group = lvm.group().with_context(at)?;
                Arc::new(LvmStore::open(id.clone(), group).await.with_context(at)?)
            }
            StorageConfig::Object(object) => {
                Arc::new(open_objects(config, id, object).await.with_context(at)?)
            }
        };
        let removal = storage.removal();
        removal.check(store.capabilities()).with_context(at)?;
        domains.push(Domain {
            store,
            removal,
            quota_bytes: storage.quota_bytes(),
        });
    }
    Ok(domains)
}

/// Opens a domain of objects, and sees to it that its exporter runs: a process of its own, this
/// program once more, which the machines use that run.
async fn open_objects(
    config: &Config,
    id: &StorageId,
    object: &ObjectConfig,
) -> anyhow::Result<ObjectVolumes> {
    let directory = directory(config, id, object);
    let arguments = ["export", "--url", &object.url, "--socket-dir"].map(OsString::from);
    let place = ExporterPlace::Process {
        program: std::env::current_exe().context("this program's path")?,
        arguments: arguments
            .into_iter()
            .chain([directory.clone().into(), id.as_str().into()])
            .collect(),
    };
    let volumes = ObjectVolumes::open(id.clone(), &object.url, &directory, place).await?;
    volumes.keep_exporting().await?;
    Ok(volumes)
}

/// The directory of a domain's exporter.
fn directory(config: &Config, id: &StorageId, object: &ObjectConfig) -> PathBuf {
    let own = || config.host.state_dir.join("export").join(id.as_str());
    object.socket_dir.clone().unwrap_or_else(own)
}

/// A volume has one name: no directory lies in another, by whatever path, and neither a group, a prefix
/// of objects nor an exporter is that of two domains.
fn refuse_overlaps(config: &Config) -> anyhow::Result<()> {
    let mut seen: Vec<(&StorageId, PathBuf)> = Vec::new();
    let mut groups: BTreeMap<&str, &StorageId> = BTreeMap::new();
    let mut objects: BTreeMap<String, &StorageId> = BTreeMap::new();
    for (id, storage) in &config.storage {
        let file = match storage {
            StorageConfig::File(file) => file,
            StorageConfig::Lvm(lvm) => {
                if let Some(other) = groups.insert(&lvm.group, id) {
                    anyhow::bail!("storage domains {other} and {id} are one volume group");
                }
                continue;
            }
            StorageConfig::Object(object) => {
                let url = object.url.trim_end_matches('/').to_owned();
                let directory: PathBuf = directory(config, id, object).components().collect();
                for place in [url, directory.display().to_string()] {
                    if let Some(other) = objects.insert(place, id) {
                        anyhow::bail!(
                            "storage domains {other} and {id} have one url, or one socket_dir"
                        );
                    }
                }
                continue;
            }
        };
        let at = || format!("storage domain {id}: {}", file.path.display());
        let real = file.path.canonicalize().with_context(at)?;
        let overlap = |(_, other): &&(&StorageId, PathBuf)| {
            real.starts_with(other) || other.starts_with(&real)
        };
        if let Some((other, _)) = seen.iter().find(overlap) {
            anyhow::bail!("storage domains {other} and {id} are one directory, or in one another");
        }
        seen.push((id, real));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_volume_is_in_one_domain() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink(dir.path(), inner.join("back")).unwrap();
        let config = |b: &Path| -> Config {
            let a = dir.path();
            toml::from_str(&format!(
                "[storage.a]\nkind = \"file\"\npath = {a:?}\n[storage.b]\nkind = \"file\"\npath = {b:?}\n"
            ))
            .unwrap()
        };
        for overlapping in [dir.path(), &inner, &inner.join("back")] {
            assert!(refuse_overlaps(&config(overlapping)).is_err());
        }
        let apart = tempfile::tempdir().unwrap();
        assert!(refuse_overlaps(&config(apart.path())).is_ok());
    }

    #[test]
    fn objects_and_exporters_are_of_one_domain() {
        let config = |url: &str, dir: &str| -> Config {
            toml::from_str(&format!(
                "[storage.a]\nkind = \"object\"\nurl = \"s3://b/a\"\nsocket_dir = \"/a\"\n\
                 [storage.b]\nkind = \"object\"\nurl = {url:?}\nsocket_dir = {dir:?}\n"
            ))
            .unwrap()
        };
        for (url, dir) in [("s3://b/a/", "/b"), ("s3://b/b", "/a/"), ("s3://b/b", "/a")] {
            assert!(refuse_overlaps(&config(url, dir)).is_err(), "{url} {dir}");
        }
        assert!(refuse_overlaps(&config("s3://b/ab", "/b")).is_ok());
    }

    #[test]
    fn a_group_is_one_domain_and_its_numbers_make_sense() {
        let config = |text: &str| -> Config { toml::from_str(text).unwrap() };
        let two =
            "[storage.a]\nkind = \"lvm\"\ngroup = \"vg\"\n[storage.b]\nkind = \"lvm\"\ngroup = ";
        assert!(refuse_overlaps(&config(&format!("{two}\"vg\""))).is_err());
        assert!(refuse_overlaps(&config(&format!("{two}\"vg2\""))).is_ok());
        for (more, right) in [
            ("", true),
            ("chunk_mib = 4", true),
            ("chunk_mib = 3", false),
            ("chunk_mib = 1048577", false),
            ("wipe_mib_per_second = 0", false),
        ] {
            let text = format!("kind = \"lvm\"\ngroup = \"vg\"\n{more}");
            let StorageConfig::Lvm(lvm) = toml::from_str(&text).unwrap() else {
                panic!("{text}");
            };
            assert_eq!(lvm.group().is_ok(), right, "{more}");
        }
    }

    #[test]
    fn a_wipe_of_files_has_a_rate() {
        for (more, rate) in [
            ("", Some(200 << 20)),
            ("wipe_mib_per_second = 1", Some(1 << 20)),
            ("wipe_mib_per_second = 0", None),
        ] {
            let text = format!("kind = \"file\"\npath = \"/\"\n{more}");
            let StorageConfig::File(file) = toml::from_str(&text).unwrap() else {
                panic!("{text}");
            };
            assert_eq!(file.wiped_per_second().ok(), rate, "{more}");
        }
    }

    #[test]
    fn what_a_kind_cannot_do_is_refused() {
        let config = |removal: &str| -> StorageConfig {
            toml::from_str(&format!(
                "kind = \"file\"\npath = \"/\"\nremoval = {removal}"
            ))
            .unwrap()
        };
        let capabilities = Capabilities {
            thin: true,
            shared: true,
            provided: false,
            wipe: true,
            discard: false,
        };
        for (removal, can) in [
            ("{}", true),
            ("{ keep_seconds = 5, wipe = true }", true),
            ("{ discard = true }", false),
        ] {
            let policy = config(removal).removal();
            assert_eq!(policy.check(capabilities).is_ok(), can, "{removal}");
        }
    }
}
