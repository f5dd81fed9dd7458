//! The storage domains of a host, each with what its kind needs.
//!
//! ```text
//!   [storage.default]              the domain's id: all hosts call one domain by one id
//!   kind = "file"
//!   path = "/var/lib/livemerge/images"
//!   removal = { keep_seconds = 86400, wipe = true }
//!
//!   [storage.san]
//!   kind = "lvm"
//!   group = "vg0"
//!   devices = ["/dev/mapper/mpatha"]
//!
//!   [storage.bucket]
//!   kind = "object"
//!   url = "s3://bucket/prefix"     credentials: from the environment, AWS_ACCESS_KEY_ID and so on
//! ```

use crate::domains::RemovalPolicy;
use livemerge_storage::StorageId;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

/// One storage domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StorageConfig {
    /// A directory of image files.
    File(FileConfig),
    /// A volume group.
    Lvm(LvmConfig),
    /// An object store.
    Object(ObjectConfig),
}

/// A hundred years, which is for ever. Longer ones end behind the last day of a calendar.
const LONGEST_KEPT: u64 = 100 * 365 * 24 * 3600;

impl StorageConfig {
    fn removed(&self) -> RemovalConfig {
        match self {
            Self::File(file) => file.removal,
            Self::Lvm(lvm) => lvm.removal,
            Self::Object(object) => object.removal,
        }
    }

    /// How its volumes are removed.
    pub fn removal(&self) -> RemovalPolicy {
        self.removed().policy()
    }

    pub(super) fn check(&self, id: &StorageId) -> anyhow::Result<()> {
        let seconds = self.removed().keep_seconds;
        anyhow::ensure!(
            seconds <= LONGEST_KEPT,
            "storage.{id}.removal.keep_seconds is {seconds}, not within 0 to {LONGEST_KEPT}"
        );
        Ok(())
    }

    /// The most that its volumes may take together, in bytes.
    pub fn quota_bytes(&self) -> Option<u64> {
        let gib = match self {
            Self::File(file) => file.quota_gib,
            Self::Lvm(lvm) => lvm.quota_gib,
            Self::Object(object) => object.quota_gib,
        };
        gib.map(|gib| u64::from(gib.get()) << 30)
    }
}

/// A directory of image files, on a file system that reports birth times.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory, an absolute path. It must exist.
    pub path: PathBuf,
    /// The most that a wipe writes in a second, in MiB, 1 or more.
    #[serde(default = "wipe_mib_per_second")]
    pub wipe_mib_per_second: u64,
    /// How its volumes are removed.
    #[serde(default)]
    pub removal: RemovalConfig,
    /// The most that its volumes may take together, in GiB: a merge that would need more is refused.
    #[serde(default)]
    pub quota_gib: Option<NonZeroU32>,
}

/// A volume group of LVM, each volume a logical volume that grows as it fills.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LvmConfig {
    /// The group. It must exist, with all of its devices.
    pub group: String,
    /// The devices that LVM may look at. Empty: all that the host's `lvm.conf` lets it see.
    #[serde(default)]
    pub devices: Vec<PathBuf>,
    /// The room of a new volume, and what is added when it fills, in MiB, 4 to 1,048,576.
    #[serde(default = "LvmConfig::chunk_mib")]
    pub chunk_mib: u64,
    /// Whether other hosts have the group, too. It is made by `vgcreate --shared` then, and lvmlockd
    /// runs.
    #[serde(default)]
    pub shared: bool,
    /// The most that a wipe writes in a second, in MiB, 1 or more.
    #[serde(default = "wipe_mib_per_second")]
    pub wipe_mib_per_second: u64,
    /// How its volumes are removed.
    #[serde(default)]
    pub removal: RemovalConfig,
    /// The most that its volumes may take together, in GiB: a merge that would need more is refused.
    #[serde(default)]
    pub quota_gib: Option<NonZeroU32>,
}

/// Objects of one size, which machines use through an exporter on their host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectConfig {
    /// Where: `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `file:///DIRECTORY`. It holds no credentials.
    pub url: String,
    /// The directory of the exporter's socket. Images name the socket, so all hosts that see the domain
    /// have it at the same path. Without it: `export/DOMAIN` in the agent's directory.
    #[serde(default)]
    pub socket_dir: Option<PathBuf>,
    /// How its volumes are removed.
    #[serde(default)]
    pub removal: RemovalConfig,
    /// The most that its volumes may take together, in GiB: a merge that would need more is refused.
    #[serde(default)]
    pub quota_gib: Option<NonZeroU32>,
}

fn wipe_mib_per_second() -> u64 {
    200
}

fn bytes_per_second(wipe_mib_per_second: u64) -> anyhow::Result<u64> {
    anyhow::ensure!(
        wipe_mib_per_second > 0,
        "wipe_mib_per_second is 0: nothing would ever be wiped"
    );
    Ok(wipe_mib_per_second.saturating_mul(1 << 20))
}

impl FileConfig {
    /// The most that a wipe writes in a second, in bytes.
    ///
    /// # Errors
    /// When it is out of its range.
    pub fn wiped_per_second(&self) -> anyhow::Result<u64> {
        bytes_per_second(self.wipe_mib_per_second)
    }
}

impl LvmConfig {
    fn chunk_mib() -> u64 {
        1024
    }

    /// As the storage takes it.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn group(&self) -> anyhow::Result<livemerge_storage::LvmConfig> {
        let range = 4..=1 << 20;
        anyhow::ensure!(
            range.contains(&self.chunk_mib),
            "chunk_mib is {}, not within 4 to 1048576",
            self.chunk_mib
        );
        Ok(livemerge_storage::LvmConfig {
            devices: self.devices.clone(),
            chunk_bytes: self.chunk_mib << 20,
            shared: self.shared,
            wipe_bytes_per_second: bytes_per_second(self.wipe_mib_per_second)?,
            ..livemerge_storage::LvmConfig::of(&self.group)
        })
    }
}

/// How the volumes of a domain are removed once nothing needs them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemovalConfig {
    /// How long a removed volume can be brought back, in seconds, 0 to 3,153,600,000. Its space is taken until then.
    pub keep_seconds: u64,
    /// Whether what it held is overwritten before its space is given back.
    pub wipe: bool,
    /// Whether the device below is told that the space is free; not for files.
    pub discard: bool,
}

impl RemovalConfig {
    fn policy(self) -> RemovalPolicy {
        RemovalPolicy {
            keep_for: Duration::from_secs(self.keep_seconds),
            wipe: self.wipe,
            discard: self.discard,
        }
    }
}
