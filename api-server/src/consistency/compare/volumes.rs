//! What lies in storage: volumes to which nothing refers, and removals that nobody drives.
//!
//! Leaked are volumes that are named as ours are, and layers of others: images that are built on another
//! one. An image that is built on nothing may be anything.
//!
//! A leaked volume may be removed only when an ended operation says that it holds nothing, its
//! machine is there to be seen without it, and everybody could be asked. Any other one may be the
//! disk of a machine that is not defined at the moment. While somebody cannot be asked, only what
//! an operation has left over is listed: what else nobody names may be of those who are silent.

use crate::consistency::finding::{Finding, Kind, Remedy, Repair};
use crate::consistency::record::Record;
use crate::consistency::seen::{Seen, StorageSeen};
use crate::hosts::VolumeSeen;
use crate::snapshot::{Mark, Severity};
use livemerge_proto::ids::HostId;
use livemerge_storage::{RemovalId, VolumeName};
use std::collections::BTreeMap;
use uuid::Uuid;

type Key<'a> = (String, &'a str);

pub(super) fn find(record: &Record, seen: &Seen) -> Vec<Finding> {
    let leaked = unreferenced(record, seen)
        .into_values()
        .filter_map(|(hosts, volume)| leak(record, seen, hosts, volume));
    leaked.chain(leftovers(record, seen)).collect()
}

/// The volumes about which ended operations are to be asked.
pub(in crate::consistency) fn suspects(record: &Record, seen: &Seen) -> Vec<Mark> {
    let unreferenced = unreferenced(record, seen).into_values();
    unreferenced
        .map(|(_, volume)| volume.mark.clone())
        .collect()
}

/// Volumes that nothing names, and the hosts that see each.
fn unreferenced<'a>(
    record: &'a Record,
    seen: &'a Seen,
) -> BTreeMap<Key<'a>, (Vec<HostId>, &'a VolumeSeen)> {
    let mut mentions = seen.mentions();
    record
        .volumes()
        .for_each(|volume| mentions.add(volume.name.as_str()));
    let mut found: BTreeMap<Key<'a>, (Vec<HostId>, &VolumeSeen)> = BTreeMap::new();
    for (host, here) in seen.known() {
        let listed = here.storages.values().filter_map(StorageSeen::listed);
        for volume in listed.flatten() {
            let is_layer = is_ours(&volume.mark.volume.name) || volume.parent.is_some();
            if is_layer && !mentions.name(&volume.mark) {
                let mark = &volume.mark;
                let key = (mark.volume.to_string(), mark.identity.as_str());
                let (hosts, _) = found.entry(key).or_insert_with(|| (vec![], volume));
                hosts.push(host.clone());
            }
        }
    }
    found
}

/// A UUID and a suffix, as `plan` names overlays.
fn is_ours(name: &VolumeName) -> bool {
    let uuid = name.as_str().strip_suffix(".qcow2");
    uuid.is_some_and(|uuid| uuid.len() == 36 && Uuid::try_parse(uuid).is_ok())
}

fn leak(record: &Record, seen: &Seen, hosts: Vec<HostId>, volume: &VolumeSeen) -> Option<Finding> {
    let mark = &volume.mark;
    let made_by = record.says_empty(mark);
    let remedy = match (seen.blind_spot(), made_by) {
        (Some(_), None) => return None,
        (Some(cause), Some(_)) => Remedy::Unclear(cause.clone()),
        (None, None) => Remedy::Nothing(
            "no operation of the record says what it holds: it may be the disk of a machine that is \
             not defined now; look at it, and remove it by hand if nobody needs it"
                .to_owned(),
        ),
        (None, Some(operation)) if seen.vm(operation.vm).is_none() => {
            let vm = operation.vm;
            Remedy::Nothing(format!(
                "its machine {vm} is on no host, and might be defined with it again"
            ))
        }
        (None, Some(_)) => remove(&hosts, mark),
    };
    let text = format!("nothing refers to {}", mark.volume);
    let bytes = volume.allocated_bytes;
    let severity = if is_ours(&mark.volume.name) {
        Severity::Warning
    } else {
        Severity::Info
    };
    let finding = Finding::new(Kind::LeakedVolume, severity, text, remedy)
        .on(hosts)
        .of_mark(mark)
        .detail("allocated_bytes", bytes);
    Some(match made_by {
        Some(made_by) => finding.of_vm(made_by.vm).detail("operation", made_by.id),
        None => finding,
    })
}

fn remove(hosts: &[HostId], mark: &Mark) -> Remedy {
    match hosts.first() {
        Some(host) => Remedy::Safe(Repair::RemoveVolume(host.clone(), mark.clone())),
        None => Remedy::Nothing("no host sees it".to_owned()),
    }
}

fn leftovers(record: &Record, seen: &Seen) -> Vec<Finding> {
    let mut found: BTreeMap<RemovalId, Finding> = BTreeMap::new();
    for (host, here) in seen.known() {
        let removals = here.storages.values().flat_map(|s| s.removals.iter());
        for removal in removals.flatten() {
            let kept = removal.keep_until.is_some_and(|until| seen.at < until);
            if kept || record.drives(removal.id, &removal.mark.volume) {
                continue;
            }
            let finding = found.entry(removal.id).or_insert_with(|| {
                let text = format!(
                    "{} is condemned, and nobody goes on with freeing it",
                    removal.mark.volume
                );
                let mark = removal.mark.clone();
                let repair = Repair::ResumeRemoval(host.clone(), removal.id, mark);
                let remedy = Remedy::Safe(repair);
                Finding::new(Kind::CondemnedLeftover, Severity::Warning, text, remedy)
                    .of_removal(removal.id)
                    .of_mark(&removal.mark)
            });
            finding.hosts.push(host.clone());
        }
    }
    found.into_values().collect()
}
