//! The layers of each disk against the machine's snapshots, and against the layers' headers.
//!
//! ```text
//!   base ◀── layer ◀── layer ◀── active      a snapshot's volume is one of the frozen layers;
//!     └──── frozen ──────┘                   each header names the layer to its left
//! ```
//!
//! A machine that an operation works on, and a disk with a block job, is not compared: `unknown`
//! says so. The chain of a machine that is off is what its headers say.

use crate::consistency::finding::{Finding, Kind, Remedy, Repair};
use crate::consistency::record::Record;
use crate::consistency::seen::{HostSeen, Seen, VmLook, last};
use crate::hosts::{Chain, Layer, VmState};
use crate::snapshot::{Severity, Snapshot, SnapshotDisk, SnapshotState};
use livemerge_proto::ids::{HostId, VmId};
use livemerge_storage::VolumeRef;
use std::collections::BTreeSet;

pub(super) fn find(record: &Record, seen: &Seen) -> Vec<Finding> {
    let vms: BTreeSet<VmId> = seen
        .known()
        .flat_map(|(_, host)| host.vms.keys().copied())
        .collect();
    let mut findings = Vec::new();
    for vm in vms {
        if record.works_on(vm).is_some() {
            continue;
        }
        let Some((host, here, look)) = seen.vm(vm) else {
            continue;
        };
        let Ok(chains) = &look.chains else { continue };
        let snapshots = record.snapshots.iter().filter(|s| s.vm == vm).collect();
        let machine = Machine {
            vm,
            host,
            here,
            look,
            snapshots,
        };
        for chain in chains.iter().filter(|chain| !chain.job_running) {
            findings.extend(machine.unaccounted(chain));
            findings.extend(machine.headers(chain));
        }
        findings.extend(machine.misplaced(chains));
    }
    findings
}

struct Machine<'a> {
    vm: VmId,
    host: &'a HostId,
    here: &'a HostSeen,
    look: &'a VmLook,
    snapshots: Vec<&'a Snapshot>,
}

