//! What was not compared: hosts, machines and domains that do not answer, and what is in motion.

use crate::consistency::finding::{Finding, Kind, Remedy};
use crate::consistency::record::Record;
use crate::consistency::seen::{HostSeen, Seen, VmLook};
use crate::hosts::{Chain, UnsupportedDisk};
use crate::snapshot::{Severity, Snapshot};
use livemerge_proto::ids::{HostId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::StorageId;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn find(record: &Record, seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (host, here) in &seen.hosts {
        match here {
            Ok(here) => {
                findings.extend(storages(host, here));
                findings.extend(machines(host, here, record));
            }
            Err(cause) => {
                let finding = not_looked_at(&format!("host {host}"), cause);
                findings.push(finding.on([host.clone()]));
            }
        }
    }
    findings.extend(homeless(record, seen));
    findings.extend(domains_elsewhere(record, seen));
    findings.extend(in_motion(record));
    findings
}

fn not_looked_at(what: &str, cause: &Problem) -> Finding {
    let text = format!("{what} could not be looked at: {}", cause.message);
    let mut finding = Finding::new(
        Kind::Unknown,
        Severity::Warning,
        text,
        Remedy::Unclear(cause.clone()),
    );
    finding.details.clone_from(&cause.metadata);
    finding.detail("reason", cause.reason)
}

fn storages(host: &HostId, here: &HostSeen) -> Vec<Finding> {
    let causes = here.storages.iter().filter_map(|(id, storage)| {
        let volumes = storage.volumes.as_ref().err();
        Some((id, volumes.or(storage.removals.as_ref().err())?))
    });
    let findings = causes.map(|(id, cause)| {
        let what = format!("storage domain {id} of host {host}");
        not_looked_at(&what, cause)
            .on([host.clone()])
            .detail("storage", id)
    });
    findings.collect()
}

fn machines(host: &HostId, here: &HostSeen, record: &Record) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (vm, look) in &here.vms {
        let about = |finding: Finding| finding.on([host.clone()]).of_vm(*vm);
        match &look.chains {
            Err(cause) => {
                let what = format!("virtual machine {} ({vm})", look.name);
                findings.push(about(not_looked_at(&what, cause)));
            }
            // Said already, with the operation whose job it is.
            Ok(_) if record.works_on(*vm).is_some() => {}
            Ok(chains) => {
                let others = look.unsupported.iter();
                findings.extend(others.map(|other| about(unsupported(look, other))));
                let jobs = chains.iter().filter(|chain| chain.job_running);
                findings.extend(jobs.map(|chain| about(job(look, chain))));
            }
        }
    }
    findings
}

fn job(look: &VmLook, chain: &Chain) -> Finding {
    let text = format!(
        "a block job runs on disk {} of {}: its chain was not compared",
        chain.disk, look.name
    );
    moves(text).of_disk(&chain.disk)
}

/// Its chain is told by nobody, so nothing is known of its layers.
fn unsupported(look: &VmLook, disk: &UnsupportedDisk) -> Finding {
    let refusal = disk.refusal();
    let text = format!(
        "disk {} of {} {}: its chain was not compared",
        disk.disk, look.name, disk.why
    );
    let reason = refusal.reason;
    Finding::new(
        Kind::Unknown,
        Severity::Info,
        text,
        Remedy::Unclear(refusal),
    )
    .of_disk(&disk.disk)
    .detail("reason", reason)
}

/// Something is being done, so a difference would mean nothing.
fn moves(text: String) -> Finding {
    let cause = Problem::new(Reason::ConcurrentChange, text.clone());
    Finding::new(Kind::Unknown, Severity::Info, text, Remedy::Unclear(cause))
        .detail("reason", Reason::ConcurrentChange)
}

/// Machines with snapshots that no host shows.
fn homeless(record: &Record, seen: &Seen) -> Vec<Finding> {
    let vms: BTreeSet<VmId> = record.snapshots.iter().map(|s| s.vm).collect();
    let unseen = vms.into_iter().filter(|vm| seen.vm(*vm).is_none());
    let findings = unseen.map(|vm| {
        let text = format!("no host that answers has virtual machine {vm}");
        let cause = Problem::new(Reason::VmStateUnknown, text);
        not_looked_at(&format!("virtual machine {vm}"), &cause).of_vm(vm)
    });
    findings.collect()
}

/// Domains that snapshots name and their machines' hosts do not have.
fn domains_elsewhere(record: &Record, seen: &Seen) -> Vec<Finding> {
    let mut found: BTreeMap<(VmId, &StorageId), Finding> = BTreeMap::new();
    for snapshot in &record.snapshots {
        let Some((host, here, _)) = seen.vm(snapshot.vm) else {
            continue;
        };
        for storage in missing(snapshot, here) {
            found.entry((snapshot.vm, storage)).or_insert_with(|| {
                let text = format!("host {host} has no storage domain {storage}");
                let cause = Problem::new(Reason::VolumeNotFound, text);
                not_looked_at(&format!("storage domain {storage}"), &cause)
                    .on([host.clone()])
                    .of_vm(snapshot.vm)
                    .detail("storage", storage)
            });
        }
    }
    found.into_values().collect()
}

fn missing<'a>(snapshot: &'a Snapshot, here: &'a HostSeen) -> impl Iterator<Item = &'a StorageId> {
    let storages = snapshot.disks.iter().map(|disk| &disk.volume.storage);
    storages.filter(|storage| !here.storages.contains_key(*storage))
}

/// Machines that an operation may have changed during the look.
fn in_motion(record: &Record) -> Vec<Finding> {
    let vms: BTreeSet<VmId> = record.at_work.iter().map(|o| o.vm).collect();
    let findings = vms.into_iter().filter_map(|vm| {
        let operation = record.works_on(vm)?;
        let text = format!(
            "operation {} works on virtual machine {vm}: its chains were not compared",
            operation.id
        );
        let finding = moves(text).of_vm(vm).detail("operation", operation.id);
        Some(finding.on(operation.host.clone()))
    });
    findings.collect()
}
