//! Record against sight: pure, and the same for the same arguments.
//!
//! ```text
//!   volumes    what lies in storage and nobody refers to; removals that nobody drives
//!   chains     the layers of each disk against snapshots and headers
//!   snapshots  the states that no operation stands behind
//!   journals   merges of which an agent has lost the journal
//!   unknown    what could not be looked at
//! ```

mod chains;
mod journals;
mod snapshots;
mod unknown;
mod volumes;

use super::finding::Finding;
use super::record::Record;
use super::seen::Seen;
pub(super) use volumes::suspects;

/// All differences, the gravest first, in an order that stays.
pub fn compare(record: &Record, seen: &Seen) -> Vec<Finding> {
    let mut findings = unknown::find(record, seen);
    findings.extend(volumes::find(record, seen));
    findings.extend(chains::find(record, seen));
    findings.extend(snapshots::find(record, seen));
    findings.extend(journals::find(seen));
    findings.sort_by_cached_key(|finding| {
        let gravest_first = std::cmp::Reverse(finding.severity as u8);
        (gravest_first, finding.kind, finding.vm, finding.id())
    });
    findings
}
