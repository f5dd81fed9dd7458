//! Which layers of a machine somebody else has frozen, and which of those that were listed are gone.
//! Pure.
//!
//! ```text
//!   base ◀── A ◀── B ◀── active      each frozen layer is a point in time of its disk
//!   └─ frozen ─────┘
//! ```
//!
//! - What a snapshot of the record accounts for is not found again.
//! - A layer that another chain is built on is nobody's snapshot, nor is what lies below it: that is
//!   a template, which has a life of its own.
//! - Of a disk on which a block job runs nothing is told.

use crate::hosts::{Chain, Layer};
use crate::snapshot::{
    Consistency, EventKind, Mark, NewEvent, Origin, Severity, Snapshot, SnapshotDisk, SnapshotState,
};
use crate::store::SnapshotChange;
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, SnapshotId, SnapshotName, VmId};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// So much of a volume's name is in the name of a snapshot.
const SHORT: usize = 64;

/// What is to be written down.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) snapshots: Vec<SnapshotChange>,
    pub(super) events: Vec<NewEvent>,
}

/// A machine on which no operation works, and what the record has of it.
pub(super) struct Machine<'a> {
    pub(super) vm: VmId,
    pub(super) host: &'a HostId,
    pub(super) chains: &'a [Chain],
    pub(super) snapshots: &'a [Snapshot],
    pub(super) now: Timestamp,
}

pub(super) fn find(machine: &Machine<'_>, mint: &mut dyn FnMut() -> Uuid) -> Found {
    let mut found = Found::default();
    let own = machine.snapshots.iter();
    let mut taken: BTreeSet<String> = own.map(|own| own.name.to_string()).collect();
    for chain in machine.chains.iter().filter(|chain| !chain.job_running) {
        for mark in machine.unaccounted(chain) {
            let name = name(chain, mark, &mut taken);
            machine.discover(chain, mark, name, mint, &mut found);
        }
        for snapshot in machine.vanished(chain) {
            machine.forget(chain, snapshot, &mut found);
        }
    }
    found
}

impl Machine<'_> {
    /// Oldest first.
    fn unaccounted<'c>(&self, chain: &'c Chain) -> Vec<&'c Mark> {
        let frozen = frozen(chain);
        let shared = frozen
            .iter()
            .rposition(|layer| !layer.shared_with.is_empty());
        let above = shared.map_or(0, |place| place + 1);
        let marks = frozen[above..]
            .iter()
            .filter_map(|layer| layer.mark.as_ref());
        marks
            .filter(|mark| {
                let mut snapshots = self.snapshots.iter();
                !snapshots.any(|snapshot| snapshot.accounts_for(&chain.disk, mark))
            })
            .collect()
    }

    /// Snapshots that nobody asked for and whose layer is no longer a frozen one of the chain. What a delete has
    /// begun on is left to the next delete.
    fn vanished(&self, chain: &Chain) -> Vec<&Snapshot> {
        let gone = |disk: &SnapshotDisk| {
            let there = |layer: &Layer| match &layer.mark {
                Some(mark) => mark.volume == disk.volume,
                // It cannot be read now: its name tells.
                None => layer.locator.ends_with(disk.volume.name.as_str()),
            };
            disk.disk == chain.disk && disk.merging.is_none() && !frozen(chain).iter().any(there)
        };
        let listed = self.snapshots.iter().filter(|snapshot| {
            snapshot.origin != Origin::Requested && snapshot.state == SnapshotState::Ready
        });
        listed
            .filter(|snapshot| matches!(snapshot.disks.as_slice(), [disk] if gone(disk)))
            .collect()
    }

    fn discover(
        &self,
        chain: &Chain,
        mark: &Mark,
        name: SnapshotName,
        mint: &mut dyn FnMut() -> Uuid,
        found: &mut Found,
    ) {
        let (disk, volume) = (&chain.disk, &mark.volume);
        let snapshot = Snapshot {
            id: SnapshotId::from(mint()),
            vm: self.vm,
            description: format!(
                "Found, not asked for: somebody else has frozen {volume} on disk {disk}."
            ),
            name,
            origin: Origin::Discovered,
            labels: BTreeMap::new(),
            deletion_protected: false,
            consistency: Consistency::Unknown,
            state: SnapshotState::Ready,
            was_incomplete: false,
            disks: vec![SnapshotDisk {
                disk: disk.clone(),
                volume: volume.clone(),
                merging: None,
            }],
            created_at: self.now,
            revision: 0,
        };
        let text = format!(
            "disk {disk}: somebody else has frozen {volume}; it is listed as snapshot {}",
            snapshot.name
        );
        let event = self.event(EventKind::SnapshotDiscovered, &snapshot, text);
        found.snapshots.push(SnapshotChange::Put(snapshot));
        found.events.push(event);
    }

    fn forget(&self, chain: &Chain, snapshot: &Snapshot, found: &mut Found) {
        let text = format!(
            "the layer of snapshot {} has left the chain of disk {} by somebody else's hand; it is \
             listed no longer",
            snapshot.name, chain.disk
        );
        let event = self.event(EventKind::SnapshotVanished, snapshot, text);
        found.snapshots.push(SnapshotChange::Delete(snapshot.id));
        found.events.push(event);
    }

    fn event(&self, kind: EventKind, snapshot: &Snapshot, message: String) -> NewEvent {
        let of_disk = |disk: &SnapshotDisk| {
            let named = [
                ("disk", disk.disk.to_string()),
                ("volume", disk.volume.to_string()),
            ];
            named.map(|(key, value)| (key.to_owned(), value))
        };
        NewEvent {
            kind,
            severity: Severity::Info,
            occurred_at: self.now,
            host: Some(self.host.clone()),
            vm: Some(self.vm),
            snapshot: Some(snapshot.id),
            operation: None,
            actor: None,
            message,
            details: snapshot.disks.iter().flat_map(of_disk).collect(),
        }
    }
}

fn frozen(chain: &Chain) -> &[Layer] {
    chain
        .layers
        .split_last()
        .map_or(&[], |(_active, frozen)| frozen)
}

/// `discovered-DISK-VOLUME`, with a number when somebody has that name.
fn name(chain: &Chain, mark: &Mark, taken: &mut BTreeSet<String>) -> SnapshotName {
    let volume = mark.volume.name.as_str();
    let volume = volume.strip_suffix(".qcow2").unwrap_or(volume);
    // Volumes have ASCII names.
    let short = &volume[..volume.len().min(SHORT)];
    let first = format!("discovered-{}-{short}", chain.disk);
    let numbered = (2_u64..).map(|number| format!("{first}-{number}"));
    let free = std::iter::once(first.clone())
        .chain(numbered)
        .find(|name| taken.insert(name.clone()))
        .expect("there are more numbers than snapshots");
    free.parse()
        .expect("a target, a piece of a volume's name and a number are a snapshot's name")
}

#[cfg(test)]
mod tests;
