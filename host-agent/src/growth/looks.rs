//! Looks that go on at the same time, one of each kind: a machine that does not answer holds up no
//! other.

use std::collections::HashMap;
use std::hash::Hash;
use tokio::task::{Id, JoinSet};

/// The looks that are under way. They end with it.
pub(super) struct Looks<K, T> {
    running: JoinSet<T>,
    keys: HashMap<Id, K>,
    /// Those that were asked for again meanwhile.
    again: HashMap<K, bool>,
}

impl<K: Copy + Eq + Hash, T: Send + 'static> Looks<K, T> {
    pub(super) fn new() -> Self {
        Self {
            running: JoinSet::new(),
            keys: HashMap::new(),
            again: HashMap::new(),
        }
    }

    /// Begins a look, unless one of its kind is under way: then another one follows it.
    pub(super) fn begin(&mut self, key: K, look: impl Future<Output = T> + Send + 'static) {
        if let Some(again) = self.again.get_mut(&key) {
            *again = true;
            return;
        }
        self.again.insert(key, false);
        let task = self.running.spawn(look);
        self.keys.insert(task.id(), key);
    }

    /// Waits for the end of one: what it was, what it said unless it broke off, and whether it is to
    /// be begun again. Waits for ever while none is under way. Dropped, nothing is lost.
    pub(super) async fn ended(&mut self) -> (K, Option<T>, bool) {
        loop {
            let Some(ended) = self.running.join_next_with_id().await else {
                return std::future::pending().await;
            };
            let (id, said) = match ended {
                Ok((id, said)) => (id, Some(said)),
                Err(broken) => (broken.id(), None),
            };
            if let Some(key) = self.keys.remove(&id) {
                let again = self.again.remove(&key).unwrap_or(false);
                return (key, said, again);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_asked_for_meanwhile_follows_and_none_waits_for_another() {
        let mut looks = Looks::new();
        looks.begin(1, std::future::pending::<u8>());
        looks.begin(2, async { 7 });
        looks.begin(2, async { 8 });
        assert_eq!(looks.ended().await, (2, Some(7), true));
        looks.begin(2, async { panic!("as a look may") });
        assert_eq!(looks.ended().await, (2, None, false));
    }
}
