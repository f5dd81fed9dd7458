//! Machines that were told to stand still. Of one that did so for want of room before, libvirt shows
//! nothing else then: only here it can be seen that nobody may let it run.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use livemerge_proto::ids::VmId;

/// They, and who has told them so.
#[derive(Debug, Default)]
pub(super) struct Suspended(Mutex<HashMap<VmId, Mark>>);

/// In which run of QEMU: the next one has heard nothing of it.
#[derive(Debug, Clone, Copy)]
enum Mark {
    Ours(Option<u32>),
    /// `None`: the one that is seen first. It may have been let run before that process ended.
    Earlier(Option<u32>),
}

impl Suspended {
    pub(super) fn begun(&self, vm: VmId, run: Option<u32>) {
        self.machines().insert(vm, Mark::Ours(run));
    }

    pub(super) fn by_an_earlier_process(&self, vm: VmId) {
        self.machines().insert(vm, Mark::Earlier(None));
    }

    /// It is told to run, or is off.
    pub(super) fn ended(&self, vm: VmId) {
        self.machines().remove(&vm);
    }

    /// It was seen to run. What this process has told it may be on its way still.
    pub(super) fn ran(&self, vm: VmId) {
        let mut machines = self.machines();
        if matches!(machines.get(&vm), Some(Mark::Earlier(_))) {
            machines.remove(&vm);
        }
    }

    pub(super) fn is(&self, vm: VmId, run: Option<u32>) -> bool {
        let mut machines = self.machines();
        match machines.get_mut(&vm) {
            None => false,
            Some(Mark::Ours(of)) => *of == run,
            Some(Mark::Earlier(of)) => {
                *of = of.or(run);
                *of == run
            }
        }
    }

    fn machines(&self) -> MutexGuard<'_, HashMap<VmId, Mark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_machine_is_suspended_until_it_is_told_to_run_or_its_qemu_ends() {
        let [one, other] = [1, 2].map(|vm| VmId::from(Uuid::from_u128(vm)));
        let suspended = Suspended::default();
        suspended.begun(one, Some(5));
        assert!(suspended.is(one, Some(5)) && !suspended.is(other, Some(5)));
        assert!(!suspended.is(one, Some(6)), "another QEMU");
        suspended.by_an_earlier_process(one);
        assert!(suspended.is(one, Some(6)) && !suspended.is(one, Some(7)));
        suspended.ended(one);
        assert!(!suspended.is(one, Some(6)));
    }

    #[test]
    fn one_that_an_earlier_process_has_let_run_is_suspended_no_more() {
        let vm = VmId::from(Uuid::from_u128(1));
        let suspended = Suspended::default();
        suspended.by_an_earlier_process(vm);
        assert!(suspended.is(vm, Some(5)));
        suspended.ran(vm);
        assert!(!suspended.is(vm, Some(5)));
        suspended.begun(vm, Some(5));
        suspended.ran(vm);
        assert!(
            suspended.is(vm, Some(5)),
            "it may stand still the next moment"
        );
    }
}
