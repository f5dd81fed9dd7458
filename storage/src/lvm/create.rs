//! New volumes, and larger ones: what `qemu-img` does for a group.
//!
//! ```text
//!   there already? ─▶ lvcreate under a name of its own ─▶ qemu-img ─▶ parent still there? ─▶ renamed
//! ```
//!
//! A volume appears under its name whole, or not at all. What a crash leaves is swept when the domain
//! is opened, or its removals are listed. A new volume stays active on the host that made it: it is made to be used.

use super::domain::Domain;
use super::report::Group;
use super::turn::Turn;
use super::{name, room, tag};
use crate::qemu_img::format_name;
use crate::volume::{MAX_VIRTUAL_BYTES, SECTOR_BYTES};
use crate::{Format, NewVolume, Parent, StorageError, VolumeInfo, VolumeName};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// How often room is added for the tables of a larger volume.
const MOST_CHUNKS: u32 = 64;

impl Domain {
    pub(super) async fn create(
        self: Arc<Self>,
        volume: NewVolume,
    ) -> Result<VolumeInfo, StorageError> {
        self.name.check(&volume.name)?;
        volume.check_size()?;
        let parent = {
            let turn = self.look_turn().await?;
            let group = self.report().await?;
            if group.volume(&volume.name).is_some() {
                return self.same(self.info(group, &volume.name, &turn).await?, &volume);
            }
            match &volume.parent {
                Some(parent) => Some(self.parent(group, &volume, parent, &turn).await?),
                None => None,
            }
        };
        let _creating = self.with(|domain| domain.turns.create()).await?;
        let draft = name::new(Uuid::new_v4());
        let tags = tag::of_new(parent.as_ref().map(|(name, _)| name));
        let bytes = room::first(volume.virtual_bytes, self.chunk());
        let made = match self.lvm.alone().create(&draft, bytes, &tags).await {
            Ok(()) => self.publish(&draft, &volume, parent).await,
            Err(StorageError::NoSpace { .. }) => Err(StorageError::NoSpace {
                needed: bytes,
                free: self.report().await?.free_bytes,
            }),
            Err(error) => Err(error),
        };
        if made.is_err() {
            self.discard_draft(&draft).await;
        }
        made
    }

    /// The parent as a volume of this domain: no other domain's gate would see that it is needed.
    async fn parent(
        self: &Arc<Self>,
        group: Group,
        volume: &NewVolume,
        parent: &Parent,
        turn: &Turn,
    ) -> Result<(VolumeName, Format), StorageError> {
        let refused = |why| StorageError::Invalid(format!("the parent of {} {why}", volume.name));
        let name = self.resolve(&parent.locator);
        let name = name.ok_or_else(|| refused("is no volume of its domain"))?;
        if name == volume.name {
            return Err(refused("is itself"));
        }
        let format = self.info(group, &name, turn).await?.format;
        if parent.format.is_some_and(|said| said != format) {
            return Err(refused("has another format"));
        }
        Ok((name, format))
    }

    /// Makes the image, and gives it its name. A name that was taken meanwhile is looked at again.
    async fn publish(
        self: &Arc<Self>,
        draft: &str,
        volume: &NewVolume,
        parent: Option<(VolumeName, Format)>,
    ) -> Result<VolumeInfo, StorageError> {
        self.make_image(draft, volume, parent.as_ref()).await?;
        let turn = self.name_turn().await?;
        let group = self.report().await?;
        if let Some((parent, _)) = &parent {
            group.volume(parent).ok_or_else(|| self.not_found(parent))?;
        }
        let name = volume.name.as_str();
        if let Some(taken) = group.named(name) {
            if !taken.is_ours() {
                let text = format!("a logical volume has the name {name} and is no volume");
                return Err(StorageError::Invalid(text));
            }
            self.discard_draft(draft).await;
            return self.same(self.info(group, &volume.name, &turn).await?, volume);
        }
        let made = group.named(draft).cloned();
        let mut made = made.ok_or_else(|| self.not_found(&volume.name))?;
        self.lvm.during(&turn).rename(draft, name).await?;
        name.clone_into(&mut made.name);
        let read = self
            .look(move |domain| domain.read(&made).transpose())
            .await?;
        read.ok_or_else(|| self.not_found(&volume.name))
    }

