//! One operation of a machine is accepted at a time: its lane's order is the order of acceptance. Those of
//! other machines are accepted beside it, so that they become durable together.

use livemerge_proto::ids::VmId;
use std::array;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

/// Machines share a door with few others, and never have two.
const DOORS: usize = 64;

#[derive(Debug)]
pub(super) struct Accepting([Mutex<()>; DOORS]);

impl Default for Accepting {
    fn default() -> Self {
        Self(array::from_fn(|_| Mutex::default()))
    }
}

impl Accepting {
    /// Held while an operation of the machine is accepted.
    pub(super) async fn of(&self, vm: VmId) -> MutexGuard<'_, ()> {
        let last = Uuid::from(vm).as_bytes()[15];
        self.0[usize::from(last) % DOORS].lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn machines_are_accepted_for_beside_each_other() {
        let vm = |number| VmId::from(Uuid::from_u128(number));
        let accepting = Accepting::default();
        let one = accepting.of(vm(1)).now_or_never();
        assert!(one.is_some());
        assert!(accepting.of(vm(1)).now_or_never().is_none());
        assert!(accepting.of(vm(2)).now_or_never().is_some());
        drop(one);
        assert!(accepting.of(vm(1)).now_or_never().is_some());
    }
}
