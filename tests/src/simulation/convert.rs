//! What one service means in the words of the other, as the lines between them carry it.

use livemerge_api_server::hosts::{self, Measured, MeasuredWay};
use livemerge_api_server::snapshot::{self, Mark, plan::Range};
use livemerge_host_agent::freeze::Quiesce;
use livemerge_host_agent::hypervisor::{self, fake::FakeHypervisor};
use livemerge_host_agent::latest::Given;
use livemerge_host_agent::merge::{Direction, DiskPlan, DiskRange, MergeOrder, VolumeMark};
use livemerge_host_agent::volumes::Volumes;
use livemerge_host_agent::{chains, overlays};
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_storage::VolumeRef;

use super::agent::answered;

pub(super) fn chains(
    vm: VmId,
    hypervisor: &FakeHypervisor,
    volumes: &Volumes,
) -> Result<hosts::VmChains, Problem> {
    let read = answered(chains::read(vm, None, hypervisor, volumes))?;
    let state = match read.state {
        hypervisor::VmState::Running => hosts::VmState::Running,
        hypervisor::VmState::Paused => hosts::VmState::Paused,
        hypervisor::VmState::ShutOff => hosts::VmState::ShutOff,
    };
    Ok(hosts::VmChains {
        state: Some(state),
        chains: read.chains.into_iter().map(chain).collect(),
        unsupported: vec![],
    })
}

fn chain(chain: chains::Chain) -> hosts::Chain {
    let layer = |layer: chains::ChainLayer| {
        let known = layer.volume.as_ref();
        let allocated_bytes = known.map(|known| known.allocated_bytes);
        hosts::Layer {
            encrypted: known.is_some_and(|known| known.encrypted),
            bitmaps: known.map(|known| known.bitmaps.clone()).unwrap_or_default(),
            mark: layer.volume.map(|known| Mark {
                volume: known.volume,
                identity: known.identity,
            }),
            locator: layer.locator.to_string(),
            format: hosts::LayerFormat::Qcow2,
            virtual_bytes: 0,
            allocated_bytes: allocated_bytes.unwrap_or_default(),
            shared_with: layer.shared_with,
        }
    };
    hosts::Chain {
        disk: chain.disk,
        layers: chain.layers.into_iter().map(layer).collect(),
        job_running: chain.job_running,
        libvirt_snapshots: chain.kept_snapshots,
        guest_discards: chain.discards,
    }
}

pub(super) fn overlay_order(order: hosts::OverlayOrder, given: Given) -> overlays::OverlayOrder {
    let overlays = order.overlays.into_iter().map(|new| overlays::NewOverlay {
        disk: new.disk,
        below: new.below,
        overlay: new.overlay,
    });
    overlays::OverlayOrder {
        request: order.request,
        given: Some(given),
        vm: order.vm,
        overlays: overlays.collect(),
        // No guest of this host has an agent.
        quiesce: Quiesce::Never,
    }
}

fn volume_mark(mark: Mark) -> VolumeMark {
    VolumeMark {
        volume: mark.volume,
        identity: mark.identity,
    }
}

/// Those that are ordered together go together.
pub(super) fn merge_orders(orders: Vec<hosts::MergeOrder>, generation: u64) -> Vec<MergeOrder> {
    let together: Vec<_> = orders.iter().map(|order| order.id).collect();
    let order = |order: hosts::MergeOrder| MergeOrder {
        id: order.id,
        generation,
        vm: order.vm,
        disk: order.disk,
        direction: match order.direction {
            snapshot::Direction::Commit => Direction::Commit,
            snapshot::Direction::Pull => Direction::Pull,
        },
        kept: volume_mark(order.kept),
        removed: order.removed.into_iter().map(volume_mark).collect(),
        together: together.clone(),
        bytes_per_second: order.bytes_per_second,
        // Its last rung is played on the scripted host alone.
        spare: None,
    };
    orders.into_iter().map(order).collect()
}

pub(super) fn range((disk, oldest, youngest): Range) -> DiskRange {
    DiskRange {
        disk,
        lowest: volume_mark(oldest),
        youngest: volume_mark(youngest),
        forced: None,
    }
}

pub(super) fn measured(plan: DiskPlan, oldest: VolumeRef) -> Measured {
    let ways = plan.options.into_iter().map(|option| MeasuredWay {
        direction: match option.direction {
            Direction::Commit => snapshot::Direction::Commit,
            Direction::Pull => snapshot::Direction::Pull,
        },
        blocker: option.blocker.map(Into::into),
        copy_bytes: option.work.copy_bytes,
        needed_bytes: option.work.space_needed_bytes,
        free_bytes: option.free_bytes,
        freed_bytes: option.freed_bytes,
        estimated: option.work.estimated,
    });
    Measured {
        disk: plan.disk,
        oldest,
        ways: ways.collect(),
    }
}
