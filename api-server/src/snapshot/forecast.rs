//! What a delete would do: the same plan as a delete's, made from the chains as they are now, with
//! what its host measures. Nothing is changed and nothing is kept.

use super::plan::{Wanted, measurable, plan_all};
use super::service::{Snapshots, deletable};
use super::types::{Direction, DiskTask, MergeOptions};
use crate::hosts::{HostError, Measured};
use livemerge_proto::ids::SnapshotId;
use livemerge_proto::problem::Problem;
use uuid::Uuid;

/// A delete that was only thought of.
#[derive(Debug, Default)]
pub struct Forecast {
    /// Its merges, the rounds in order.
    pub merges: Vec<Outlook>,
    /// Everything that would refuse it now.
    pub blockers: Vec<Problem>,
}

/// A merge that was only thought of.
#[derive(Debug)]
pub struct Outlook {
    /// What would be done.
    pub task: DiskTask,
    /// What it takes.
    pub space: Space,
}

/// What a merge takes and gives, in bytes; 0 for what is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// That the kept volume takes in addition.
    pub needed_bytes: u64,
    /// That its storage domain has free.
    pub free_bytes: u64,
    /// That the removed volumes give back.
    pub freed_bytes: u64,
    /// To copy the other way, when that is possible.
    pub other_way_bytes: u64,
}

impl Snapshots {
    /// What the deletion of these snapshots, all of one machine, would do.
    ///
    /// # Errors
    /// When a snapshot is not there, or the machine's host does not answer. What would refuse the
    /// delete is part of the answer.
    pub async fn forecast(
        &self,
        ids: &[SnapshotId],
        options: &MergeOptions,
    ) -> Result<Forecast, Problem> {
        let deletes = self.named(ids, None, false).await?;
        let Some(oldest) = deletes.first() else {
            return Ok(Forecast::default());
        };
        let named = ids.iter().copied().collect();
        let (_, others) = self.around.snapshots(oldest.vm, &named).await?;
        let host = self.host_of(oldest.vm)?;
        let chains = host.agent.chains(oldest.vm, None).await;
        let chains = chains.map_err(HostError::into_problem)?;
        let wanted = Wanted {
            deletes: &deletes,
            others: &others,
            options,
        };
        let runs = measurable(&wanted, &chains);
        let measured = if runs.is_empty() {
            vec![]
        } else {
            let measured = host.agent.measure(oldest.vm, &runs).await;
            measured.map_err(HostError::into_problem)?
        };
        let plan = plan_all(&wanted, &chains, &measured, &mut Uuid::now_v7);
        let busy = deletes
            .iter()
            .filter_map(|snapshot| deletable(snapshot, None).err());
        let mut forecast = Forecast {
            merges: vec![],
            blockers: busy.chain(plan.blockers).collect(),
        };
        for task in plan.tasks {
            let (space, blocker) = space(&task, &measured);
            forecast.blockers.extend(blocker);
            forecast.merges.push(Outlook { task, space });
        }
        Ok(forecast)
    }
}

/// What is known of a task's room, and what its host says against it.
fn space(task: &DiskTask, measured: &[Measured]) -> (Space, Option<Problem>) {
    let direction = task.kind.direction();
    let (oldest, other) = match direction {
        Direction::Commit => (&task.kept.volume, Direction::Pull),
        Direction::Pull => (&task.removed[0].volume.volume, Direction::Commit),
    };
    let measured = measured
        .iter()
        .find(|measured| measured.disk == task.disk && measured.oldest == *oldest);
    let Some(way) = measured.and_then(|measured| measured.way(direction)) else {
        return (Space::default(), None);
    };
    let other = measured.and_then(|measured| measured.way(other));
    let space = Space {
        needed_bytes: way.needed_bytes,
        free_bytes: way.free_bytes,
        freed_bytes: way.freed_bytes,
        other_way_bytes: other
            .filter(|way| way.blocker.is_none())
            .map_or(0, |way| way.copy_bytes),
    };
    let blocker = way.blocker.clone().map(Problem::from);
    (
        space,
        blocker.map(|blocker| blocker.with("disk", &task.disk)),
    )
}
