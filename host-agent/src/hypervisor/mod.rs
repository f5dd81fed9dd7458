//! The hypervisor as the merge sees it: a port, so that the domain knows nothing of libvirt.
//!
//! ```text
//!   merge, grpc ──▶ trait Hypervisor ──▶ libvirt/  (ffi.rs: the only unsafe code)
//!                                   └──▶ fake      (scripted, for tests)
//! ```
//!
//! Two rules hold for every implementation:
//! - What it *observes* is the truth; a call's own reply is only a hint. A lost reply, a time-out
//!   or a broken connection is [`HypervisorError::Unknown`], never "not there".
//! - Layers are named by what QEMU opens ([`Locator`]); libvirt's indexes start again with the
//!   machine, so they are looked up right before a call and never leave this module.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod ffi;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod libvirt;
mod types;
mod xml;

pub use libvirt::Libvirt;
pub use types::{
    BlockJob, BlockJobKind, BlockJobOutcome, DiskView, Fill, HypervisorError, HypervisorEvent,
    JobOrder, JobProgress, KeptSnapshot, Layer, LayerFill, MirrorState, Overlay, Reference,
    UnsupportedDisk, VmState, VmView,
};

use async_trait::async_trait;
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use std::time::Duration;
use tokio::sync::broadcast;

/// What a host's hypervisor can tell and do. Every call may be repeated.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Every defined or running machine with its disks and chains. A disk whose chain cannot be
    /// read is left out, so that one does not hide all: for decisions ask for the machine.
    async fn vms(&self) -> Result<Vec<VmView>, HypervisorError>;

    /// One machine, read now. [`HypervisorError::NotFound`] only when it is certainly not defined;
    /// [`HypervisorError::Unknown`] when one of its chains cannot be read to its end.
    async fn vm(&self, vm: VmId) -> Result<VmView, HypervisorError>;

    /// How far the block job of a disk is; `None` when none runs.
    async fn job(
        &self,
        vm: VmId,
        disk: &DiskTarget,
    ) -> Result<Option<JobProgress>, HypervisorError>;

    /// Whether a running machine is on its way to another host, or comes from one. Neither a block job nor
    /// an overlay is begun meanwhile: the other side opens the images that it was told of.
    async fn migrates(&self, vm: VmId) -> Result<bool, HypervisorError>;

    /// Puts existing volumes on top of the disks' active layers, all or none, without metadata. A
    /// machine that is shut off has them from its next start on.
    async fn add_overlays(&self, vm: VmId, overlays: &[Overlay]) -> Result<(), HypervisorError>;

    /// Starts a commit or a pull. Returns when the job runs. A job of a machine that is shut off
    /// ends with this process; while it runs the machine cannot be started.
    async fn start_job(&self, vm: VmId, order: &JobOrder) -> Result<(), HypervisorError>;

    /// Switches the guest to the base of a ready active commit. Returns when it is asked for;
    /// whether it happened is observed.
    async fn pivot(&self, vm: VmId, disk: &DiskTarget) -> Result<(), HypervisorError>;

    /// Asks for the end of a disk's block job without its work. Returns when it is asked for;
    /// whether it has ended is observed.
    async fn abort_job(&self, vm: VmId, disk: &DiskTarget) -> Result<(), HypervisorError>;

    /// Lets the block job of a disk copy so many bytes a second from now on; 0 for no limit.
    async fn set_speed(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        bytes_per_second: u64,
    ) -> Result<(), HypervisorError>;

    /// How many bytes a second the running guest may write to a disk; 0 for no limit.
    async fn write_limit(&self, vm: VmId, disk: &DiskTarget) -> Result<u64, HypervisorError>;

    /// Lets the running guest write so many bytes a second to a disk from now on; 0 for no limit.
    async fn limit_writes(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        bytes_per_second: u64,
    ) -> Result<(), HypervisorError>;

    /// Makes `image` name `backing` as the one below it, on a machine that is shut off. Refused when
    /// anybody has one of them open. Done already is done.
    async fn restore_backing(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        image: &Locator,
        backing: &Layer,
    ) -> Result<(), HypervisorError>;

    /// Lets a running machine start from `kept` next time, where its definition still names one of
    /// the removed layers. No error when it names none.
    async fn set_next_start(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        removed: &[Locator],
        kept: &Locator,
    ) -> Result<(), HypervisorError>;

    /// How far the layers of a running machine are written, and whether it stands still because one
    /// had no room.
    async fn fill(&self, vm: VmId) -> Result<Fill, HypervisorError>;

    /// Tells by [`HypervisorEvent::Filling`], once, when QEMU writes a layer beyond this byte. The
    /// last call counts.
    async fn watch_fill(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        layer: &Locator,
        bytes: u64,
    ) -> Result<(), HypervisorError>;

    /// Stops the guest's processors. Returns when they stand still. Until [`Hypervisor::resume`] this
    /// process lets them run for no other reason, also when they stood still for want of room before.
    async fn suspend(&self, vm: VmId) -> Result<(), HypervisorError>;

    /// The same of a machine that an earlier process has suspended, without asking anybody.
    fn keep_suspended(&self, vm: VmId);

    /// Lets the guest's processors run again. No error when they do already.
    async fn resume(&self, vm: VmId) -> Result<(), HypervisorError>;

    /// The same, if they stand still because a disk had no room and were not suspended since. Looked at in
    /// the same turn as it is done: whoever has stopped them for another reason finds them stopped.
    async fn resume_if_lacks_room(&self, vm: VmId) -> Result<(), HypervisorError>;

    /// Has the guest's agent freeze its file systems: what was written before is on the disks, and
    /// nothing more is until [`Hypervisor::thaw_guest`]. Returns how many there are. The agent has
    /// `answer` for a sign of life, and as long again for the freeze.
    ///
    /// [`HypervisorError::Refused`]: none is frozen by this call, as without an agent that answers.
    /// [`HypervisorError::Unknown`]: they may be, until a thaw has been answered.
    async fn freeze_guest(&self, vm: VmId, answer: Duration) -> Result<usize, HypervisorError>;

    /// Lets the guest's file systems be written again. Returns how many were frozen until now.
    async fn thaw_guest(&self, vm: VmId, answer: Duration) -> Result<usize, HypervisorError>;

    /// For each locator every machine whose live or inactive definition names it as a layer.
    /// An answer that is not complete is an error.
    async fn references(
        &self,
        locators: &[Locator],
    ) -> Result<Vec<Vec<Reference>>, HypervisorError>;

    /// The snapshots of a machine that the hypervisor itself keeps metadata of.
    async fn kept_snapshots(&self, vm: VmId) -> Result<Vec<KeptSnapshot>, HypervisorError>;

    /// What happens from now on. After [`HypervisorEvent::Connected`] or a lagged receiver,
    /// events may have been missed: look again.
    fn events(&self) -> broadcast::Receiver<HypervisorEvent>;

    /// Whether the hypervisor answers, as far as known.
    fn connected(&self) -> bool;

    /// The hypervisor's address, for people.
    fn uri(&self) -> &str;
}
