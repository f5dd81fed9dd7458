//! The contracts that every storage back end keeps.
//!
//! ```text
//!   VolumeStore   create, stat, list, grow, remove (gate ▶ condemn ▶ keep ▶ purge), restore
//!        ▲
//!   LiveVolumes   activate ▶ a locator that QEMU opens, deactivate
//! ```
//!
//! Differences between back ends are data ([`Capabilities`]), never a method that does nothing.
//! Dropping a call's future cancels nothing: what it began is done, or resumed by the same call.

use crate::together;
use crate::{
    Extent, Identity, Locator, NewVolume, Parent, RemovalId, StorageError, StorageId, VolumeInfo,
    VolumeName, VolumeRef,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use std::time::Duration;

/// What a back end can do beside the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether a volume takes only the space that was written.
    pub thin: bool,
    /// Whether volumes of several hosts' machines may lie in one domain.
    pub shared: bool,
    /// Whether a volume has only the room that it was given, see [`VolumeStore::provide`]. Elsewhere
    /// it takes what it needs from the domain.
    pub provided: bool,
    /// Whether a removal can overwrite what the volume held.
    pub wipe: bool,
    /// Whether a removal can tell the device below that the room is free.
    pub discard: bool,
}

/// Room in a domain, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free for new data.
    pub free_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// Orders a removal. The id names it, also when it is repeated or resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovalOrder {
    /// The removal's id.
    pub id: RemovalId,
    /// The volume's name.
    pub volume: VolumeName,
    /// What must be found under that name; anything else is left alone.
    pub identity: Identity,
    /// How long the volume can be brought back after it was condemned.
    pub keep_for: Duration,
    /// Whether its data are overwritten before its room is given back.
    pub wipe: bool,
    /// Whether the device below is told that the room is free.
    pub discard: bool,
    /// Only goes on with what this removal has condemned. Where that is nothing, as of a volume that was
    /// brought back, nothing is done.
    pub resumes: bool,
}

impl RemovalOrder {
    /// A removal that keeps and wipes nothing.
    pub fn new(id: RemovalId, volume: VolumeName, identity: Identity) -> Self {
        Self {
            id,
            volume,
            identity,
            keep_for: Duration::ZERO,
            wipe: false,
            discard: false,
            resumes: false,
        }
    }
}

/// Where a removal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovalState {
    /// The volume can no longer be opened by its name.
    Condemned {
        /// It can be restored until then; `None` when its space is being freed.
        keep_until: Option<Timestamp>,
    },
    /// Nothing is left of the volume.
    Gone,
}

/// A removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Its id.
    pub id: RemovalId,
    /// The volume.
    pub volume: VolumeRef,
    /// Its mark, which the order to go on must name.
    pub identity: Identity,
    /// Where it stands.
    pub state: RemovalState,
    /// Bytes that this call gave back.
    pub freed_bytes: u64,
    /// When the volume was condemned; `None` when it had been gone before.
    pub condemned_at: Option<Timestamp>,
}

/// What cannot be read without something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    /// What it is built on, as it was asked for.
    pub on: Locator,
    /// The volume that depends on it; `None` for what is no volume of the domain (any more): a
    /// foreign image, or a volume that was condemned and is kept.
    pub volume: Option<VolumeName>,
    /// Where it lies.
    pub locator: Locator,
    /// Whether it is a volume that was condemned and is kept: nobody reads it unless it is brought back.
    pub kept: bool,
}

