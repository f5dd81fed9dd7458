//! New volumes, and larger ones: what `qemu-img` does for a domain.
//!
//! ```text
//!   there already? ─▶ made in new/ under a name of its own ─▶ parent still there? ─▶ renamed
//! ```
//!
//! A volume appears under its name whole and durable, or not at all. What a crash leaves in `new/`
//! is swept when the domain is opened.

use super::domain::{Domain, check_name};
use crate::error::io_error;
use crate::qemu_img::format_name;
use crate::turn::Turn;
use crate::volume::{MAX_VIRTUAL_BYTES, SECTOR_BYTES};
use crate::{Format, NewVolume, Parent, StorageError, VolumeInfo, VolumeName};
use rustix::fs::CWD;
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// What is to be made, under a name that nobody else has.
struct Draft {
    temporary: PathBuf,
    parent: Option<(VolumeName, Format)>,
    _turn: Turn,
}

pub(super) async fn create(
    domain: Arc<Domain>,
    volume: NewVolume,
) -> Result<VolumeInfo, StorageError> {
    let volume = Arc::new(volume);
    let wanted = Arc::clone(&volume);
    let draft = match domain.with(move |domain| domain.draft(&wanted)).await? {
        Ok(draft) => draft,
        Err(there) => return Ok(there),
    };
    let made = domain
        .qemu_img
        .run(&domain.arguments(&draft, &volume))
        .await;
    let publish = move |domain: &Domain| {
        let published = made.and_then(|()| domain.publish(&draft, &volume));
        if published.is_err() {
            // What was half made is nobody's; if this fails too, it is swept later.
            let _ = fs::remove_file(&draft.temporary);
        }
        published
    };
    domain.with(publish).await
}

pub(super) async fn grow(
    domain: Arc<Domain>,
    name: VolumeName,
    virtual_bytes: u64,
) -> Result<VolumeInfo, StorageError> {
    let virtual_bytes = virtual_bytes
        .checked_next_multiple_of(SECTOR_BYTES)
        .unwrap_or(u64::MAX);
    let of = name.clone();
    let info = domain.look(move |domain| domain.stat(&of)).await?;
    if info.virtual_bytes >= virtual_bytes {
        return Ok(info);
    }
    check_size(virtual_bytes)?;
    let mut args: Vec<OsString> = ["resize", "-q", "-f", format_name(info.format)]
        .map(Into::into)
        .into();
    args.extend([domain.path(&name).into(), virtual_bytes.to_string().into()]);
    domain.qemu_img.run(&args).await?;
    let sync = move |domain: &Domain| {
        domain
            .image(&name)?
            .file
            .sync_all()
            .map_err(io_error(domain.what(&name)))?;
        domain.stat(&name)
    };
    domain.with(sync).await
}

impl Domain {
    /// What is to be made, or the volume that is there already.
    fn draft(&self, volume: &NewVolume) -> Result<Result<Draft, VolumeInfo>, StorageError> {
        check_name(&volume.name)?;
        if volume.name.as_str().ends_with(".raw") {
            let text = format!(
                "a new volume is qcow2, and {} says that it is raw",
                volume.name
            );
            return Err(StorageError::Invalid(text));
        }
        volume.check_size()?;
        match self.stat(&volume.name) {
            Ok(there) => return self.same(there, volume).map(Err),
            Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let parent = volume
            .parent
            .as_ref()
            .map(|parent| self.parent(volume, parent))
            .transpose()?;
        let temporary = self.new.join(format!("{}.qcow2", Uuid::new_v4()));
        Ok(Ok(Draft {
            temporary,
            parent,
            _turn: self.turns.create()?,
        }))
    }

    /// The parent as a volume of this domain: no other domain's gate would see that it is needed.
    fn parent(
        &self,
        volume: &NewVolume,
        parent: &Parent,
    ) -> Result<(VolumeName, Format), StorageError> {
        let refused = |why| StorageError::Invalid(format!("the parent of {} {why}", volume.name));
        let name = self
            .parent_name(parent)
            .ok_or_else(|| refused("is no volume of its domain"))?;
        if name == volume.name {
            return Err(refused("is itself"));
        }
        let format = self.image(&name)?.format();
        if parent.format.is_some_and(|said| said != format) {
            return Err(refused("has another format"));
        }
        Ok((name, format))
    }

    fn parent_name(&self, parent: &Parent) -> Option<VolumeName> {
        self.resolve(&parent.locator)
    }

    fn arguments(&self, draft: &Draft, volume: &NewVolume) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["create", "-q", "-f", "qcow2"].map(Into::into).into();
        if let Some((parent, format)) = &draft.parent {
            // `-u`: the parent may be in use, and its size is given.
            args.extend(["-u".into(), "-b".into(), self.path(parent).into()]);
            args.extend(["-F", format_name(*format)].map(Into::into));
        }
        args.extend([
            draft.temporary.clone().into(),
            volume.virtual_bytes.to_string().into(),
        ]);
        args
    }

    /// Gives a new image its name, durably. A name that was taken meanwhile is looked at again.
    fn publish(&self, draft: &Draft, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        let failed = || io_error(self.what(&volume.name));
        File::open(&draft.temporary)
            .and_then(|file| file.sync_all())
            .map_err(failed())?;
        let turn = self.turns.name()?;
        if let Some((parent, _)) = &draft.parent {
            self.image(parent)?;
        }
        let name = Path::new(volume.name.as_str());
        let to = (self.dir.as_fd(), name);
        match self.renames.give((CWD, &draft.temporary), to) {
            Ok(()) => self.dir.sync_all().map_err(failed())?,
            Err(Errno::EXIST) => fs::remove_file(&draft.temporary).map_err(failed())?,
            Err(errno) => return Err(failed()(errno.into())),
        }
        drop(turn);
        self.stat(&volume.name)
            .and_then(|there| self.same(there, volume))
    }

    /// What is there, if it is what was to be created.
    fn same(&self, there: VolumeInfo, wanted: &NewVolume) -> Result<VolumeInfo, StorageError> {
        let is = there.parent.as_ref().map(|parent| self.parent_name(parent));
        let should = wanted
            .parent
            .as_ref()
            .map(|parent| self.parent_name(parent));
        if is == should && is != Some(None) && there.virtual_bytes == wanted.virtual_bytes {
            return Ok(there);
        }
        Err(StorageError::Invalid(format!(
            "volume {} exists and is another one",
            there.volume
        )))
    }
}

fn check_size(virtual_bytes: u64) -> Result<(), StorageError> {
    if virtual_bytes <= MAX_VIRTUAL_BYTES {
        return Ok(());
    }
    Err(StorageError::Invalid(format!(
        "a volume has at most {MAX_VIRTUAL_BYTES} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use super::super::rename::Renames;
    use super::*;

    #[tokio::test]
    async fn a_file_system_that_renames_in_two_steps_creates_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut domain = Domain::open("domain".parse().unwrap(), dir.path()).unwrap();
        domain.renames = Renames::of_nfs();
        let domain = Arc::new(domain);
        let volume = NewVolume {
            name: "v.qcow2".parse().unwrap(),
            virtual_bytes: 1 << 20,
            parent: None,
        };
        let both = [volume.clone(), volume].map(|volume| create(Arc::clone(&domain), volume));
        let [one, other] = futures::future::join_all(both).await.try_into().unwrap();
        assert_eq!(one.unwrap().identity, other.unwrap().identity);
        assert_eq!(fs::read_dir(&domain.new).unwrap().count(), 0);
    }
}
