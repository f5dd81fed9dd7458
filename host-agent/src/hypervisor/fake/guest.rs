//! The guest of a machine: whether it has an agent, and what that has frozen.

use crate::hypervisor::{HypervisorError, VmState};

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
