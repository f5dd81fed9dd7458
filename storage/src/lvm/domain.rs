//! A group as a storage domain: what lies in it, and which of it are volumes.

use super::batch::Batch;
use super::command::Lvm;
use super::content::{Content, is_readable};
use super::device;
use super::name::{GroupName, Role};
use super::report::{Group, Logical};
use super::turn::{Order, Turn};
use crate::calls::{Calls, blocking};
use crate::error::io_error;
use crate::making::Making;
use crate::program::Program;
use crate::qemu_img;
use crate::turn::Turns;
use crate::{
    Locator, RemovalId, Space, StorageError, StorageId, VolumeInfo, VolumeName, VolumeRef,
};
use rustix::fs::{major, minor};
use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const MIB: u64 = 1 << 20;

/// A volume group as it is configured.
#[derive(Debug, Clone)]
pub struct LvmConfig {
    /// Its name.
    pub group: String,
    /// The devices that LVM may look at. None: all that the host's `lvm.conf` lets it see.
    pub devices: Vec<PathBuf>,
    /// The room of a new volume, and what is added when it fills: at least 1 MiB, and a multiple of
    /// it. LVM rounds up to the group's extents.
    pub chunk_bytes: u64,
    /// Whether other hosts have the group, too: it is made with `vgcreate --shared`, and `lvmlockd`
    /// runs.
    pub shared: bool,
    /// The most that a wipe writes in a second.
    pub wipe_bytes_per_second: u64,
    /// LVM's program.
    pub program: PathBuf,
    /// Where the kernel shows its devices: `/sys/dev/block`.
    pub shown: PathBuf,
    /// Where the locks of this host's programs lie: a directory that is empty after a boot.
    pub locks: PathBuf,
}

impl LvmConfig {
    /// A group of this host alone.
    pub fn of(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            devices: Vec::new(),
            chunk_bytes: 1 << 30,
            shared: false,
            wipe_bytes_per_second: 200 * MIB,
            program: "lvm".into(),
            shown: device::SYS.into(),
            locks: "/run/lock/livemerge".into(),
        }
    }
}

/// A storage domain that is a volume group.
#[derive(Debug)]
pub(super) struct Domain {
    id: StorageId,
    config: LvmConfig,
    pub(super) name: GroupName,
    pub(super) lvm: Lvm,
    pub(super) qemu_img: Program,
    pub(super) turns: Turns,
    pub(super) order: Order,
    pub(super) making: Making,
    pub(super) batch: Batch,
    /// Removals that a call of this process works on.
    pub(super) removing: Mutex<HashSet<RemovalId>>,
    /// Whoever overwrites a volume has it.
    pub(super) wiping: tokio::sync::Mutex<()>,
    /// Volumes that this process was told to activate.
    pub(super) wanted: Mutex<HashSet<VolumeName>>,
    calls: Calls,
}

