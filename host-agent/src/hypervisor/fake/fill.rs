//! How full layers are: what the test says, and what is asked to be told.

use super::FakeHypervisor;
use super::machine::Machine;
use crate::hypervisor::{Fill, HypervisorEvent, LayerFill, VmState};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use std::collections::BTreeMap;

/// The layers of a machine that QEMU has written, and those that are watched.
#[derive(Debug, Default)]
pub(super) struct Filling {
    written_to: BTreeMap<Locator, u64>,
    watched_at: BTreeMap<Locator, u64>,
    lacks_room: Vec<DiskTarget>,
}

impl Filling {
    /// The machine runs: what it had no room for is written again.
    pub(super) fn forget_errors(&mut self) {
        self.lacks_room.clear();
    }
}

impl Machine {
    pub(super) fn lacks_room(&self) -> bool {
        self.state == VmState::Paused && !self.filling.lacks_room.is_empty()
    }

    pub(super) fn fill(&self) -> Fill {
        let layer = |disk: &DiskTarget, locator: &Locator| LayerFill {
            disk: disk.clone(),
            locator: locator.clone(),
            written_to: self.filling.written_to.get(locator).copied().unwrap_or(0),
            watched_at: self.filling.watched_at.get(locator).copied().unwrap_or(0),
        };
        let disks = self.disks.iter();
        let layers =
            disks.flat_map(|disk| disk.chain.iter().rev().map(|at| layer(&disk.target, at)));
        Fill {
            layers: layers.collect(),
            lacks_room: match self.state {
                VmState::Paused => self.filling.lacks_room.clone(),
                _ => Vec::new(),
            },
        }
    }

    pub(super) fn watch_fill(&mut self, layer: &Locator, bytes: u64) {
        self.filling.watched_at.insert(layer.clone(), bytes);
    }
}

impl FakeHypervisor {
    /// QEMU writes a layer up to this byte, and says so when that is watched.
    pub fn fill_up(&self, vm: VmId, layer: &Locator, written_to: u64) {
        let passed = {
            let mut host = self.host();
            let Some(machine) = host.machines.get_mut(&vm) else {
                return;
            };
            let filling = &mut machine.filling;
            filling.written_to.insert(layer.clone(), written_to);
            let watched = filling.watched_at.get(layer).copied().unwrap_or(0);
            let passed = watched > 0 && written_to > watched;
            if passed {
                filling.watched_at.remove(layer);
            }
            passed
        };
        if passed {
            self.tell(HypervisorEvent::Filling { vm });
        }
    }

    /// The machine stands still because a write to the disk found no room.
    pub fn run_out_of_room(&self, vm: VmId, disk: &DiskTarget) {
        if let Some(machine) = self.host().machines.get_mut(&vm) {
            machine.filling.lacks_room = vec![disk.clone()];
            machine.set_state(VmState::Paused);
        }
        self.tell(HypervisorEvent::Lifecycle { vm });
    }
}
