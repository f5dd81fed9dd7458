//! Findings and repairs for the wire.

use super::operation;
use crate::consistency::{Finding, Kind, Remedy, Repair, Repaired};
use crate::hosts::volume_ref;
use crate::snapshot::Severity;
use livemerge_proto::v1;

pub(super) fn finding(finding: Finding) -> v1::Finding {
    let (repair, no_repair) = match &finding.remedy {
        Remedy::Safe(repair) => (self::repair(repair), String::new()),
        Remedy::Nothing(why) => (v1::Repair::Unspecified, why.clone()),
        Remedy::Unclear(_) if finding.kind == Kind::Unknown => {
            (v1::Repair::Unspecified, "look again later".to_owned())
        }
        Remedy::Unclear(cause) => {
            let text = format!("what is safe cannot be told: {}", cause.message);
            (v1::Repair::Unspecified, text)
        }
    };
    let id = |id: Option<String>| id.unwrap_or_default();
    v1::Finding {
        id: finding.id().to_string(),
        kind: kind(finding.kind).into(),
        severity: severity(finding.severity).into(),
        host_ids: finding.hosts.iter().map(ToString::to_string).collect(),
        vm_id: id(finding.vm.map(|vm| vm.to_string())),
        snapshot_id: id(finding.snapshot.map(|snapshot| snapshot.to_string())),
        volume: finding.volume.as_ref().map(volume_ref),
        message: finding.message,
        details: finding.details.into_iter().collect(),
        repair: repair.into(),
        no_repair,
    }
}

pub(super) fn repaired(repaired: Repaired) -> v1::ApplyRepairResponse {
    use v1::RepairOutcome as Outcome;
    let (outcome, operation, freed_bytes) = match repaired {
        Repaired::Done { freed_bytes } => (Outcome::Done, None, freed_bytes),
        Repaired::GoesOn => (Outcome::Started, None, 0),
        Repaired::Started(view) => (Outcome::Started, Some(operation::operation(*view)), 0),
        Repaired::AlreadyGone => (Outcome::AlreadyGone, None, 0),
    };
    v1::ApplyRepairResponse {
        outcome: outcome.into(),
        operation,
        freed_bytes: i64::try_from(freed_bytes).unwrap_or(i64::MAX),
    }
}

fn kind(kind: Kind) -> v1::FindingKind {
    match kind {
        Kind::LeakedVolume => v1::FindingKind::LeakedVolume,
        Kind::CondemnedLeftover => v1::FindingKind::CondemnedLeftover,
        Kind::ChainUnknownToRecord => v1::FindingKind::ChainUnknownToRecord,
        Kind::RecordWithoutVolume => v1::FindingKind::RecordWithoutVolume,
        Kind::SnapshotNotInChain => v1::FindingKind::SnapshotNotInChain,
        Kind::SnapshotStuck => v1::FindingKind::SnapshotStuck,
        Kind::SnapshotIncomplete => v1::FindingKind::SnapshotIncomplete,
        Kind::JournalDamaged => v1::FindingKind::JournalDamaged,
        Kind::HeaderDiffersFromChain => v1::FindingKind::HeaderDiffersFromChain,
        Kind::Unknown => v1::FindingKind::Unknown,
    }
}

fn severity(severity: Severity) -> v1::FindingSeverity {
    match severity {
        Severity::Info => v1::FindingSeverity::Info,
        Severity::Warning => v1::FindingSeverity::Warning,
        Severity::Error => v1::FindingSeverity::Error,
    }
}

fn repair(repair: &Repair) -> v1::Repair {
    match repair {
        Repair::RemoveVolume(..) => v1::Repair::RemoveVolume,
        Repair::ResumeRemoval(..) => v1::Repair::ResumeRemoval,
        Repair::DeleteSnapshot(..) => v1::Repair::DeleteSnapshot,
        Repair::MarkIncomplete(_) => v1::Repair::MarkIncomplete,
        Repair::ForgetDisk(..) => v1::Repair::ForgetDisk,
    }
}
