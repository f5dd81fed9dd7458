//! One at a time makes a volume of a name: when a call has answered, no earlier one of that name is
//! still at work and makes it once more after it was removed. Within one process.

use crate::VolumeName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex as Short, PoisonError};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The names that somebody makes a volume of.
#[derive(Debug, Default)]
pub(crate) struct Making(Short<HashMap<VolumeName, Arc<Mutex<()>>>>);

impl Making {
    /// Until it is dropped, nobody else makes a volume of that name.
    pub(crate) async fn of(&self, name: &VolumeName) -> OwnedMutexGuard<()> {
        let lane = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            Arc::clone(lanes.entry(name.clone()).or_default())
        };
        lane.lock_owned().await
    }
}
