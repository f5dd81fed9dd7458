//! What a delete would do: the same plan as a delete's, made from the chains as they are now, with
//! what its host measures. Nothing is changed and nothing is kept.

use super::asking::storages_of;
use super::foreseen::{foresee_times, rate_of};
use super::plan::{Wanted, measurable, plan_all};
use super::promised::{in_domains, promised_elsewhere};
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
    pub merges: Vec<DiskTask>,
    /// Everything that would refuse it now.
    pub blockers: Vec<Problem>,
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
            let around = &self.around;
            let elsewhere = promised_elsewhere(
                &host.id,
                None,
                &around.hub,
                &around.hosts,
                around.clock.now(),
            );
            let elsewhere = in_domains(&elsewhere, &storages_of(&runs));
            let measured = host.agent.measure(oldest.vm, &runs, &elsewhere).await;
            measured.map_err(HostError::into_problem)?
        };
        let plan = plan_all(&wanted, &chains, &measured, &mut Uuid::now_v7);
        let busy = deletes
            .iter()
            .filter_map(|snapshot| deletable(snapshot, None).err());
        let maintained = self.around.hosts.takes_no_work(oldest.vm);
        let mut forecast = Forecast {
            merges: vec![],
            blockers: maintained
                .into_iter()
                .chain(busy)
                .chain(plan.blockers)
                .collect(),
        };
        forecast.merges = plan.tasks;
        let blocked = forecast.merges.iter();
        let blocked = blocked.filter_map(|task| blocker(task, &measured));
        forecast.blockers.extend(blocked);
        let rate = rate_of(Some(&host.id), self.around.store.as_ref()).await?;
        foresee_times(&mut forecast.merges, rate, options.bytes_per_second);
        Ok(forecast)
    }
}

/// What the host says against a task.
fn blocker(task: &DiskTask, measured: &[Measured]) -> Option<Problem> {
    let direction = task.kind.direction();
    let oldest = match direction {
        Direction::Commit => &task.kept.volume,
        Direction::Pull => &task.removed[0].volume.volume,
    };
    let measured = measured
        .iter()
        .find(|measured| measured.disk == task.disk && measured.oldest == *oldest)?;
    let blocker = measured.way(direction)?.blocker.clone()?;
    Some(Problem::from(blocker).with("disk", &task.disk))
}