    async fn make_image(
        &self,
        draft: &str,
        volume: &NewVolume,
        parent: Option<&(VolumeName, Format)>,
    ) -> Result<(), StorageError> {
        let device = self.name.path(draft);
        let size = volume.virtual_bytes.to_string();
        let mut args: Vec<&Path> = ["create", "-q", "-f", "qcow2"].map(Path::new).into();
        let backing = parent.map(|(name, format)| (self.name.path(name.as_str()), *format));
        if let Some((parent, format)) = &backing {
            // `-u`: the parent may be in use, and its size is given.
            args.extend(["-u".as_ref(), "-b".as_ref(), parent.as_path()]);
            args.extend(["-F", format_name(*format)].map(Path::new));
        }
        args.extend([device.as_path(), size.as_ref()]);
        self.qemu_img.run(&args).await?;
        self.sync(device).await
    }

    /// What was half made is nobody's; if this fails too, it is swept later.
    async fn discard_draft(&self, draft: &str) {
        if let Ok(group) = self.report().await
            && let Some(volume) = group.named(draft)
        {
            let lvm = self.lvm.alone();
            let _ = lvm.remove(&[(draft, &volume.identity)]).await;
        }
    }

    /// What is there, if it is what was to be created.
    fn same(&self, there: VolumeInfo, wanted: &NewVolume) -> Result<VolumeInfo, StorageError> {
        let name = |parent: &Parent| self.resolve(&parent.locator);
        let is = there.parent.as_ref().map(name);
        let should = wanted.parent.as_ref().map(name);
        if is == should && is != Some(None) && there.virtual_bytes == wanted.virtual_bytes {
            return Ok(there);
        }
        let text = format!("volume {} exists and is another one", there.volume);
        Err(StorageError::Invalid(text))
    }

    pub(super) async fn grow(
        self: Arc<Self>,
        name: VolumeName,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        let wanted = virtual_bytes.checked_next_multiple_of(SECTOR_BYTES);
        let virtual_bytes = wanted.unwrap_or(u64::MAX);
        let info = self.stat(&name).await?;
        if info.virtual_bytes >= virtual_bytes {
            return Ok(info);
        }
        if virtual_bytes > MAX_VIRTUAL_BYTES {
            let text = format!("a volume has at most {MAX_VIRTUAL_BYTES} bytes");
            return Err(StorageError::Invalid(text));
        }
        let turn = self.name_turn().await?;
        let group = self.closed(&name).await?;
        match info.format {
            Format::Raw => {
                let extended = self.extend(&group, &name, virtual_bytes, Some(&turn));
                extended.await?;
            }
            Format::Qcow2 => {
                let names = std::slice::from_ref(&name);
                let activated = self.activate_all(&group, names, &turn).await?;
                let resized = self.resize(&name, virtual_bytes, &turn).await;
                self.put_back(activated, &turn).await;
                resized?;
            }
        }
        self.info(self.report().await?, &name, &turn).await
    }

    /// The tables of a larger image may need more room than there is.
    async fn resize(
        &self,
        name: &VolumeName,
        virtual_bytes: u64,
        turn: &Turn,
    ) -> Result<(), StorageError> {
        let path = self.name.path(name.as_str());
        let size = virtual_bytes.to_string();
        let mut args: Vec<&Path> = ["resize", "-q", "-f", "qcow2"].map(Path::new).into();
        args.extend([path.as_path(), size.as_ref()]);
        for _chunk in 0..MOST_CHUNKS {
            match self.qemu_img.run(&args).await {
                Err(StorageError::NoSpace { .. }) => {}
                Ok(()) => return self.sync(path).await,
                failed => return failed,
            }
            let group = self.report().await?;
            let has = group.volume(name).map(|volume| volume.bytes);
            let has = has.ok_or_else(|| self.not_found(name))?;
            let room = has + self.chunk();
            self.extend(&group, name, room, Some(turn)).await?;
        }
        Err(StorageError::NoSpace { needed: 0, free: 0 })
    }
}
