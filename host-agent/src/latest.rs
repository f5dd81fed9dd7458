//! Which order of a machine was the last one: none that was given before it is carried out any more.
//!
//! ```text
//!   order ─▶ given after the machine's last one? ─┬─ yes ─▶ ■ it is the last one now ─▶ carried out
//!                                                 └─ no ──▶ refused, and nothing is done
//! ```
//!
//! A copy of an order may be under way for longer than the machine's next ones take. An order for
//! overlays that comes when the snapshot is deleted again would find the volume that it means active
//! once more, and put on a layer that no record knows; one for a merge that was refused would begin
//! after the record has said that it never did. So each order has a place among those of all servers:
//! the server's generation, and a number that grows with each of its orders. A server asks for one
//! thing of a machine at a time, and takes a new number for each try: what has an older one is late.
//!
//! The place is on disk before anything is done, so that a restart forgets nothing: one small file a
//! machine. One that cannot be read as what it should be is as if it were not there.

use crate::merge::write_whole;
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// When an order was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Given {
    /// By which start of a server.
    pub generation: u64,
    /// As its how manyth, or later; 1 or more.
    pub sequence: u64,
}

/// The last order of each machine.
#[derive(Debug, Default)]
pub struct Latest {
    /// `None`: they are forgotten with this value.
    dir: Option<PathBuf>,
    known: Mutex<BTreeMap<VmId, Given>>,
}

impl Latest {
    /// Kept in a directory, which is made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            fs::File::open(parent)?.sync_all()?;
        }
        Ok(Self {
            dir: Some(dir.to_owned()),
            known: Mutex::default(),
        })
    }

    /// Lets an order of a machine through if none was that was given after it, or is the same.
    ///
    /// # Errors
    /// `STALE_GENERATION` for one that is late; `STORE_UNAVAILABLE` when that cannot be told or written
    /// down: then it is not carried out yet.
    pub async fn pass(self: &Arc<Self>, vm: VmId, given: Given) -> Result<(), Problem> {
        if self.dir.is_none() {
            return self.pass_blocking(vm, given);
        }
        let latest = Arc::clone(self);
        let passed = tokio::task::spawn_blocking(move || latest.pass_blocking(vm, given)).await;
        passed.unwrap_or_else(|died| Err(Problem::new(Reason::InternalBug, died.to_string())))
    }

    fn pass_blocking(&self, vm: VmId, given: Given) -> Result<(), Problem> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let last = match known.get(&vm) {
            Some(last) => Some(*last),
            None => self.read(vm).map_err(|error| unusable(vm, &error))?,
        };
        if let Some(last) = last.filter(|last| given <= *last) {
            known.insert(vm, last);
            return Err(late(vm, given, last));
        }
        self.write(vm, given)
            .map_err(|error| unusable(vm, &error))?;
        known.insert(vm, given);
        Ok(())
    }

    fn read(&self, vm: VmId) -> io::Result<Option<Given>> {
        let Some(path) = self.path(vm) else {
            return Ok(None);
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let numbers = text.trim().split_once(' ');
        let last = numbers.and_then(|(generation, sequence)| {
            Some(Given {
                generation: generation.parse().ok()?,
                sequence: sequence.parse().ok()?,
            })
        });
        if last.is_none() {
            tracing::error!(path = %path.display(), "the machine's last order is not known: the file is damaged");
        }
        Ok(last)
    }

    fn write(&self, vm: VmId, given: Given) -> io::Result<()> {
        let Given {
            generation,
            sequence,
        } = given;
        match self.path(vm) {
            Some(path) => write_whole(&path, format_args!("{generation} {sequence}")),
            None => Ok(()),
        }
    }

    fn path(&self, vm: VmId) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(vm.to_string()))
    }
}

fn late(vm: VmId, given: Given, last: Given) -> Problem {
    let name = |it: Given| format!("{} of generation {}", it.sequence, it.generation);
    let (given, last) = (name(given), name(last));
    let text =
        format!("order {given} comes late: order {last} of virtual machine {vm} was given since");
    let problem = Problem::new(Reason::StaleGeneration, text).with("vm", vm);
    problem.with("given", given).with("known", last)
}

fn unusable(vm: VmId, error: &io::Error) -> Problem {
    tracing::error!(%vm, %error, "the machine's last order cannot be read or written down");
    let text = "the agent's journal cannot be written";
    Problem::new(Reason::StoreUnavailable, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(number: u128) -> VmId {
        VmId::from(uuid::Uuid::from_u128(number))
    }

    async fn passes(latest: &Arc<Latest>, number: u128, place: (u64, u64)) -> bool {
        let (generation, sequence) = place;
        let given = Given {
            generation,
            sequence,
        };
        match latest.pass(vm(number), given).await {
            Ok(()) => true,
            Err(refused) => {
                assert_eq!(refused.reason, Reason::StaleGeneration);
                false
            }
        }
    }

    #[tokio::test]
    async fn what_is_late_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(Latest::open(&dir.path().join("orders")).unwrap());
        for latest in [Arc::default(), open()] {
            assert!(passes(&latest, 1, (1, 5)).await);
            assert!(!passes(&latest, 1, (1, 5)).await, "it comes twice");
            assert!(!passes(&latest, 1, (1, 4)).await, "it comes late");
            assert!(passes(&latest, 1, (1, 7)).await);
            assert!(passes(&latest, 2, (1, 6)).await, "another machine");
            assert!(passes(&latest, 1, (2, 1)).await, "a new server");
            assert!(!passes(&latest, 1, (1, 9)).await, "an older server");
        }
        let again = open();
        assert!(!passes(&again, 1, (2, 1)).await);
        assert!(!passes(&again, 2, (1, 6)).await);
        assert!(passes(&again, 1, (2, 2)).await);
    }

    #[tokio::test]
    async fn what_cannot_be_written_down_is_not_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let orders = dir.path().join("orders");
        let latest = Arc::new(Latest::open(&orders).unwrap());
        fs::remove_dir(&orders).unwrap();
        let given = Given {
            generation: 1,
            sequence: 1,
        };
        let refused = latest.pass(vm(1), given).await.unwrap_err();
        assert_eq!(refused.reason, Reason::StoreUnavailable);
        fs::create_dir(&orders).unwrap();
        assert!(passes(&latest, 1, (1, 1)).await, "the next try is");
        fs::write(orders.join(vm(2).to_string()), "what").unwrap();
        assert!(passes(&latest, 2, (1, 1)).await);
    }
}