impl Machine<'_> {
    fn off(&self) -> bool {
        self.look.state == VmState::ShutOff
    }

    fn about(&self, finding: Finding, chain: &Chain) -> Finding {
        finding
            .on([self.host.clone()])
            .of_vm(self.vm)
            .of_disk(&chain.disk)
    }

    /// Layers between base and active layer that are no snapshot's.
    fn unaccounted(&self, chain: &Chain) -> Vec<Finding> {
        let Some((_active, frozen)) = chain.layers.split_last() else {
            return vec![];
        };
        let between = frozen.iter().skip(1);
        let foreign = between.filter(|layer| !self.accounts_for(chain, layer));
        foreign.map(|layer| self.foreign(chain, layer)).collect()
    }

    fn accounts_for(&self, chain: &Chain, layer: &Layer) -> bool {
        let mut snapshots = self.snapshots.iter();
        let mark = layer.mark.as_ref();
        mark.is_some_and(|mark| snapshots.any(|s| s.accounts_for(&chain.disk, mark)))
    }

    fn foreign(&self, chain: &Chain, layer: &Layer) -> Finding {
        let (text, severity) = if layer.shared_with.is_empty() {
            ("no snapshot accounts for", Severity::Warning)
        } else {
            (
                "no snapshot, but another chain, accounts for",
                Severity::Info,
            )
        };
        let text = format!("disk {}: {text} layer {}", chain.disk, layer.locator);
        let remedy = Remedy::Nothing(
            "whose point in time it is cannot be told; whoever took it can end it, as \
             `virsh blockcommit` does"
                .to_owned(),
        );
        let finding = Finding::new(Kind::ChainUnknownToRecord, severity, text, remedy);
        let finding = self.about(finding, chain).detail("locator", &layer.locator);
        match &layer.mark {
            Some(mark) => finding.of_mark(mark),
            None => finding,
        }
    }

    /// Headers that name another backing than the layer below. Not of a machine that is off, whose
    /// chain is read from the headers.
    fn headers(&self, chain: &Chain) -> Vec<Finding> {
        if self.off() {
            return vec![];
        }
        let belows = std::iter::once(None).chain(chain.layers.iter().map(Some));
        let pairs = belows.zip(&chain.layers);
        pairs
            .filter_map(|(below, layer)| self.header(chain, below, layer))
            .collect()
    }

    fn header(&self, chain: &Chain, below: Option<&Layer>, layer: &Layer) -> Option<Finding> {
        let mark = layer.mark.as_ref()?;
        let listed = self.here.volume(&mark.volume)?;
        let named = listed.parent.as_deref();
        let same = match (named, below) {
            (None, None) => true,
            (Some(named), Some(below)) => self.leads_to(named, below),
            _ => false,
        };
        if same || listed.mark.identity != mark.identity {
            return None;
        }
        let named = named.unwrap_or("nothing");
        let wanted = below.map_or("nothing", |below| &below.locator);
        let text = format!(
            "disk {}: the header of {} names {named}, the chain has {wanted} below it",
            chain.disk, mark.volume
        );
        let remedy = Remedy::Nothing(
            "rewriting a header that QEMU has open is never safe; the machine must not be stopped \
             before somebody has looked: its next start follows the header"
                .to_owned(),
        );
        let finding = Finding::new(Kind::HeaderDiffersFromChain, Severity::Error, text, remedy);
        let finding = self.about(finding, chain).of_mark(mark);
        Some(finding.detail("header", named).detail("chain", wanted))
    }

    /// Whether a header's text means that layer.
    fn leads_to(&self, named: &str, below: &Layer) -> bool {
        if named == below.locator {
            return true;
        }
        match (self.here.at(named), &below.mark) {
            (Some(volume), Some(mark)) => volume.mark.volume == mark.volume,
            (_, _) => last(named) == last(&below.locator),
        }
    }

    /// Snapshots whose volume is not there, or no frozen layer.
    fn misplaced(&self, chains: &[Chain]) -> Vec<Finding> {
        let relied_on = |state| matches!(state, SnapshotState::Ready | SnapshotState::Incomplete);
        let snapshots = self.snapshots.iter().filter(|s| relied_on(s.state));
        let disks = snapshots.flat_map(|snapshot| snapshot.disks.iter().map(|d| (*snapshot, d)));
        disks
            .filter_map(|(snapshot, disk)| {
                let storage = self.here.storages.get(&disk.volume.storage)?;
                // Unknown is said elsewhere.
                let listed = storage.listed()?;
                if listed.iter().any(|seen| seen.mark.volume == disk.volume) {
                    return self.misplaced_disk(snapshot, disk, chains);
                }
                let finding = self.lost(snapshot, disk);
                Some(match storage.removal_of(&disk.volume) {
                    Some(removal) => finding.of_removal(removal.id),
                    None => finding,
                })
            })
            .collect()
    }

    fn lost(&self, snapshot: &Snapshot, disk: &SnapshotDisk) -> Finding {
        let text = format!(
            "snapshot {} names {}, which is not in storage",
            snapshot.name, disk.volume
        );
        let remedy = Remedy::Nothing(
            "what it held cannot be made again; bring the volume back from a backup, or keep the \
             snapshot as a note of what was lost"
                .to_owned(),
        );
        self.of_disk(Kind::RecordWithoutVolume, text, remedy, snapshot, disk)
    }

    fn misplaced_disk(
        &self,
        snapshot: &Snapshot,
        disk: &SnapshotDisk,
        chains: &[Chain],
    ) -> Option<Finding> {
        let why = match chains.iter().find(|chain| chain.disk == disk.disk) {
            None => format!("the machine shows no disk {}", disk.disk),
            Some(chain) if chain.job_running => return None,
            Some(chain) => {
                let (frozen, active) = self.frozen_and_active(chain);
                if frozen.contains(&disk.volume) {
                    return None;
                }
                if active != Some(&disk.volume) {
                    format!("it is not in the chain of disk {}", disk.disk)
                } else if merged_already(disk, chain) {
                    return None;
                } else {
                    format!("the guest writes to it, on disk {}", disk.disk)
                }
            }
        };
        let text = format!(
            "snapshot {} names {}, but {why}",
            snapshot.name, disk.volume
        );
        // A merge may have taken it from the chain, and nobody has seen whether it was done. There is
        // no point in time to lose, and the volume stays for who finds that it is needed.
        let remedy = if snapshot.state == SnapshotState::Incomplete {
            Remedy::Safe(Repair::ForgetDisk(
                Box::new(snapshot.clone()),
                disk.disk.clone(),
            ))
        } else {
            Remedy::Nothing(
                "where its data went cannot be told from here; `livemerge vm chain` draws the chain \
                 as it is"
                    .to_owned(),
            )
        };
        Some(self.of_disk(Kind::SnapshotNotInChain, text, remedy, snapshot, disk))
    }

    fn of_disk(
        &self,
        kind: Kind,
        text: String,
        remedy: Remedy,
        snapshot: &Snapshot,
        disk: &SnapshotDisk,
    ) -> Finding {
        Finding::new(kind, Severity::Error, text, remedy)
            .on([self.host.clone()])
            .of_volume(&disk.volume)
            .of_disk(&disk.disk)
            .of_snapshot(snapshot)
    }

    /// The volumes of a chain below its active one, and that one.
    fn frozen_and_active<'c>(
        &'c self,
        chain: &'c Chain,
    ) -> (BTreeSet<&'c VolumeRef>, Option<&'c VolumeRef>) {
        let volume = |layer: &'c Layer| layer.mark.as_ref().map(|mark| &mark.volume);
        let Some((active, frozen)) = chain.layers.split_last() else {
            return (BTreeSet::new(), None);
        };
        let mut below: BTreeSet<&VolumeRef> = frozen.iter().filter_map(volume).collect();
        if self.off() {
            self.follow_headers(&chain.layers[0], &mut below);
        }
        (below, volume(active))
    }

    /// Adds what lies below a layer as the headers have it.
    fn follow_headers<'c>(&'c self, layer: &'c Layer, below: &mut BTreeSet<&'c VolumeRef>) {
        let mut volume = layer.mark.as_ref().map(|mark| &mark.volume);
        while let Some(parent) = volume
            .and_then(|volume| self.here.volume(volume)?.parent.as_deref())
            .and_then(|parent| self.here.at(parent))
        {
            // Headers may run in a circle.
            if !below.insert(&parent.mark.volume) {
                return;
            }
            volume = Some(&parent.mark.volume);
        }
    }
}

/// The overlay of an unfinished delete is gone from the chain, so its base is active rightly.
fn merged_already(disk: &SnapshotDisk, chain: &Chain) -> bool {
    disk.merging.as_ref().is_some_and(|merging| {
        let mut marks = chain.layers.iter().filter_map(|layer| layer.mark.as_ref());
        !marks.any(|mark| {
            merging
                .removed
                .iter()
                .any(|gone| mark.volume == gone.volume)
        })
    })
}
