//! Findings, and what came of a repair.

use super::document::{VolumeDocument, given, set, sorted, volume};
use super::text::{escape, or_dash, size, word};
use super::{Detailed, Listed};
use livemerge_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
pub(crate) struct FindingDocument<'a> {
    id: &'a str,
    kind: String,
    severity: String,
    host_ids: &'a [String],
    vm_id: Option<&'a str>,
    snapshot_id: Option<&'a str>,
    volume: Option<VolumeDocument<'a>>,
    message: &'a str,
    details: BTreeMap<&'a str, &'a str>,
    repair: Option<String>,
    no_repair: Option<&'a str>,
}

impl Listed for v1::Finding {
    type Document<'a> = FindingDocument<'a>;

    const COLUMNS: &'static [&'static str] = &["FINDING", "SEVERITY", "KIND", "REPAIR", "MESSAGE"];

    fn document(&self) -> FindingDocument<'_> {
        FindingDocument {
            id: &self.id,
            kind: kind(self),
            severity: severity(self),
            host_ids: &self.host_ids,
            vm_id: given(&self.vm_id),
            snapshot_id: given(&self.snapshot_id),
            volume: volume(self.volume.as_ref()),
            message: &self.message,
            details: sorted(&self.details),
            repair: repair(self),
            no_repair: given(&self.no_repair),
        }
    }

    fn row(&self) -> Vec<String> {
        let message = match self.no_repair.as_str() {
            "" => escape(&self.message),
            why => format!("{}; {}", escape(&self.message), escape(why)),
        };
        vec![
            or_dash(&self.id),
            severity(self),
            kind(self),
            repair(self).unwrap_or_else(|| "-".to_owned()),
            message,
        ]
    }
}

fn kind(finding: &v1::Finding) -> String {
    word(finding.kind().as_str_name(), "FINDING_KIND_")
}

fn severity(finding: &v1::Finding) -> String {
    word(finding.severity().as_str_name(), "FINDING_SEVERITY_")
}

fn repair(finding: &v1::Finding) -> Option<String> {
    set(word(finding.repair().as_str_name(), "REPAIR_"))
}

/// What came of the repair of a finding.
#[derive(Debug)]
pub(crate) struct Repaired {
    /// The finding's id.
    pub(crate) finding_id: String,
    /// What the server answers.
    pub(crate) answer: v1::ApplyRepairResponse,
}

#[derive(Debug, Serialize)]
pub(crate) struct RepairedDocument<'a> {
    finding_id: &'a str,
    outcome: String,
    operation_id: Option<&'a str>,
    freed_bytes: i64,
}

impl Listed for Repaired {
    type Document<'a> = RepairedDocument<'a>;

    const COLUMNS: &'static [&'static str] = &["FINDING", "OUTCOME", "OPERATION", "FREED"];

    fn document(&self) -> RepairedDocument<'_> {
        RepairedDocument {
            finding_id: &self.finding_id,
            outcome: self.outcome(),
            operation_id: self.operation_id(),
            freed_bytes: self.answer.freed_bytes,
        }
    }

    fn row(&self) -> Vec<String> {
        let values = self.details().into_iter();
        values.map(|(_name, value)| value).collect()
    }
}

impl Detailed for Repaired {
    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("finding", or_dash(&self.finding_id)),
            ("outcome", self.outcome()),
            (
                "operation",
                or_dash(self.operation_id().unwrap_or_default()),
            ),
            ("freed", size(self.answer.freed_bytes)),
        ]
    }
}

impl Repaired {
    fn outcome(&self) -> String {
        word(self.answer.outcome().as_str_name(), "REPAIR_OUTCOME_")
    }

    fn operation_id(&self) -> Option<&str> {
        Some(self.answer.operation.as_ref()?.id.as_str())
    }
}
