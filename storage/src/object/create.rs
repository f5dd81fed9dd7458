//! New volumes, and larger ones.
//!
//! ```text
//!   there already? ─▶ image made here ─▶ its blocks and the manifest put ─▶ name given ─▶ not being taken,
//!                     by qemu-img        under a uuid that nobody knows                  parent still there?
//! ```
//!
//! A volume appears with its name, whole, or not at all. What a crash leaves before that has no name,
//! its uuid is never used again, and a day later it goes ([`super::orphans`]).

use super::blocks::BLOCK_BYTES;
use super::domain::{Domain, Manifest};
use super::exporter::Private;
use super::open::Open;
use super::purge;
use crate::condemned::now;
use crate::error::io_error;
use crate::nbd::{NbdAddress, NbdServer};
use crate::volume::{MAX_VIRTUAL_BYTES, SECTOR_BYTES};
use crate::{Format, Locator, NewVolume, Parent, StorageError, VolumeInfo, VolumeName};
use bytes::Bytes;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

/// Images that are being made, and sockets to images that grow.
pub(super) const NEW: &str = "new";
/// Room beside the data of an image: for its tables, those of dirty bitmaps, and what is moved when
/// it grows.
const BESIDE: u64 = 64 << 20;

pub(super) async fn create(
    domain: Arc<Domain>,
    volume: NewVolume,
) -> Result<VolumeInfo, StorageError> {
    volume.check_size()?;
    match domain.stat(&volume.name).await {
        Ok(there) => return domain.same(there, &volume),
        Err(StorageError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let parent = match &volume.parent {
        Some(parent) => Some(domain.parent(&volume, parent).await?),
        None => None,
    };
    let uuid = Uuid::new_v4();
    let temporary = Temporary(domain.dir.join(NEW).join(format!("{uuid}.qcow2")));
    let args = domain.arguments(&temporary.0, &volume);
    domain.qemu_img.run(&args).await?;
    let made = domain.upload(uuid, &volume, &temporary.0).await;
    drop(temporary);
    if let Err(error) = made {
        domain.discard(uuid).await;
        return Err(error);
    }
    if let Err(error) = domain.check_free(&volume.name).await {
        domain.discard(uuid).await;
        return Err(error);
    }
    // When that cannot be told, it may have the name.
    if domain.names.give(&volume.name, uuid).await? != uuid {
        // Somebody was quicker.
        domain.discard(uuid).await;
    } else if let Err(error) = domain.check_given(&volume.name, uuid).await {
        domain.names.take(&volume.name, uuid).await?;
        domain.discard(uuid).await;
        return Err(error);
    }
    if let Some((name, below)) = &parent
        && domain.names.holder(name).await? != Some(*below)
    {
        domain.names.take(&volume.name, uuid).await?;
        domain.discard(uuid).await;
        return Err(domain.not_found(name));
    }
    let there = domain.stat(&volume.name).await?;
    domain.same(there, &volume)
}

pub(super) async fn grow(
    domain: Arc<Domain>,
    name: VolumeName,
    virtual_bytes: u64,
) -> Result<VolumeInfo, StorageError> {
    let virtual_bytes = virtual_bytes
        .checked_next_multiple_of(SECTOR_BYTES)
        .unwrap_or(u64::MAX);
    let info = domain.stat(&name).await?;
    if info.virtual_bytes >= virtual_bytes {
        return Ok(info);
    }
    if virtual_bytes > MAX_VIRTUAL_BYTES {
        let text = format!("a volume has at most {MAX_VIRTUAL_BYTES} bytes");
        return Err(StorageError::Invalid(text));
    }
    let uuid = domain.find(&name).await?.uuid;
    let alone = domain.alone(&name, uuid).await?;
    let manifest = domain.enlarge(&name, uuid, virtual_bytes).await?;
    let socket = domain
        .dir
        .join(NEW)
        .join("grow.sock")
        .with_extension(short(uuid));
    let open = Open::new(Arc::clone(&domain), manifest, None);
    open.recover().await?;
    let private = Private::serve(open, socket)?;
    let address = NbdAddress {
        server: NbdServer::Unix(private.socket.display().to_string()),
        export: String::new(),
        tls: false,
    };
    let args = ["resize", "-q", "-f", "qcow2", &address.to_string()].map(OsString::from);
    let resized = domain
        .qemu_img
        .run(&[args.as_slice(), &[virtual_bytes.to_string().into()]].concat())
        .await;
    private.end().await;
    drop(alone);
    resized?;
    domain.stat(&name).await
}

/// The socket's path has to be short.
fn short(uuid: Uuid) -> String {
    uuid.simple().to_string()[..12].to_owned()
}

/// A file that goes when it is not needed any more.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What is left behind is swept at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Size of the device for an image of a size.
fn device_bytes(virtual_bytes: u64) -> u64 {
    (virtual_bytes + virtual_bytes / 1024 + BESIDE).next_multiple_of(BLOCK_BYTES)
}

impl Domain {
    /// The parent as a volume of this domain: no other domain's gate would see that it is needed.
    async fn parent(
        &self,
        volume: &NewVolume,
        parent: &Parent,
    ) -> Result<(VolumeName, Uuid), StorageError> {
        let refused = |why| StorageError::Invalid(format!("the parent of {} {why}", volume.name));
        let name = self
            .resolve(&parent.locator)
            .ok_or_else(|| refused("is no volume of its domain"))?;
        if name == volume.name {
            return Err(refused("is itself"));
        }
        if parent.format.is_some_and(|said| said != Format::Qcow2) {
            return Err(refused("has another format"));
        }
        let uuid = self.find(&name).await?.uuid;
        Ok((name, uuid))
    }

    fn arguments(&self, temporary: &Path, volume: &NewVolume) -> Vec<OsString> {
        let mut args: Vec<OsString> = ["create", "-q", "-f", "qcow2"].map(Into::into).into();
        if let Some(Locator::Nbd(uri)) = volume.parent.as_ref().map(|parent| &parent.locator) {
            // `-u`: the parent may be in use, and its size is given.
            args.extend(["-u", "-b", uri, "-F", "qcow2"].map(Into::into));
        }
        args.extend([temporary.into(), volume.virtual_bytes.to_string().into()]);
        args
    }

    async fn upload(
        &self,
        uuid: Uuid,
        volume: &NewVolume,
        image: &Path,
    ) -> Result<(), StorageError> {
        let failed = || io_error(image.display());
        let mut file = tokio::fs::File::open(image).await.map_err(failed())?;
        let blocks = self.blocks(uuid);
        let (mut index, mut count) = (0, 0);
        loop {
            let mut block = Vec::new();
            let mut part = (&mut file).take(BLOCK_BYTES);
            if part.read_to_end(&mut block).await.map_err(failed())? == 0 {
                break;
            }
            block.resize(BLOCK_BYTES as usize, 0);
            if block.iter().any(|byte| *byte != 0) {
                blocks.put(index, Bytes::from(block), None).await?;
                count += 1;
            }
            index += 1;
        }
        let manifest = Manifest {
            name: volume.name.clone(),
            uuid,
            device_bytes: device_bytes(volume.virtual_bytes),
            created_at: now(),
            blocks: count,
        };
        let at = self.keys.manifest(uuid);
        self.records.create(&at, &manifest).await?;
        Ok(())
    }

    /// While a name is being taken from another volume, that still looks for what is built on it. Looked at
    /// before and after the name is given: a removal may begin and have taken it in between.
    ///
    /// # Errors
    /// `Busy`.
    async fn check_free(&self, name: &VolumeName) -> Result<(), StorageError> {
        if self.is_being_taken(name, None).await? {
            let what = self.what(name);
            return Err(StorageError::Busy { what });
        }
        Ok(())
    }

    /// The same when it has its name. One that took so long that it was taken for dead is no volume.
    async fn check_given(&self, name: &VolumeName, uuid: Uuid) -> Result<(), StorageError> {
        self.check_free(name).await?;
        if self.is_condemned(uuid).await? {
            let what = self.what(name);
            return Err(StorageError::Busy { what });
        }
        Ok(())
    }

    /// Takes away what did not become a volume.
    async fn discard(&self, uuid: Uuid) {
        if let Err(error) = purge::purge(&self.bucket.plain, &self.keys, uuid).await {
            tracing::warn!(%uuid, %error, "objects that are no volume are left behind");
        }
    }

    /// Makes room on the volume's device.
    async fn enlarge(
        &self,
        name: &VolumeName,
        uuid: Uuid,
        virtual_bytes: u64,
    ) -> Result<Manifest, StorageError> {
        let at = self.keys.manifest(uuid);
        let read = self.records.read::<Manifest>(&at).await?;
        let mut read = read.ok_or_else(|| self.not_found(name))?;
        let wanted = device_bytes(virtual_bytes);
        if read.record.device_bytes < wanted {
            read.record.device_bytes = wanted;
            let put = self
                .records
                .replace(&at, &read.record, read.version)
                .await?;
            put.ok_or_else(|| StorageError::Busy {
                what: self.what(name),
            })?;
        }
        Ok(read.record)
    }

    /// What is there, if it is what was to be created.
    fn same(&self, there: VolumeInfo, wanted: &NewVolume) -> Result<VolumeInfo, StorageError> {
        let name = |parent: &Option<Parent>| {
            let parent = parent.as_ref();
            parent.map(|parent| self.resolve(&parent.locator))
        };
        let (is, should) = (name(&there.parent), name(&wanted.parent));
        if is == should && is != Some(None) && there.virtual_bytes == wanted.virtual_bytes {
            return Ok(there);
        }
        Err(StorageError::Invalid(format!(
            "volume {} exists and is another one",
            there.volume
        )))
    }
}
