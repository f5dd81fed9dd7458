//! Room for what a job will write, in domains whose volumes have only what they are given.
//!
//! Measured again for each start of a job: one that was begun before has left less to copy.

use super::bytes::{Work, measure};
use super::member::Member;
use super::plan::MAP_LIMIT;
use livemerge_proto::problem::Problem;
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
        let has = volumes.stat(&kept).await?.allocated_bytes;
        let needed = work.space_needed_bytes;
        let room = has.saturating_add(needed + SPARE_BYTES.min(needed));
        let given = volumes.provide(&kept, room).await?;
        tracing::info!(merge = %order.id, volume = %kept, needed, room = given, "room for the merge");
        Ok(())
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