impl Domain {
    pub(super) async fn open(id: StorageId, config: LvmConfig) -> Result<Arc<Self>, StorageError> {
        let name: GroupName = config.group.parse()?;
        let chunk = config.chunk_bytes;
        if chunk < MIB || !chunk.is_multiple_of(MIB) {
            let text = format!("{chunk} bytes are no chunk: at least 1 MiB, and a multiple of it");
            return Err(StorageError::Invalid(text));
        }
        let locks = config.locks.join(name.as_str());
        let own = locks.clone();
        blocking(move || {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&own);
            made.map_err(io_error(own.display()))
        })
        .await?;
        let domain = Arc::new(Self {
            id,
            lvm: Lvm::new(&config, name.clone()),
            qemu_img: qemu_img::program(),
            turns: Turns::new(&locks),
            order: Order::default(),
            making: Making::default(),
            batch: Batch::default(),
            removing: Mutex::default(),
            wiping: tokio::sync::Mutex::default(),
            wanted: Mutex::default(),
            calls: Calls::default(),
            name,
            config,
        });
        domain.sweep().await?;
        Ok(domain)
    }

    /// Takes away what a crash has left and nobody will ask for: half-made volumes.
    pub(super) async fn sweep(self: &Arc<Self>) -> Result<(), StorageError> {
        let Some(_turn) = self.with(|domain| domain.turns.sweep()).await? else {
            return Ok(());
        };
        let group = self.report().await?;
        let half_made: Vec<_> = group
            .ours()
            .filter(|volume| volume.role() == Role::New)
            .map(|volume| (volume.name.as_str(), &volume.identity))
            .collect();
        if half_made.is_empty() {
            return Ok(());
        }
        match self.lvm.alone().remove(&half_made).await {
            // Another host makes it: there it is active.
            Err(_) if self.config.shared => Ok(()),
            swept => swept,
        }
    }

    /// Works with the domain, off the async threads, to the end.
    pub(super) async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let domain = Arc::clone(self);
        self.calls.run(&self.id, move || work(&domain)).await
    }

    /// Looks at the domain, off the async threads, and not for longer than is reasonable.
    pub(super) async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let domain = Arc::clone(self);
        self.calls.look(&self.id, move || work(&domain)).await
    }

    pub(super) fn id(&self) -> &StorageId {
        &self.id
    }

    pub(super) fn config(&self) -> &LvmConfig {
        &self.config
    }

    pub(super) fn chunk(&self) -> u64 {
        self.config.chunk_bytes
    }

    pub(super) fn volume(&self, name: &VolumeName) -> VolumeRef {
        VolumeRef {
            storage: self.id.clone(),
            name: name.clone(),
        }
    }

    /// A volume's name, for messages.
    pub(super) fn what(&self, name: &VolumeName) -> String {
        format!("volume {}", self.volume(name))
    }

    pub(super) fn not_found(&self, name: &VolumeName) -> StorageError {
        StorageError::NotFound {
            what: self.what(name),
        }
    }

    pub(super) fn in_use_by(&self, name: &VolumeName, by: &str) -> StorageError {
        StorageError::InUse {
            what: self.what(name),
            by: by.to_owned(),
        }
    }

    pub(super) async fn report(&self) -> Result<Group, StorageError> {
        self.lvm.report().await
    }

    pub(super) async fn stat(
        self: &Arc<Self>,
        name: &VolumeName,
    ) -> Result<VolumeInfo, StorageError> {
        self.name.check(name)?;
        let turn = self.look_turn().await?;
        self.info(self.report().await?, name, &turn).await
    }

    /// A volume as it is in the group, for who has a turn.
    pub(super) async fn info(
        self: &Arc<Self>,
        group: Group,
        name: &VolumeName,
        turn: &Turn,
    ) -> Result<VolumeInfo, StorageError> {
        let role = Role::Volume(name.clone());
        let infos = self.infos(group, |volume| volume.role() == role, turn);
        let infos = infos.await?;
        let info = infos.into_iter().next();
        info.unwrap_or_else(|| Err(self.not_found(name)))
    }

    pub(super) async fn list(
        self: &Arc<Self>,
    ) -> Result<Vec<Result<VolumeInfo, StorageError>>, StorageError> {
        let turn = self.look_turn().await?;
        self.infos(self.report().await?, is_volume, &turn).await
    }

    async fn infos(
        self: &Arc<Self>,
        group: Group,
        wanted: impl Fn(&Logical) -> bool,
        turn: &Turn,
    ) -> Result<Vec<Result<VolumeInfo, StorageError>>, StorageError> {
        let (group, activated) = self.readable(group, &wanted, turn).await?;
        let volumes: Vec<_> = group
            .ours()
            .filter(|volume| wanted(volume))
            .cloned()
            .collect();
        let read = self.look(move |domain| {
            let infos = volumes.iter().filter_map(|volume| domain.read(volume));
            Ok(infos.collect())
        });
        let read = read.await;
        self.put_back(activated, turn).await;
        read
    }

    pub(super) fn read(&self, volume: &Logical) -> Option<Result<VolumeInfo, StorageError>> {
        let Role::Volume(name) = volume.role() else {
            return None;
        };
        let content = Content::read(&self.name, volume, &self.what(&name));
        Some(content.and_then(|content| content.info(self.volume(&name))))
    }

    /// The group, in which those of this program's volumes can be read, and what was activated for
    /// that.
    pub(super) async fn readable(
        &self,
        group: Group,
        wanted: impl Fn(&Logical) -> bool,
        turn: &Turn,
    ) -> Result<(Group, Vec<String>), StorageError> {
        let lies_apart = |volume: &&Logical| wanted(volume) && !is_readable(volume);
        let names: Vec<_> = group
            .ours()
            .filter(lies_apart)
            .map(|volume| volume.name.clone())
            .collect();
        if names.is_empty() {
            return Ok((group, names));
        }
        let all: Vec<_> = names.iter().map(String::as_str).collect();
        self.lvm.during(turn).activate(&all).await?;
        Ok((self.report().await?, names))
    }

    pub(super) async fn foreign(&self) -> Result<Vec<String>, StorageError> {
        let group = self.report().await?;
        let foreign = group.volumes.iter().filter(|volume| !volume.is_ours());
        let mut names: Vec<_> = foreign.map(|volume| volume.name.clone()).collect();
        names.sort();
        Ok(names)
    }

    pub(super) async fn space(&self) -> Result<Space, StorageError> {
        let group = self.report().await?;
        Ok(Space {
            free_bytes: group.free_bytes,
            total_bytes: group.total_bytes,
        })
    }

    /// The volume that a path leads to: as it is spelled, or by the device that it is.
    pub(super) fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        let path = path_of(locator)?;
        self.spells(locator)
            .or_else(|| self.volume_name(&self.leads_to(path)?))
    }

    pub(super) fn spells(&self, locator: &Locator) -> Option<VolumeName> {
        self.volume_name(&self.name.spelled(path_of(locator)?)?)
    }

    fn volume_name(&self, name: &str) -> Option<VolumeName> {
        let Role::Volume(name) = Role::of(name) else {
            return None;
        };
        self.name.check(&name).is_ok().then_some(name)
    }

    /// The name within this group of the device that a path leads to.
    fn leads_to(&self, path: &Path) -> Option<String> {
        let found = fs::metadata(path)
            .ok()
            .filter(|found| found.file_type().is_block_device())?;
        let (major, minor) = (major(found.rdev()), minor(found.rdev()));
        let name = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/dm/name")).ok()?;
        self.name.volume_of_device(name.trim_end())
    }
}

fn is_volume(volume: &Logical) -> bool {
    matches!(volume.role(), Role::Volume(_))
}

fn path_of(locator: &Locator) -> Option<&Path> {
    match locator {
        Locator::File(path) | Locator::Block(path) => Some(path),
        Locator::Nbd(_) => None,
    }
}

/// A set that is only looked at and changed, never held.
pub(super) fn locked<T>(set: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}
