//! What a volume's image says of itself, read from its objects: as the last flush has left it.

use super::domain::{Domain, Manifest};
use crate::error::io_error;
use crate::image::qcow2::{self, BitmapDirectory, HEAD_BYTES, Header};
use crate::image::{backing, bitmaps};
use crate::{Format, Identity, Locator, NbdAddress, Parent, StorageError, VolumeInfo, VolumeName};
use std::io;
use uuid::Uuid;

use super::blocks::BLOCK_BYTES;

impl Domain {
    /// # Errors
    /// `NotFound`; `Corrupt` for a volume that is no qcow2 image.
    pub(super) async fn stat(&self, name: &VolumeName) -> Result<VolumeInfo, StorageError> {
        let manifest = self.find(name).await?;
        self.info(name, &manifest).await
    }

    pub(super) async fn info(
        &self,
        name: &VolumeName,
        manifest: &Manifest,
    ) -> Result<VolumeInfo, StorageError> {
        let uuid = manifest.uuid;
        let what = self.what(name);
        let (header, lease) = tokio::try_join!(self.header(uuid, &what), self.lease(uuid))?;
        let blocks = lease.map_or(manifest.blocks, |lease| lease.blocks);
        let bitmaps = match header.bitmaps {
            Some(listed) => self.bitmaps(uuid, listed).await,
            None => Vec::new(),
        };
        Ok(VolumeInfo {
            volume: self.volume(name),
            identity: identity(uuid),
            format: Format::Qcow2,
            virtual_bytes: header.virtual_bytes,
            allocated_bytes: blocks * BLOCK_BYTES,
            locator: self.locator(name),
            parent: parent(&header),
            cluster_bytes: header.cluster_bytes,
            encrypted: header.encrypted,
            bitmaps,
        })
    }

    /// # Errors
    /// `Corrupt` for what is no qcow2 image.
    pub(super) async fn header(&self, uuid: Uuid, what: &str) -> Result<Header, StorageError> {
        let blocks = self.blocks(uuid);
        let first = tokio::time::timeout(LIMIT, blocks.get(0)).await;
        let first = first.unwrap_or_else(|_| Err(super::failure::hangs(what, LIMIT)))?;
        let head = first.as_deref().unwrap_or_default();
        let header = qcow2::parse(&head[..head.len().min(HEAD_BYTES)], what)?;
        header.ok_or_else(|| StorageError::Corrupt {
            what: what.to_owned(),
            why: "it has no qcow2 header".to_owned(),
        })
    }

    /// What cannot be read is a bitmap without a name, never none.
    async fn bitmaps(&self, uuid: Uuid, listed: BitmapDirectory) -> Vec<String> {
        let read = async {
            let directory = self.read(uuid, listed.start, listed.bytes).await.ok()?;
            bitmaps::parse(&directory, listed.count).ok()
        };
        let names = tokio::time::timeout(LIMIT, read).await.unwrap_or(None);
        names.unwrap_or_else(|| vec![bitmaps::NAMELESS.to_owned()])
    }

    async fn read(&self, uuid: Uuid, at: u64, bytes: u64) -> Result<Vec<u8>, StorageError> {
        let end = at.checked_add(bytes).filter(|_| bytes <= BLOCK_BYTES);
        let end = end.ok_or_else(|| io_error(uuid)(io::ErrorKind::InvalidData.into()))?;
        let blocks = self.blocks(uuid);
        let mut data = Vec::new();
        for index in at / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            let block = blocks.get(index).await?;
            data.extend(
                block.map_or_else(|| vec![0; BLOCK_BYTES as usize], |block| block.to_vec()),
            );
        }
        let from = (at % BLOCK_BYTES) as usize;
        Ok(data[from..from + bytes as usize].to_vec())
    }
}

/// A look may take no longer, whatever is tried again meanwhile.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

pub(super) fn identity(uuid: Uuid) -> Identity {
    let text = uuid.hyphenated().to_string();
    text.parse().expect("a UUID is an identity")
}

/// What a header names as backing, in the spelling of locators.
pub(super) fn parent(header: &Header) -> Option<Parent> {
    let backing = header.backing.as_deref()?;
    let (locator, format) = backing::locate("/".as_ref(), backing);
    let locator = match locator {
        Locator::Nbd(uri) => match uri.parse::<NbdAddress>() {
            Ok(address) => Locator::Nbd(address.to_string()),
            Err(_) => Locator::Nbd(uri),
        },
        other => other,
    };
    Some(Parent {
        locator,
        format: header.backing_format.or(format),
    })
}
