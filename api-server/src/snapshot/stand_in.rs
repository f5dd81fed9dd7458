//! Who removes a merged volume when the host that has merged is silent.
//!
//! ```text
//!   silent ─▶ the machine runs on another host that is UP ─┬─ its chains lack the volume, and its domain
//!                                                          │  has that very volume, or condemned it
//!                                                          │  for this removal ─▶ it removes
//!                                                          └─ or cannot tell ──▶ nobody
//!          ─▶ it runs nowhere that is known: it may run on where it was ──────▶ nobody
//! ```
//!
//! A definition alone, as a migration leaves it, says nothing of where the machine runs. The other host's
//! agent then passes its own gate: its machines, the headers of the domain, the volume's lock. What other
//! machines of the silent host have open, that gate does not see: but the volume was in one chain only
//! when it was merged, and has been in none since.

use crate::hosts::{HostHandle, HostStatus, Hosts, RemovalOrder, VmChains, VmState};
use crate::snapshot::Mark;
use livemerge_proto::ids::VmId;
use livemerge_storage::StorageId;
use std::collections::BTreeSet;

/// The host that removes in the place of `own`, and what of it; `None` when that one answers, or nobody
/// safely can.
pub(super) async fn stand_in(
    hosts: &Hosts,
    vm: VmId,
    own: Option<&HostHandle>,
    orders: &[RemovalOrder],
) -> Option<(HostHandle, Vec<RemovalOrder>)> {
    let own = own?;
    if own.view.borrow().status == HostStatus::Up {
        return None;
    }
    let other = hosts.of_vm(vm).filter(|other| other.id != own.id)?;
    let has_it = |other: &HostHandle| {
        let view = other.view.borrow();
        let seen = view.vms.as_ref().and_then(|vms| vms.get(&vm));
        view.status == HostStatus::Up && seen.is_some_and(|seen| seen.state != VmState::ShutOff)
    };
    let other = Some(other).filter(has_it)?;
    let chains = other.agent.chains(vm, None).await.ok()?;
    let storages: BTreeSet<_> = orders.iter().map(storage_of).collect();
    let mut there = vec![];
    for storage in storages {
        // Of a domain that it does not see it removes nothing.
        let (Ok(volumes), Ok(removals)) = (
            other.agent.volumes(storage).await,
            other.agent.removals(storage).await,
        ) else {
            continue;
        };
        let is_there = |order: &&RemovalOrder| {
            volumes.iter().any(|volume| volume.mark == order.volume)
                || removals.iter().any(|removal| removal.id == order.id)
        };
        let of_it = orders.iter().filter(|order| storage_of(order) == storage);
        let safe = of_it.filter(is_there);
        let safe = safe.filter(|order| !uses(&chains, &order.volume));
        there.extend(safe.cloned());
    }
    (!there.is_empty()).then_some((other, there))
}

fn storage_of(order: &RemovalOrder) -> &StorageId {
    &order.volume.volume.storage
}

/// Whether a machine has the volume open, as far as is known: a layer that is nobody's volume may be.
fn uses(chains: &VmChains, volume: &Mark) -> bool {
    let mut layers = chains.chains.iter().flat_map(|chain| &chain.layers);
    let may_be = |mark: &Option<Mark>| mark.as_ref().is_none_or(|own| own.volume == volume.volume);
    !chains.unsupported.is_empty() || layers.any(|layer| may_be(&layer.mark))
}
