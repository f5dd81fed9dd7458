//! A domain: its objects, its names, and its directory on this host.

use super::blocks::{BLOCK_BYTES, Blocks};
use super::bucket::Bucket;
use super::keys::Keys;
use super::lease::{Lease, Seen, Times};
use super::marks::Marks;
use super::names::Names;
use super::records::Records;
use super::spill::Spill;
use crate::error::io_error;
use crate::nbd::{NbdAddress, NbdServer};
use crate::program::Program;
use crate::qemu_img;
use crate::{Locator, StorageError, StorageId, VolumeName, VolumeRef};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex as Short;
use std::time::Instant;
use tokio::sync::Mutex;
use uuid::Uuid;

/// The layout of this version of the program.
const LAYOUT: u32 = 1;
/// The exporter's socket in the domain's directory.
const SOCKET: &str = "nbd.sock";

/// The directory of what is not in the store yet.
const UNFLUSHED: &str = "unflushed";

/// What the domain is, written once.
#[derive(Debug, Serialize, Deserialize)]
struct Stamp {
    layout: u32,
    block_bytes: u64,
}

/// A volume, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) name: VolumeName,
    pub(super) uuid: Uuid,
    /// Size of the device that the image lies on: room for a full image of its size.
    pub(super) device_bytes: u64,
    pub(super) created_at: Timestamp,
    /// Blocks that it was made with.
    pub(super) blocks: u64,
}

/// A storage domain on an object store.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) id: StorageId,
    pub(super) bucket: Bucket,
    pub(super) keys: Keys,
    pub(super) records: Records,
    pub(super) names: Names,
    pub(super) times: Times,
    /// On this host.
    pub(super) dir: PathBuf,
    pub(super) marks: Marks,
    pub(super) seen: Seen,
    pub(super) qemu_img: Program,
    /// Whose turn it is to condemn and restore in this process.
    pub(super) turn: Mutex<()>,
    /// Volumes that are being freed by this process.
    pub(super) purging: Short<HashSet<Uuid>>,
    /// When this process looked for objects of no volume, or began.
    pub(super) looked: Short<Instant>,
    socket: String,
}

impl Domain {
    /// # Errors
    /// `Invalid` when the directory's path cannot stand in a URI.
    pub(super) fn new(
        id: StorageId,
        bucket: Bucket,
        dir: &Path,
        times: Times,
    ) -> Result<Self, StorageError> {
        std::fs::create_dir_all(dir).map_err(io_error(dir.display()))?;
        let dir = dir.canonicalize().map_err(io_error(dir.display()))?;
        let socket = dir.join(SOCKET);
        let socket = socket.to_str().ok_or_else(|| {
            StorageError::Invalid(format!("{}: the path is no text", dir.display()))
        })?;
        // The kernel's limit for the path of a socket.
        if socket.len() > 107 {
            let text = format!("{socket}: a socket's path has at most 107 bytes");
            return Err(StorageError::Invalid(text));
        }
        let keys = Keys::new(bucket.prefix.clone());
        let records = Records::new(bucket.patient.clone());
        Ok(Self {
            names: Names::new(keys.clone(), records.clone(), bucket.patient.clone()),
            marks: Marks::open(dir.join("open"))?,
            socket: socket.to_owned(),
            seen: Seen::default(),
            qemu_img: qemu_img::program(),
            turn: Mutex::default(),
            purging: Short::default(),
            looked: Short::new(Instant::now()),
            id,
            bucket,
            keys,
            records,
            times,
            dir,
        })
    }

    /// Makes sure that the store keeps conditions, without which two writers are not told apart, and
    /// that the domain is laid out as this program knows.
    ///
    /// # Errors
    /// `Invalid` when one of that is not so.
    pub(super) async fn check(&self) -> Result<(), StorageError> {
        let at = self.keys.domain();
        let stamp = Stamp {
            layout: LAYOUT,
            block_bytes: BLOCK_BYTES,
        };
        self.records.create(&at, &stamp).await?;
        let there = self.records.read::<Stamp>(&at).await?;
        let there = there.ok_or_else(|| self.invalid("an object that was put is not there"))?;
        let (layout, block_bytes) = (there.record.layout, there.record.block_bytes);
        if (layout, block_bytes) != (LAYOUT, BLOCK_BYTES) {
            let why = format!("its layout is {layout}, with blocks of {block_bytes} bytes");
            return Err(self.invalid(&why));
        }
        let mut never = there.version.clone();
        never.e_tag = Some("\"00000000000000000000000000000000\"".to_owned());
        // Google's condition is on a generation, which is a number.
        never.version = never.version.map(|_| "1".to_owned());
        let again = self.records.create(&at, &stamp).await?;
        let instead = self.records.replace(&at, &stamp, never).await?;
        if again.is_some() || instead.is_some() {
            let why = "its store does not keep the conditions of a put (If-Match, If-None-Match)";
            return Err(self.invalid(why));
        }
        Ok(())
    }

    fn invalid(&self, why: &str) -> StorageError {
        StorageError::Invalid(format!("storage domain {}: {why}", self.id))
    }

    pub(super) fn socket(&self) -> &Path {
        Path::new(&self.socket)
    }

    /// Where QEMU finds a volume.
    pub(super) fn locator(&self, name: &VolumeName) -> Locator {
        let address = NbdAddress {
            server: NbdServer::Unix(self.socket.clone()),
            export: name.to_string(),
            tls: false,
        };
        Locator::Nbd(address.to_string())
    }

    /// The volume of this domain that a locator leads to, whether it is there or not.
    pub(super) fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        let Locator::Nbd(uri) = locator else {
            return None;
        };
        let address: NbdAddress = uri.parse().ok()?;
        let here = address.server == NbdServer::Unix(self.socket.clone()) && !address.tls;
        address.export.parse().ok().filter(|_| here)
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

    /// What of a volume is not in the store yet.
    pub(super) fn spill(&self, uuid: Uuid) -> Spill {
        let uuid = uuid.hyphenated().to_string();
        Spill::new(self.dir.join(UNFLUSHED).join(uuid))
    }

    pub(super) fn blocks(&self, uuid: Uuid) -> Blocks {
        let store = self.bucket.plain.clone();
        Blocks::new(store, self.keys.clone(), uuid, self.times)
    }

    /// The volume that has a name now.
    ///
    /// # Errors
    /// `NotFound`.
    pub(super) async fn find(&self, name: &VolumeName) -> Result<Manifest, StorageError> {
        let holder = self.names.holder(name).await?;
        let uuid = holder.ok_or_else(|| self.not_found(name))?;
        self.manifest(name, uuid).await
    }

    pub(super) async fn manifest(
        &self,
        name: &VolumeName,
        uuid: Uuid,
    ) -> Result<Manifest, StorageError> {
        let read = self.records.read(&self.keys.manifest(uuid)).await?;
        Ok(read.ok_or_else(|| self.not_found(name))?.record)
    }

    pub(super) async fn lease(&self, uuid: Uuid) -> Result<Option<Lease>, StorageError> {
        let read = self.records.read(&self.keys.lease(uuid)).await?;
        Ok(read.map(|read| read.record))
    }

    /// Whether somebody writes to the volume, on whichever host, as far as leases tell.
    pub(super) async fn is_written(&self, uuid: Uuid) -> Result<bool, StorageError> {
        let lease = self.lease(uuid).await?;
        Ok(self.seen.is_live(uuid, lease.as_ref()))
    }
}
