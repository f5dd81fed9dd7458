//! Images that are logical volumes of a group, in a virtual host.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Result, ensure};
use livemerge_storage::{LvmConfig, LvmStore, NewVolume, VolumeStore as _};

use crate::guest::domain::{DiskSpec, Format};
use crate::process::run;

const GROUP: &str = "vg";
/// The first disk of a virtual host.
const DEVICE: &str = "/dev/vda";

/// A volume group, a storage domain of its own.
#[derive(Debug)]
pub struct Group {
    volumes: LvmStore,
    chunk_bytes: u64,
}

impl Group {
    /// Makes it on the first disk of a virtual host, with chunks of so many bytes.
    pub async fn make(chunk_bytes: u64) -> Result<Self> {
        run(Command::new("vgcreate").args(["-q", GROUP, DEVICE]))?;
        let config = LvmConfig {
            chunk_bytes,
            ..LvmConfig::of(GROUP)
        };
        Ok(Self {
            volumes: LvmStore::open("default".parse()?, config).await?,
            chunk_bytes,
        })
    }

    /// Creates a volume with one chunk of room, as a disk of a guest.
    pub async fn create_disk(&self, name: &str, target: &str, bytes: u64) -> Result<DiskSpec> {
        let new = NewVolume {
            name: name.parse()?,
            virtual_bytes: bytes,
            parent: None,
        };
        let made = self.volumes.create(&new).await?;
        ensure!(made.allocated_bytes == self.chunk_bytes, "{made:?}");
        Ok(DiskSpec {
            target: target.to_owned(),
            path: made.locator.to_string().into(),
            format: Format::Qcow2,
        })
    }

    /// The logical volumes, and their sizes in bytes, as LVM has them.
    pub fn sizes(&self) -> Result<BTreeMap<String, u64>> {
        let mut lvs = Command::new("lvs");
        lvs.args(["--noheadings", "--nosuffix", "--units", "b"]);
        let listed = run(lvs.args(["-o", "lv_name,lv_size", GROUP]))?;
        let one = |line: &str| {
            let (name, bytes) = line.trim().split_once(' ')?;
            Some((name.to_owned(), bytes.trim().parse().ok()?))
        };
        Ok(listed.lines().filter_map(one).collect())
    }

    /// The agent's part of the configuration.
    pub fn config(&self) -> String {
        format!(
            "kind = \"lvm\"\ngroup = \"{GROUP}\"\nchunk_mib = {}\n",
            self.chunk_bytes >> 20
        )
    }
}
