//! Who removes a merged volume when the host that has merged is silent.
//!
//! ```text
//!   silent ─▶ another host that is UP has the machine ─┬─ its chains lack the volume, and
//!                                                      │  its domain has that very volume ─▶ it removes
//!                                                      └─ or cannot tell ──▶ nobody
//!          ─▶ no host is known to have the machine: nothing is known of it ──▶ nobody
//! ```
//!
//! A silent host may be one whose machine runs on. Only where the machine was seen elsewhere is it
//! known that it does not, and what it has open. The other host's agent then passes its own gate: its
//! machines, the headers of the domain, the volume's lock.

use crate::hosts::{HostHandle, HostStatus, Hosts, RemovalOrder, VmChains};
use crate::snapshot::Mark;
use livemerge_proto::ids::VmId;

/// The host that removes in the place of `own`; `None` when that one answers, or nobody safely can.
pub(super) async fn stand_in(
    hosts: &Hosts,
    vm: VmId,
    own: Option<&HostHandle>,
    order: &RemovalOrder,
) -> Option<HostHandle> {
    let own = own?;
    if own.view.borrow().status == HostStatus::Up {
        return None;
    }
    let other = hosts.of_vm(vm).filter(|other| other.id != own.id)?;
    let has_it = |other: &HostHandle| {
        let view = other.view.borrow();
        view.status == HostStatus::Up && view.vms.as_ref().is_some_and(|vms| vms.contains_key(&vm))
    };
    let other = Some(other).filter(has_it)?;
    let chains = other.agent.chains(vm, None).await.ok()?;
    let volumes = other
        .agent
        .volumes(&order.volume.volume.storage)
        .await
        .ok()?;
    let is_there = volumes.iter().any(|volume| volume.mark == order.volume);
    (is_there && !uses(&chains, &order.volume)).then_some(other)
}

/// Whether a machine has the volume open, as far as is known: a layer that is nobody's volume may be.
fn uses(chains: &VmChains, volume: &Mark) -> bool {
    let mut layers = chains.chains.iter().flat_map(|chain| &chain.layers);
    let may_be = |mark: &Option<Mark>| mark.as_ref().is_none_or(|own| own.volume == volume.volume);
    !chains.unsupported.is_empty() || layers.any(|layer| may_be(&layer.mark))
}
