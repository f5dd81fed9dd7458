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
//!   number LVM compares while it has the group locked. What the kernel says, and the headers, are looked at
//!   anew; where those lie is as it was in the report, so that one of a volume that cannot be found there, or
//!   is no image though it should be, is a case for the usual way.
//! - A foreign volume that cannot be read needs nothing, if its group is whole; that only a new report says. So all
//!   have to be ours.
//! - Nothing is changed before it is clear that each of them goes at once; whatever is not plain is left to
//!   the usual way. What was removed here is known by its having been said, one by one.

use super::content::is_readable;
use super::device;
use super::domain::Domain;
use super::removal::{Answer, Asked, Next, ended};
use super::report::{Group, Logical};
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

    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    pub(super) fn take(&mut self) -> Option<Group> {
        let (at, mut group) = self.0.take()?;
        group.seen_before = true;
        (at.elapsed() < LASTS).then_some(group)
    }
}

impl Domain {
    /// Removes a batch as the group was last seen. `None`: nothing was done, and the group may have changed.
    pub(super) async fn remove_as_seen(
        self: &Arc<Self>,
        batch: &[Asked],
        turn: &Turn,
    ) -> Result<Option<Vec<Result<Answer, StorageError>>>, StorageError> {
        let Some((change, mut next)) = self.decide_as_seen(batch, turn).await else {
            return Ok(None);
        };
        let goes: Vec<_> = next.iter().filter_map(Next::goes).collect();
        let removed = self.lvm.during(turn).remove_as_of(change, &goes).await;
        let all = goes.len();
        match removed {
            Ok(0) => return Ok(None),
            Ok(removed) if removed == all => {}
            Ok(removed) => {
                let what = format!("{removed} of {all} volumes were removed");
                let why = StorageError::Busy { what };
                self.find_left(&mut next, &why).await?;
            }
            Err(why) => self.find_left(&mut next, &why).await?,
        }
        Ok(Some(ended(self, batch, next)))
    }

    /// What is done with each, when all of them go at once; and the change after which that was so.
    async fn decide_as_seen(
        self: &Arc<Self>,
        batch: &[Asked],
        turn: &Turn,
    ) -> Option<(u64, Vec<Next>)> {
        let group = self.lvm.take_last_seen()?;
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
        let alone = (0..batch.len()).all(|index| family.children(index).is_empty());
        let go = next.iter().all(|next| next.goes().is_some());
        (alone && go).then_some((change, next))
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
        let is_plain = |volume: &Logical| volume.is_ours() && is_readable(volume);
        !self.config().shared
            && batch.iter().all(goes_at_once)
            && group.volumes.iter().all(is_plain)
    }
}
