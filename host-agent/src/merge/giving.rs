//! Room for what a job will write, in domains whose volumes have only what they are given.
//!
//! Measured again for each start of a job: one that was begun before has left less to copy.

use super::bytes::{Work, largest, measure};
use super::chunks::Given;
use super::driver::Surroundings;
use super::elsewhere::told_elsewhere;
use super::member::Member;
use super::plan::MAP_LIMIT;
use super::room::{Promise, Room};
use super::step::{ROOM_AGAIN, Told};
use super::types::MergeRecord;
use super::waits::again_for;
use crate::volumes::Volumes;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{Format, VolumeRef};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

/// How long one is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// Before it is shown that storage takes its time.
    shown_after: Duration,
    /// Before the merge is looked at again, and those that go together with it.
    most: Duration,
}

const PATIENCE: Patience = Patience {
    shown_after: Duration::from_secs(2),
    most: Duration::from_secs(10),
};

impl Member {
    /// Has [`give_room`] done in a task of its own, and waits for that, but not for long, nor when anything
    /// is wished of the merge: storage that hangs would hold that up, and the disks that go together with
    /// this one. Asked again, it waits for the same task. What takes long is shown.
    pub(super) async fn give_room_in_time(&mut self) -> Result<(), Problem> {
        let mut giving = self.giving.take().unwrap_or_else(|| {
            let (around, record) = (self.around.clone(), self.record.clone());
            let giving = async move { give_room(&around, &record).await };
            AbortOnDropHandle::new(tokio::spawn(giving))
        });
        let shown = || {
            let (hangs, now) = (Told::NotStarted(unanswered()), self.around.clock.now());
            self.show_waiting(again_for(&self.record, &hangs, now, ROOM_AGAIN));
        };
        match in_time(&mut giving, &self.wished, PATIENCE, shown).await {
            Some(given) => given.unwrap_or_else(|_broke_off| Err(unanswered())),
            None => {
                self.giving = Some(giving);
                Err(unanswered())
            }
        }
    }
}

/// Before a merge's job starts: the volumes are usable here, and the kept one has room for the data.
///
/// # Errors
/// When the storage does not answer, or has no room.
async fn give_room(around: &Surroundings, record: &MergeRecord) -> Result<(), Problem> {
    let (order, volumes) = (&record.order, &around.volumes);
    let Some(kept) = volumes.provided(&record.kept) else {
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
        None => estimate(record, volumes).await?,
    };
    let mut info = volumes.stat(&kept).await?;
    if info.format == Format::Raw {
        // Its size is its room.
        return Ok(());
    }
    // QEMU makes it so large when the job starts.
    info.virtual_bytes = largest(&layers, volumes).await?;
    let has = info.allocated_bytes;
    let unused = record.promise.unused(has, work.kept_data_bytes);
    let giving = Given {
        has,
        unused,
        chunk: volumes.chunk(&kept.storage).unwrap_or(1),
        // What a full volume has is room for everything.
        most: volumes.most_room(&info).unwrap_or(u64::MAX),
    };
    let needed = work.space_needed_bytes;
    let all = volumes.space(&kept.storage).await?.free_bytes;
    // What the merge was promised comes before what was promised later; what else it needs, after all.
    let first = giving.taken(needed) <= record.promise.left(has);
    let others = promised_to_others(around, record, first).await;
    let free = all.saturating_sub(others);
    let (least, room) = if work.estimated {
        let guessed = guess(work.beside(unused).space_needed_bytes, free, giving.chunk);
        (has, has.saturating_add(guessed).min(giving.most.max(has)))
    } else {
        (giving.least(needed), giving.room(needed))
    };
    let missing = least - has;
    // A chunk that is not there as a whole is given in part, but not what others were promised of it.
    let taken = if others > 0 { room - has } else { missing };
    if !work.estimated && taken > free {
        // What is left is for the guests, and for other merges.
        return Err(no_room(&kept, taken, free));
    }
    let given = volumes.provide_for(&kept, room, info.virtual_bytes).await?;
    tracing::info!(merge = %order.id, volume = %kept, missing, room = given, "room for the merge");
    match least.saturating_sub(given) {
        // Others have taken it meanwhile.
        missing if missing > 0 => Err(no_room(&kept, missing, 0)),
        _ => Ok(()),
    }
}

