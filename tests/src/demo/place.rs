//! Where the demo's images are.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::groups::Group;
use crate::guest::domain::DiskSpec;
use crate::objects::Objects;
use crate::rig::Rig;
use crate::services::{Reach, Services};

const CHUNK_BYTES: u64 = 64 << 20;

/// What the guest's images are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Storage {
    /// A directory.
    File,
    /// Logical volumes, in a virtual host.
    Lvm,
    /// Objects on a real S3 server, through an exporter.
    Object,
}

/// It, made.
pub(super) enum Place {
    Files,
    Group(Group),
    Objects(Objects),
}

impl Place {
    pub(super) async fn make(storage: Storage) -> Result<Self> {
        Ok(match storage {
            Storage::File => Self::Files,
            Storage::Lvm => Self::Group(Group::make(CHUNK_BYTES).await?),
            Storage::Object => Self::Objects(Objects::start().await?),
        })
    }

    pub(super) fn services(&self, rig: &Rig, reach: Reach) -> Result<Services> {
        match self {
            Self::Files => Services::new(rig, reach),
            Self::Group(group) => {
                let mut services = Services::on(rig, reach, &group.config())?;
                // A virtual host has one processor, for all of it.
                services.api.set("heartbeat.silence_ms=10000");
                Ok(services)
            }
            Self::Objects(objects) => Services::on_objects(rig, reach, objects),
        }
    }

    pub(super) async fn disk(
        &self,
        rig: &Rig,
        name: &str,
        target: &str,
        bytes: u64,
    ) -> Result<DiskSpec> {
        match self {
            Self::Files => rig.create_disk(name, target, bytes),
            Self::Group(group) => group.create_disk(name, target, bytes).await,
            Self::Objects(objects) => objects.create_disk(name, target, bytes).await,
        }
    }

    /// Looks at the storage itself, not at what anybody says of it: what was removed is gone, and there is
    /// a volume for each layer. Says so.
    pub(super) async fn check(&self, rig: &Rig, gone: &[PathBuf], layers: usize) -> Result<String> {
        let (count, what) = match self {
            Self::Files => (images(rig)?.len(), "The directory holds"),
            Self::Group(group) => (group.sizes()?.len(), "The volume group holds"),
            Self::Objects(objects) => (objects.volumes().await?, "The bucket holds the objects of"),
        };
        for path in gone {
            let is_there = self.has(rig, path).await?;
            ensure!(!is_there, "{} is still in storage", path.display());
        }
        ensure!(
            count == layers,
            "storage holds {count} volumes for a chain of {layers}"
        );
        Ok(format!(
            "{what} {count} volumes, as many as the chain has layers."
        ))
    }

    async fn has(&self, rig: &Rig, path: &Path) -> Result<bool> {
        Ok(match self {
            Self::Files => images(rig)?.iter().any(|image| image == path),
            Self::Group(group) => {
                let name = path.file_name().and_then(|name| name.to_str());
                let sizes = group.sizes()?;
                name.is_some_and(|name| sizes.contains_key(name))
            }
            Self::Objects(objects) => objects.uuid_of(path).await.is_ok(),
        })
    }
}

fn images(rig: &Rig) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(rig.images())? {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == "qcow2") {
            found.push(path);
        }
    }
    Ok(found)
}
