//! What a lane asks of a host's agent, one call or two for each question.

use super::plan::{Wanted, measurable};
use super::promised::in_domains;
use super::step::{Answer, Ask};
use super::types::Mark;
use crate::hosts::{HostAgent, HostError, Measured, Promised, VmChains};
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_storage::StorageId;
use std::collections::BTreeSet;

pub(super) async fn put_to(
    agent: &dyn HostAgent,
    ask: Ask,
    wanted: &Wanted<'_>,
    elsewhere: &[Promised],
) -> Answer {
    let answer = match ask {
        Ask::Chains(vm) => agent.chains(vm, None).await.map(Answer::Chains),
        Ask::Survey(vm) => survey(agent, vm, wanted, elsewhere)
            .await
            .map(|(chains, costs)| Answer::Survey(chains, costs)),
        Ask::Overlays(order) => agent.create_overlays(&order).await.map(Answer::OverlaysOn),
        Ask::Merges(orders) => {
            let kept = orders.iter().map(|order| &order.kept.volume.storage);
            let elsewhere = in_domains(elsewhere, &kept.collect());
            let started = agent.start_merges(&orders, &elsewhere).await;
            started.map(|()| Answer::MergesAccepted)
        }
        Ask::Cancel(merge) => agent.cancel_merge(merge).await.map(|()| Answer::Heard),
        Ask::Limit(merges, speed) => limit(agent, &merges, speed).await.map(|()| Answer::Heard),
        Ask::Removals(orders) => agent.remove_volumes(&orders).await.map(Answer::Removals),
    };
    answer.unwrap_or_else(Answer::Error)
}

async fn limit(agent: &dyn HostAgent, merges: &[MergeId], speed: u64) -> Result<(), HostError> {
    for merge in merges {
        agent.limit_merge(*merge, speed).await?;
    }
    Ok(())
}

/// Where the volumes lie of which one would be written. All of a run lie in one domain.
pub(super) fn storages_of(runs: &[(DiskTarget, Mark, Mark)]) -> BTreeSet<&StorageId> {
    let marks = runs
        .iter()
        .flat_map(|(_, oldest, youngest)| [oldest, youngest]);
    marks.map(|mark| &mark.volume.storage).collect()
}

/// The chains of a machine, and what merging costs each way.
async fn survey(
    agent: &dyn HostAgent,
    vm: VmId,
    wanted: &Wanted<'_>,
    elsewhere: &[Promised],
) -> Result<(VmChains, Vec<Measured>), HostError> {
    let chains = agent.chains(vm, None).await?;
    let runs = measurable(wanted, &chains);
    let costs = if runs.is_empty() {
        vec![]
    } else {
        let elsewhere = in_domains(elsewhere, &storages_of(&runs));
        agent.measure(vm, &runs, &elsewhere).await?
    };
    Ok((chains, costs))
}
