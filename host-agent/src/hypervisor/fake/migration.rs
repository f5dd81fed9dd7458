//! Machines on their way to another host.

use super::{FakeHypervisor, Host};
use crate::hypervisor::HypervisorError;
use livemerge_proto::ids::VmId;

impl FakeHypervisor {
    /// The machine is on its way to another host from now on, or no more.
    pub fn set_migrating(&self, vm: VmId, migrates: bool) {
        let migrating = &mut self.host().migrating;
        if migrates {
            migrating.insert(vm);
        } else {
            migrating.remove(&vm);
        }
    }
}

impl Host {
    /// As libvirt, which lets nobody change what is on its way.
    pub(super) fn stays(&self, vm: VmId) -> Result<(), HypervisorError> {
        match self.migrating.contains(&vm) {
            true => Err(HypervisorError::Migrating("not now".to_owned())),
            false => Ok(()),
        }
    }
}