async fn estimate(record: &MergeRecord, volumes: &Volumes) -> Result<Work, Problem> {
    let mut taken = 0;
    for removed in &record.order.removed {
        taken += volumes.stat(&removed.volume).await?.allocated_bytes;
    }
    Ok(Work::estimate(taken))
}

/// What the other merges of this host will still take in the same domain, `first`: those that were
/// accepted before this one; and those of other hosts that were told with its order, if that is not too old.
async fn promised_to_others(around: &Surroundings, record: &MergeRecord, first: bool) -> u64 {
    let before = |other: &MergeRecord| {
        (other.accepted_at, other.order.id) < (record.accepted_at, record.order.id)
    };
    let views = around.board.watch().borrow().clone();
    let others = views
        .values()
        .map(|view| &view.record)
        .filter(|other| other.order.id != record.order.id && (!first || before(other)));
    let open = others.filter_map(Promise::open).collect();
    let storage = &record.order.kept.volume.storage;
    let elsewhere = told_elsewhere(record, around.clock.now());
    let room = Room::beside(open, elsewhere.to_vec());
    room.promised(storage, &around.volumes).await
}

/// The room for bytes that are only guessed: a chunk, so that the job can begin, if nobody else needs it.
/// More is given as it is filled.
fn guess(lacking: u64, free: u64, chunk: u64) -> u64 {
    if chunk <= free { lacking.min(chunk) } else { 0 }
}

async fn in_time<T>(
    giving: impl Future<Output = T>,
    wished: &Notify,
    patience: Patience,
    shown: impl FnOnce(),
) -> Option<T> {
    let takes_long = async {
        tokio::time::sleep(patience.shown_after).await;
        shown();
        tokio::time::sleep(patience.most.saturating_sub(patience.shown_after)).await;
    };
    tokio::select! {
        biased;
        given = giving => Some(given),
        () = wished.notified() => None,
        () = takes_long => None,
    }
}

fn unanswered() -> Problem {
    let text = "storage has not said yet whether it gives the room for the merge";
    Problem::new(Reason::StorageUnreachable, text)
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

    const GIB: u64 = 1 << 30;

    #[tokio::test]
    async fn storage_that_hangs_is_shown_and_holds_up_neither_a_wish_nor_others_for_long() {
        let (wished, shown) = (Notify::new(), Cell::new(false));
        let patience = |most| Patience {
            shown_after: Duration::from_millis(20),
            most,
        };
        let hangs = std::future::pending::<()>();
        let long = patience(Duration::from_secs(3600));
        let mut giving = pin!(in_time(hangs, &wished, long, || shown.set(true)));
        assert!(giving.as_mut().now_or_never().is_none() && !shown.get());
        let late = tokio::time::timeout(Duration::from_millis(200), &mut giving).await;
        assert!(late.is_err() && shown.get());
        wished.notify_one();
        assert_eq!(giving.await, None);
        let hangs = std::future::pending::<()>();
        let short = patience(Duration::from_millis(30));
        assert_eq!(in_time(hangs, &wished, short, || ()).await, None);
        let given = in_time(async { 7 }, &wished, long, || ()).await;
        assert_eq!(given, Some(7));
    }

    #[test]
    fn a_guess_takes_no_more_than_a_chunk_of_what_nobody_needs() {
        for (lacking, free, given) in [
            (100 * GIB, 50 * GIB, GIB),
            (5, 50 * GIB, 5),
            (100 * GIB, GIB, GIB),
            (100 * GIB, GIB - 1, 0),
            (100 * GIB, 0, 0),
        ] {
            assert_eq!(guess(lacking, free, GIB), given, "{lacking} {free}");
        }
    }
}