/// The volumes of one storage domain.
#[async_trait]
pub trait VolumeStore: Send + Sync + 'static {
    /// The domain's id.
    fn id(&self) -> &StorageId;

    /// What this back end can do.
    fn capabilities(&self) -> Capabilities;

    /// Creates a volume: durable on return, whole or not at all. The same volume again (name, size,
    /// parent) returns what is there.
    ///
    /// # Errors
    /// `Invalid` when the name has another volume, for a size out of bounds, and for a parent that
    /// is no volume of this domain or has another format; `NotFound` for a parent that is gone.
    async fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError>;

    /// A volume as it is now.
    ///
    /// # Errors
    /// `NotFound` only when it is certainly not there.
    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError>;

    /// The volumes of the domain, in no order. What is condemned, or no volume, is left out; a
    /// volume that cannot be read is an error of the stream.
    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>>;

    /// Makes a volume that nobody has open at least so large, durably. Never shrinks.
    ///
    /// # Errors
    /// `NotFound`; `InUse` while somebody has it open; `Invalid` for a size out of bounds.
    async fn grow(
        &self,
        volume: &VolumeName,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError>;

    /// Gives a volume room for so many bytes of its own, durably, also while it is open. Never less
    /// than it has, and no more than a full volume of its size needs; where the domain has less left, all
    /// of that. Where volumes are not given their room it has it as long as the domain has.
    ///
    /// # Errors
    /// `NotFound`; `NoSpace` when the domain has nothing left.
    async fn provide(&self, volume: &VolumeName, bytes: u64) -> Result<VolumeInfo, StorageError>;

    /// The same of a volume that is to be as large as this before it needs the room: no more than a full
    /// one of that size.
    ///
    /// # Errors
    /// As [`VolumeStore::provide`].
    async fn provide_for(
        &self,
        volume: &VolumeName,
        bytes: u64,
        _virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        self.provide(volume, bytes).await
    }

    /// What is given at once at least. `None` where volumes are not given their room.
    fn chunk(&self) -> Option<u64> {
        None
    }

    /// The room that a full volume has which a guest sees so many bytes of: the most that it is ever
    /// given. `None` where volumes are not given their room.
    fn most_room(&self, _virtual_bytes: u64) -> Option<u64> {
        None
    }

    /// Takes back the room that a volume which nobody has open does not need.
    ///
    /// # Errors
    /// `NotFound`; `InUse` while somebody has it open.
    async fn reduce(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError>;

    /// What lies in the domain and is neither a volume nor this program's: by name, for people. It is
    /// never touched.
    async fn foreign(&self) -> Result<Vec<String>, StorageError>;

    /// Removes a volume that nothing needs: gate, condemn, keep, purge. Refused with `InUse` while
    /// a header of the domain names it, that of a volume that is kept for longer too, or somebody has it open;
    /// refused whenever that cannot be told, as `Unreachable` when another
    /// image cannot be read. What is gone, or has another identity by now, is
    /// success. The same order again resumes; how long the volume is kept, and whether it is wiped, stays
    /// as it was first ordered.
    ///
    /// # Errors
    /// `InUse`; `Busy` while another call frees it; `Invalid` when the id is that of another
    /// volume's removal, and for a wipe or a discard that the back end cannot do.
    async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError>;

    /// Removes volumes that leave together, each as [`VolumeStore::remove`] does, and answers them in
    /// the order of their orders. One that is built on another of them and goes with it is not in that
    /// one's way; one that stays is. No volume goes before those that are built on it.
    async fn remove_all(&self, orders: &[RemovalOrder]) -> Vec<Result<Removal, StorageError>> {
        together::remove_all(self, orders).await
    }

    /// The removals that have not ended, after a crash too.
    async fn list_removals(&self) -> Result<Vec<Removal>, StorageError>;

    /// Brings a condemned volume back under its name.
    ///
    /// # Errors
    /// `NotFound` when there is no such removal; `NotKept` when the time for it is over or its space
    /// is being freed; `Busy` while another call works on it; `InUse` while another volume of its name
    /// is being removed; `Invalid` when the name has been used again.
    async fn restore(&self, removal: RemovalId) -> Result<VolumeInfo, StorageError>;

    /// What the volume's header names as backing; `None` for a base.
    async fn parent_of(&self, volume: &VolumeName) -> Result<Option<Parent>, StorageError>;

    /// What in this domain is built directly on what these locators lead to, volumes of this domain
    /// or not: by the rule by which [`VolumeStore::remove`] refuses. However a header spells it,
    /// what is the same is the same; what may be meant counts, and so do foreign and kept images.
    ///
    /// # Errors
    /// `Unreachable` with the name of an image that cannot be read: it might be built on any.
    async fn dependents(&self, on: &[Locator]) -> Result<Vec<Dependent>, StorageError>;

    /// What a reader of the volume sees, from its first byte to its last without gaps, and from
    /// which volume of its chain. Of one that is being written it is what the storage has by now.
    ///
    /// # Errors
    /// Of the stream: `NotFound`; `Unreachable` when the chain cannot be read in time.
    fn extents(&self, volume: &VolumeName) -> BoxStream<'_, Result<Extent, StorageError>>;

    /// Whether a process has the volume open.
    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError>;

    /// Room in the domain.
    async fn space(&self) -> Result<Space, StorageError>;

    /// The volume of this domain that QEMU has open under this locator; `None` when it is none.
    fn resolve(&self, locator: &Locator) -> Option<VolumeName>;

    /// The same for a locator that is spelled as this domain spells its own: asks nobody, so that
    /// storage that hangs cannot be met. `None` says nothing.
    fn spells(&self, _locator: &Locator) -> Option<VolumeName> {
        None
    }
}

/// Volumes that a virtual machine can use.
#[async_trait]
pub trait LiveVolumes: VolumeStore {
    /// Makes a volume usable on this host, and says what QEMU opens. Repeating is harmless.
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError>;

    /// Ends that. `InUse` while a process has it open.
    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError>;
}
