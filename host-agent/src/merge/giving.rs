//! Room for what a job will write, in domains whose volumes have only what they are given.
//!
//! Measured again for each start of a job: one that was begun before has left less to copy.

use super::bytes::{Work, measure};
use super::member::Member;
use super::plan::MAP_LIMIT;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::VolumeRef;

/// More than the tables of an image need for what is copied.
const SPARE_BYTES: u64 = 16 << 20;

impl Member {
    /// Before the job starts: the volumes are usable here, and the kept one has room for the data.
    ///
    /// # Errors
    /// When the storage does not answer, or has no room.
    pub(super) async fn give_room(&self) -> Result<(), Problem> {
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
        let (has, needed) = (info.allocated_bytes, work.space_needed_bytes);
        let room = has.saturating_add(needed + SPARE_BYTES.min(needed));
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
