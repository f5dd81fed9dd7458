//! Removals at one command: of a group that is as it was when it was last looked at.
//!
//! ```text
//!   the last report, of just now ─▶ what is active by now ─▶ headers ─▶ all may go ─▶ lvremove, if no change of the
//!        │ none, or a volume that                                                     group was made since
//!        │ needs more than that                                                          │ it was: none is removed
//!        └────────────────▶ the usual way, which begins with another report ◀────────────┘
//! ```
//!
//! - A report takes as long as a removal does, and whoever has a volume removed has mostly just asked for it.
//! - What a report says is of two kinds. What lies in the group's metadata is as old as its change, whose
//!   number LVM compares while it has the group locked: so it cannot be out of date. What the kernel says, and
//!   the headers, are looked at anew.
//! - Nothing is changed before it is clear that each of them goes at once; whatever is not plain is left to
//!   the usual way. What was removed here is known by its having been said, one by one.

use super::content::is_readable;
use super::device;
use super::domain::Domain;
use super::gate::counts;
use super::removal::{Answer, Asked, Next, ended};
use super::report::Group;
use super::turn::Turn;
use crate::StorageError;
use crate::error::io_error;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A report is used for so long: whoever puts an older state of a group's metadata back begins its numbers anew
/// from there.
const LASTS: Duration = Duration::from_secs(3);

/// The last report, until this program changes the group.
#[derive(Debug, Default)]
pub(super) struct LastSeen(Option<(Instant, Group)>);

impl LastSeen {
    pub(super) fn of(group: &Group) -> Self {
        Self(Some((Instant::now(), group.clone())))
    }

    pub(super) fn take(&mut self) -> Option<Group> {
        let (at, group) = self.0.take()?;
        (at.elapsed() < LASTS).then_some(group)
    }
}

impl Domain {
    /// Removes a batch as the group was last seen. `None`: it has not, and the group may have changed.
    pub(super) async fn remove_as_seen(
        self: &Arc<Self>,
        batch: &[Asked],
        turn: &Turn,
    ) -> Option<Vec<Result<Answer, StorageError>>> {
        let group = self.lvm.last_seen()?;
        let look = |domain: &Self| {
            let now = device::as_active(&domain.config().shown, group);
            now.map_err(io_error(domain.id()))
        };
        let group = self.look(look).await.ok()?;
        if !self.is_plain(batch, &group) {
            return None;
        }
        let change = group.change;
        let (next, family) = self.decide_of(batch, group, turn).await.ok()?;
        if (0..batch.len()).any(|index| !family.children(index).is_empty()) {
            return None;
        }
        let goes = next.iter().map(|next| match next {
            Next::Purge(volume, _) => Some((volume.name.as_str(), &volume.identity)),
            Next::Answer(_) | Next::Condemn(_) => None,
        });
        let goes: Vec<_> = goes.collect::<Option<_>>()?;
        let removed = self.lvm.during(turn).remove_as_of(change, &goes).await;
        if !removed.is_ok_and(|removed| removed == goes.len()) {
            return None;
        }
        Some(ended(self, batch, next))
    }

    /// Whether nothing has to be activated, condemned or gone on with, so that deciding changes nothing.
    fn is_plain(&self, batch: &[Asked], group: &Group) -> bool {
        let goes_at_once = |asked: &Asked| {
            let order = &asked.order;
            let volume = group.volume(&order.volume);
            let inactive = volume.is_some_and(|volume| volume.device.is_none());
            let first = group.removed(order.id).is_none() && !order.resumes && !asked.emptied;
            inactive && first && order.ends_at_once()
        };
        let mut others = group.volumes.iter().filter(|volume| counts(volume));
        !self.config().shared && batch.iter().all(goes_at_once) && others.all(is_readable)
    }
}
