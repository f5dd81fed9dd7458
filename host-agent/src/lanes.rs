//! One at a time of each: a lock for every key that somebody works on.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex as Short, PoisonError};
use tokio::sync::Mutex;

/// The locks. A key that nobody works on takes no room.
#[derive(Debug)]
pub(crate) struct Lanes<K>(Short<HashMap<K, Arc<Mutex<()>>>>);

impl<K> Default for Lanes<K> {
    fn default() -> Self {
        Self(Short::default())
    }
}

impl<K: Eq + Hash> Lanes<K> {
    /// The lane of a key: whoever locks it is alone with it.
    pub(crate) fn of(&self, key: K) -> Arc<Mutex<()>> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        Arc::clone(lanes.entry(key).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_one_lane_as_long_as_somebody_works_on_it() {
        let lanes = Lanes::default();
        let lane = lanes.of(1);
        let held = lane.lock().await;
        assert!(lanes.of(1).try_lock().is_err());
        assert!(lanes.of(2).try_lock().is_ok());
        drop(held);
        assert!(lanes.of(1).try_lock().is_ok());
        drop(lane);
        drop(lanes.of(3));
        assert_eq!(lanes.0.lock().unwrap().len(), 1, "only the latest");
    }
}
