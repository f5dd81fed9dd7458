//! Room for what a job will write, in domains whose volumes have only what they are given.
//!
//! Measured again for each start of a job: one that was begun before has left less to copy.

use super::bytes::{Work, measure};
use super::member::Member;
use super::plan::MAP_LIMIT;
use super::room::Promise;
use super::step::{ROOM_AGAIN, Told};
use super::waits::again_for;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{Format, VolumeRef};
use std::time::Duration;
use tokio::sync::Notify;

/// More than the tables of an image need for what is copied.
const SPARE_BYTES: u64 = 16 << 20;

/// Before it is shown that storage takes its time.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

impl Member {
    /// The same as [`Member::give_room`], broken off when anything is wished of the merge: storage that
    /// hangs would hold that up. What takes long is shown.
    pub(super) async fn give_room_until_wished(&self) -> Result<(), Problem> {
        let shown = || {
            let (hangs, now) = (Told::NoRoom(unanswered()), self.around.clock.now());
            self.show_waiting(again_for(&self.record, &hangs, now, ROOM_AGAIN));
        };
        until_wished(self.give_room(), &self.wished, SHOWN_AFTER, shown).await
    }

    /// Before the job starts: the volumes are usable here, and the kept one has room for the data.
    ///
    /// # Errors
    /// When the storage does not answer, or has no room.
    async fn give_room(&self) -> Result<(), Problem> {
        let (order, volumes) = (&self.record.order, &self.around.volumes);
        let Some(kept) = volumes.provided(&self.record.kept) else {
            return Ok(());
        };
        let layers = order.layers();
        let layers: Vec<&VolumeRef> = layers.iter().map(|mark| &mark.volume).collect();
        if let Some(youngest) = layers.last() {
            volumes.activate(youngest).await?;
        }
        let works = measure(&layers, volumes, MAP_LIMIT).await;
        let work = match works {
            Some(works) => works.of(order.direction),
            None => self.estimate().await?,
        };
        let info = volumes.stat(&kept).await?;
        if info.format == Format::Raw {
            // Its size is its room.
            return Ok(());
        }
        let (has, needed) = (info.allocated_bytes, work.space_needed_bytes);
        let room = room_for(has, needed, self.record.promise);
        // What a full volume has is room for everything.
        let room = room.min(volumes.most_room(&info).unwrap_or(room));
        let free = volumes.space(&kept.storage).await?.free_bytes;
        let missing = room.saturating_sub(has);
        if missing > free && !work.estimated {
            // What is left is for the guests.
            return Err(no_room(&kept, missing, free));
        }
        let given = volumes.provide(&kept, room).await?;
        tracing::info!(merge = %order.id, volume = %kept, needed, room = given, "room for the merge");
        match room.saturating_sub(given) {
            // Others have taken it meanwhile.
            missing if missing > 0 && !work.estimated => Err(no_room(&kept, missing, 0)),
            _ => Ok(()),
        }
    }

    async fn estimate(&self) -> Result<Work, Problem> {
        let mut taken = 0;
        for removed in &self.record.order.removed {
            let info = self.around.volumes.stat(&removed.volume).await?;
            taken += info.allocated_bytes;
        }
        Ok(Work::estimate(taken))
    }
}

async fn until_wished(
    giving: impl Future<Output = Result<(), Problem>>,
    wished: &Notify,
    shown_after: Duration,
    shown: impl FnOnce(),
) -> Result<(), Problem> {
    let takes_long = async {
        tokio::time::sleep(shown_after).await;
        shown();
        std::future::pending().await
    };
    tokio::select! {
        biased;
        given = giving => given,
        () = wished.notified() => Err(unanswered()),
        never = takes_long => never,
    }
}

fn unanswered() -> Problem {
    let text = "storage has not said yet whether it gives the room for the merge";
    Problem::new(Reason::StorageUnreachable, text)
}

/// The room for so many bytes more. What the kept volume was given since its merge was accepted was
/// for them: the job that was to fill it may have ended before.
fn room_for(has: u64, needed: u64, promise: Promise) -> u64 {
    let given = match promise.bytes {
        // It is not known what it had.
        0 => 0,
        _ => has.saturating_sub(promise.kept_bytes),
    };
    let wanted = needed.saturating_add(SPARE_BYTES.min(needed));
    has.saturating_add(wanted.saturating_sub(given))
}

fn no_room(kept: &VolumeRef, missing: u64, free: u64) -> Problem {
    let text = format!(
        "{kept} needs {missing} bytes more for the merge, and {} has {free}",
        kept.storage
    );
    let problem = Problem::new(Reason::InsufficientSpace, text).with("volume", kept);
    let problem = problem.with("storage", &kept.storage);
    problem
        .with("needed_bytes", missing)
        .with("free_bytes", free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::cell::Cell;
    use std::pin::pin;
    use tonic::Code;

    const GIB: u64 = 1 << 30;

    #[tokio::test]
    async fn storage_that_hangs_is_shown_and_holds_up_no_wish() {
        let (wished, shown) = (Notify::new(), Cell::new(false));
        let hangs = std::future::pending();
        let soon = Duration::from_millis(20);
        let mut giving = pin!(until_wished(hangs, &wished, soon, || shown.set(true)));
        assert!(giving.as_mut().now_or_never().is_none() && !shown.get());
        let late = tokio::time::timeout(10 * soon, &mut giving).await;
        assert!(late.is_err() && shown.get());
        wished.notify_one();
        let broken_off = giving.await.unwrap_err();
        assert_eq!(broken_off.reason.code(), Code::Unavailable);
        let given = until_wished(async { Ok(()) }, &wished, soon, || ()).await;
        assert!(given.is_ok());
    }

    #[test]
    fn what_was_given_for_the_first_start_is_there_for_the_next_one() {
        let commit = |bytes| Promise {
            bytes,
            kept_bytes: 2 * GIB,
        };
        let all = 12 * GIB + SPARE_BYTES;
        for (has, needed, room) in [
            (2 * GIB, 10 * GIB, all),
            // The job has ended before it began.
            (all, 10 * GIB, all),
            // Somebody has taken a part of it back.
            (5 * GIB, 10 * GIB, all),
            // Some of it was copied.
            (all, 4 * GIB, all),
            // The guest has written on.
            (all, 11 * GIB, all + GIB),
        ] {
            assert_eq!(room_for(has, needed, commit(10 * GIB)), room, "{has}");
        }
        let unknown = room_for(all, 10 * GIB, Promise::default());
        assert_eq!(unknown, all + 10 * GIB + SPARE_BYTES);
        // How the kept volume of a pull grows says nothing of the merge.
        let pull = Promise {
            bytes: 10 * GIB,
            kept_bytes: u64::MAX,
        };
        assert_eq!(room_for(all, GIB, pull), all + GIB + SPARE_BYTES);
    }
}
