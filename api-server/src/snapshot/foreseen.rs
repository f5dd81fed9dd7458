//! What a merge takes and gives, and how long, as it was foreseen when it was planned. It is kept with
//! the operation, so that at its end what was planned stands beside what became of it.

use super::types::{DeletePhase, Direction, DiskState, DiskTask, Operation, Work};
use crate::hosts::Measured;
use crate::store::{OperationFilter, Page, Store, StoreError};
use livemerge_proto::ids::HostId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// So many of a host's last merges say how fast the next one is.
const MERGES: usize = 15;
/// Looked for among so many operations at most.
const OPERATIONS: usize = 2000;
const PAGE: usize = 200;

/// What was foreseen of a merge; 0 for what was not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// Bytes that the kept volume takes in addition.
    pub needed_bytes: u64,
    /// Bytes that the kept volume took then.
    #[serde(default)]
    pub kept_bytes: u64,
    /// Bytes that its storage domain had free.
    pub free_bytes: u64,
    /// Bytes that the removed volumes give back.
    pub freed_bytes: u64,
    /// Bytes to copy the other way, when that was possible.
    pub other_way_bytes: u64,
    /// The volumes' maps were not read: the bytes are those that the volumes take in storage.
    pub guessed: bool,
    /// The guest may discard meanwhile what is copied into a qcow2 volume.
    #[serde(default)]
    pub guest_discards: bool,
    /// How long it would copy; `None` when nothing was ever measured.
    pub time: Option<Duration>,
}

impl Foreseen {
    /// What the host has measured. Without that, all is guessed.
    pub(super) fn of(measured: Option<&Measured>, direction: Direction, kept_bytes: u64) -> Self {
        let other = match direction {
            Direction::Commit => Direction::Pull,
            Direction::Pull => Direction::Commit,
        };
        let Some(way) = measured.and_then(|measured| measured.way(direction)) else {
            return Self {
                kept_bytes,
                guessed: true,
                ..Self::default()
            };
        };
        let other = measured.and_then(|measured| measured.way(other));
        Self {
            needed_bytes: way.needed_bytes,
            kept_bytes,
            free_bytes: way.free_bytes,
            freed_bytes: way.freed_bytes,
            other_way_bytes: other
                .filter(|way| way.blocker.is_none())
                .map_or(0, |way| way.copy_bytes),
            guessed: way.estimated,
            ..Self::default()
        }
    }
}

/// Foresees how long each merge copies, at a rate in bytes a second. The limit is of all that go
/// together; 0 for none.
pub(super) fn foresee_times(tasks: &mut [DiskTask], rate: Option<u64>, limit: u64) {
    let rounds: Vec<u32> = tasks.iter().map(|task| task.round).collect();
    for task in tasks {
        let together = rounds.iter().filter(|round| **round == task.round).count();
        let limit = Some(limit / together.max(1) as u64).filter(|_| limit > 0);
        let rate = rate.map(|rate| limit.map_or(rate, |limit| limit.min(rate)).max(1));
        let merged = matches!(task.state, DiskState::Removing { .. });
        task.foreseen.time = if merged {
            Some(Duration::ZERO)
        } else {
            rate.map(|rate| over(task.planned_bytes, rate))
        };
    }
}

/// How long all of them copy: rounds follow one another, those of one go together.
pub(crate) fn time_of_all(tasks: &[DiskTask]) -> Option<Duration> {
    let mut rounds: BTreeMap<u32, Duration> = BTreeMap::new();
    for task in tasks {
        let longest = rounds.entry(task.round).or_default();
        *longest = task.foreseen.time?.max(*longest);
    }
    (!tasks.is_empty()).then(|| rounds.values().sum())
}

fn over(bytes: u64, rate: u64) -> Duration {
    let millis = u128::from(bytes) * 1000 / u128::from(rate.max(1));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// How many bytes a second a host's last merges have copied, in the middle. Of a host without any,
/// what others' have; `None` when none is known.
pub(super) async fn rate_of(
    host: Option<&HostId>,
    store: &dyn Store,
) -> Result<Option<u64>, StoreError> {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let mut page = Page {
        after: None,
        limit: PAGE,
    };
    for _ in 0..OPERATIONS / PAGE {
        let operations = store.operations(&OperationFilter::default(), &page).await?;
        for operation in &operations {
            let same = operation.host.as_ref() == host;
            let rates = if same { &mut own } else { &mut others };
            rates.extend(rates_in(operation));
        }
        page.after = operations.last().map(|operation| operation.id);
        if own.len() >= MERGES || operations.len() < PAGE {
            break;
        }
    }
    Ok(median(own).or_else(|| median(others)))
}

/// Of the first so many, the newest.
fn median(mut rates: Vec<u64>) -> Option<u64> {
    rates.truncate(MERGES);
    rates.sort_unstable();
    rates.get(rates.len() / 2).copied()
}

/// What each of its merges has copied in a second.
fn rates_in(operation: &Operation) -> impl Iterator<Item = u64> + '_ {
    let tasks = match &operation.work {
        Work::Delete(DeletePhase::Disks(tasks)) => tasks.as_slice(),
        Work::Delete(DeletePhase::Planning) | Work::Create(_) => &[],
    };
    tasks.iter().filter_map(|task| match task.state {
        DiskState::Removing {
            copied_bytes,
            copy_time,
            ..
        }
        | DiskState::Removed {
            copied_bytes,
            copy_time,
            ..
        } if copied_bytes > 0 && !copy_time.is_zero() => {
            let micros = copy_time.as_micros().max(1);
            let rate = u128::from(copied_bytes) * 1_000_000 / micros;
            Some(u64::try_from(rate).unwrap_or(u64::MAX).max(1))
        }
        _ => None,
    })
}

#[cfg(test)]
pub(super) mod tests;
