//! The guest of a machine: whether it has an agent, and what that has frozen.

use livemerge_proto::ids::{DiskTarget, VmId};

use crate::hypervisor::{HypervisorError, VmState};

use super::FakeHypervisor;
use super::machine::Machine;

/// The agent in a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GuestAgent {
    /// There is none.
    #[default]
    Missing,
    /// It answers.
    Answers,
    /// It is there and answers nothing.
    Silent,
}

/// What runs in a machine.
#[derive(Debug, Default)]
pub(super) struct Guest {
    pub(super) agent: GuestAgent,
    /// How many file systems it has.
    pub(super) file_systems: usize,
    /// How many of them are frozen.
    pub(super) frozen: usize,
}

impl FakeHypervisor {
    /// Puts another agent into the guest, which has so many file systems.
    pub fn set_guest_agent(&self, vm: VmId, agent: GuestAgent, file_systems: usize) {
        if let Some(machine) = self.host().machines.get_mut(&vm) {
            machine.guest.agent = agent;
            machine.guest.file_systems = file_systems;
        }
    }

    /// What the guest discards of a disk is given back by the images, or not.
    pub fn set_discards(&self, vm: VmId, disk: &DiskTarget, discards: bool) {
        let set = self.with_disk(vm, disk, |disk, _| disk.discards = discards);
        set.expect("a disk of the host");
    }
}

impl Machine {
    pub(super) fn freeze_guest(&mut self) -> Result<usize, HypervisorError> {
        let guest = self.reachable_guest()?;
        guest.frozen = guest.file_systems;
        Ok(guest.frozen)
    }

    pub(super) fn thaw_guest(&mut self) -> Result<usize, HypervisorError> {
        let guest = self.reachable_guest()?;
        Ok(std::mem::take(&mut guest.frozen))
    }

    fn reachable_guest(&mut self) -> Result<&mut Guest, HypervisorError> {
        let refused = |why: &str| Err(HypervisorError::Refused(why.to_owned()));
        match self.guest.agent {
            _ if self.state != VmState::Running => refused("the machine does not run"),
            GuestAgent::Missing => refused("the guest has no agent"),
            GuestAgent::Silent => refused("the guest's agent does not answer"),
            GuestAgent::Answers => Ok(&mut self.guest),
        }
    }
}
