//! Whose turn it is to change a machine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use livemerge_proto::ids::VmId;

/// One at a time: the turn is held until the call's thread is done.
pub(super) type Turn = tokio::sync::Mutex<()>;

/// The turns of all machines that were ever changed.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<VmId, Arc<Turn>>>);

impl Turns {
    pub(super) fn of(&self, vm: VmId) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(vm).or_default())
    }
}
