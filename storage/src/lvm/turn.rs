//! Whose turn it is in a group: first among the calls of this process, in their order, then among the
//! programs of this host, by the lock of its file.
//!
//! - `name`: alone, for who decides about a name or changes what is active. `look`: shared, for who
//!   opens a volume to look at it, which counts as use.
//! - Nobody has a thread, or a call of the domain's, while it waits for another process.
//! - A change that does not end keeps the turn in which it was begun: a copy of the file is in its
//!   program's hands. What was decided there holds until then, also when this process ends first.

use super::domain::Domain;
use crate::turn::{self, Turns};
use crate::{StorageError, StorageId};
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{sleep, timeout};

/// How long a look waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a change does: for more of those that were there before.
const LONG_PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries to have the lock beside other processes.
const PAUSE: Duration = Duration::from_millis(20);

/// One try to have a lock beside other processes: `None` while one of them is in the way.
type Attempt = fn(&Turns) -> Result<Option<turn::Turn>, StorageError>;

/// The order among the calls of this process.
pub(super) type Order = Arc<RwLock<()>>;

/// A turn, until all that have a part in it have dropped it.
#[derive(Debug, Clone)]
pub(super) struct Turn(Arc<Held>);

#[derive(Debug)]
struct Held {
    lock: turn::Turn,
    _own: Own,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held, never read")]
enum Own {
    Alone(OwnedRwLockWriteGuard<()>),
    Shared(OwnedRwLockReadGuard<()>),
}

impl Turn {
    fn new(lock: turn::Turn, own: Own) -> Self {
        Self(Arc::new(Held { lock, _own: own }))
    }

    /// The open file of the lock, as a program's input: it holds nothing that could be read.
    pub(super) fn as_input(&self) -> io::Result<Stdio> {
        Ok(self.0.lock.copy()?.into())
    }
}

impl Domain {
    /// Nobody else decides about a name, and nobody of this program's has a volume open.
    ///
    /// # Errors
    /// `Unreachable` when a change that has the turn does not end.
    pub(super) async fn name_turn(self: &Arc<Self>) -> Result<Turn, StorageError> {
        let turn = timeout(LONG_PATIENCE, self.sole_turn()).await;
        turn.unwrap_or_else(|_| Err(no_turn(self.id())))
    }

    async fn sole_turn(self: &Arc<Self>) -> Result<Turn, StorageError> {
        let own = Arc::clone(&self.order).write_owned().await;
        let lock = self.lock(Turns::try_name).await?;
        Ok(Turn::new(lock, Own::Alone(own)))
    }

    /// Whoever opens a volume for a look has it: an open volume counts as used.
    pub(super) async fn look_turn(self: &Arc<Self>) -> Result<Turn, StorageError> {
        let turn = timeout(PATIENCE, self.shared_turn()).await;
        turn.unwrap_or_else(|_| Err(no_turn(self.id())))
    }

    async fn shared_turn(self: &Arc<Self>) -> Result<Turn, StorageError> {
        let own = Arc::clone(&self.order).read_owned().await;
        let lock = self.lock(Turns::try_look).await?;
        Ok(Turn::new(lock, Own::Shared(own)))
    }

    /// Tries until no other process is in the way.
    async fn lock(self: &Arc<Self>, attempt: Attempt) -> Result<turn::Turn, StorageError> {
        loop {
            if let Some(lock) = self.look(move |domain| attempt(&domain.turns)).await? {
                return Ok(lock);
            }
            sleep(PAUSE).await;
        }
    }
}

fn no_turn(domain: &StorageId) -> StorageError {
    StorageError::Unreachable {
        what: format!("storage domain {domain}"),
        source: io::Error::new(io::ErrorKind::TimedOut, "a change of it has no end"),
    }
}

#[cfg(test)]
mod tests {
    use crate::VolumeStore as _;
    use crate::lvm::scripted::Scripted;
    use std::fs::File;
    use std::time::{Duration, Instant};
    use tokio::runtime::Runtime;
    use tokio::time::timeout;

    #[test]
    fn whoever_waits_for_another_process_can_be_ended() {
        let group = Scripted::new();
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(group.open());
        let lock = group.dir().join("locks/vg/naming.lock");
        let lock = File::create(lock).unwrap();
        lock.lock().unwrap();
        let name = "base".parse().unwrap();
        runtime.block_on(async {
            let waits = timeout(Duration::from_millis(50), store.in_use(&name));
            waits.await.unwrap_err();
        });
        let begun = Instant::now();
        runtime.shutdown_timeout(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
