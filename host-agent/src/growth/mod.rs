//! Room for volumes that are given it: before a running machine, or a merge, has filled what there is.
//!
//! ```text
//!   event: written beyond the threshold ─┐
//!   event: stopped, changed, connected  ─┼─▶ fill (hypervisor) + room (storage) ─▶ decide (pure)
//!   every few seconds                   ─┘              ▲                              │
//!                                                       └── given, look again ◀─ Give ─┤
//!                                           the next threshold is set ◀─────── Watch ──┤
//!                                           stopped for want of room? resumed ◀─ Enough┘
//! ```
//!
//! - Every layer that QEMU has written since it opened it is looked at: the active one, and the base
//!   of a commit. Of one that it has not written nothing is known, and nothing is needed.
//! - A machine is resumed only when libvirt says that it stands still because a disk had no room, asked
//!   again right before that, and what is given room of each such disk has some by now; once a round at most.
//! - Each machine is looked at by itself: one that does not answer holds up no other.
//! - What is given is never more than a full volume needs; that is the storage's bound.

mod decide;
mod keeper;
mod looks;
#[cfg(test)]
mod tests;

pub use keeper::keep;

use crate::volumes::Volumes;
use async_trait::async_trait;
use livemerge_proto::problem::Problem;
use livemerge_storage::{Locator, VolumeRef};

/// Who gives volumes their room.
#[async_trait]
pub trait Room: Send + Sync + 'static {
    /// Whether there is any volume that is given it.
    fn gives(&self) -> bool;

    /// The volume under this locator, when it has only the room that it is given. Storage that hangs
    /// is not waited for.
    async fn provided(&self, locator: &Locator) -> Option<VolumeRef>;

    /// The room that a volume has, in bytes.
    async fn room(&self, volume: &VolumeRef) -> Result<u64, Problem>;

    /// Gives a volume room for so many bytes, and tells what it has: as much as before when it needs
    /// no more.
    async fn provide(&self, volume: &VolumeRef, bytes: u64) -> Result<u64, Problem>;
}

#[async_trait]
impl Room for Volumes {
    fn gives(&self) -> bool {
        self.any_provided()
    }

    async fn provided(&self, locator: &Locator) -> Option<VolumeRef> {
        self.provided_in_time(locator).await
    }

    async fn room(&self, volume: &VolumeRef) -> Result<u64, Problem> {
        Ok(self.stat(volume).await?.allocated_bytes)
    }

    async fn provide(&self, volume: &VolumeRef, bytes: u64) -> Result<u64, Problem> {
        Self::provide(self, volume, bytes).await
    }
}
