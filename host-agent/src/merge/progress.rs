//! How many bytes a merge has copied, from how far its job has come.
//!
//! Intermediate commits and pulls go through the virtual disk: where on it the bytes lie was read
//! when the merge was accepted, and is kept with its record. What could not be read counts as spread
//! evenly. Active and offline commits count their bytes themselves.

use super::types::{MergeKind, MergeRecord};
use crate::hypervisor::JobProgress;

/// Bytes that the job has copied, and all that it has to.
pub(super) fn copied(record: &MergeRecord, job: &JobProgress) -> (u64, u64) {
    let all = record.copy_bytes;
    match (record.kind, &record.profile) {
        (MergeKind::ActiveCommit, _) => (job.cur, job.end),
        _ if job.end > 0 && job.cur >= job.end => (all, all),
        (MergeKind::Commit | MergeKind::Pull, Some(profile)) => {
            (profile.before(job.cur).min(all), all)
        }
        _ => (scaled(all, job.cur, job.end), all),
    }
}

/// `bytes * cur / end`, 0 before the job has begun.
fn scaled(bytes: u64, cur: u64, end: u64) -> u64 {
    if end == 0 {
        return 0;
    }
    let part = u128::from(bytes) * u128::from(cur.min(end)) / u128::from(end);
    u64::try_from(part).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::samples::record;
    use super::*;
    use crate::hypervisor::BlockJobKind;
    use livemerge_storage::Profile;

    const MIB: u64 = 1 << 20;

    fn at(cur: u64) -> JobProgress {
        JobProgress {
            kind: BlockJobKind::Commit,
            cur: cur * MIB,
            end: 100 * MIB,
        }
    }

    #[test]
    fn what_lies_at_the_end_is_copied_at_the_end() {
        for kind in [MergeKind::Commit, MergeKind::Pull] {
            let mut record = MergeRecord {
                kind,
                copy_bytes: 8 * MIB,
                ..record(false)
            };
            let mib = |record: &MergeRecord, cur| copied(record, &at(cur)).0 / MIB;
            let evenly = [0, 50, 100].map(|cur| mib(&record, cur));
            assert_eq!(evenly, [0, 4, 8]);
            let mut profile = Profile::default();
            profile.add(92 * MIB, 8 * MIB);
            record.profile = Some(profile);
            let by_place = [0, 50, 92, 96, 100].map(|cur| mib(&record, cur));
            assert_eq!(by_place, [0, 0, 0, 4, 8]);
        }
    }

    #[test]
    fn who_counts_its_bytes_itself_is_believed() {
        let mut profile = Profile::default();
        profile.add(0, MIB);
        let active = MergeRecord {
            profile: Some(profile),
            ..record(true)
        };
        assert_eq!(copied(&active, &at(30)), (30 * MIB, 100 * MIB));
        let offline = MergeRecord {
            kind: MergeKind::OfflineCommit,
            copy_bytes: 10 * MIB,
            ..active
        };
        assert_eq!(copied(&offline, &at(30)), (3 * MIB, 10 * MIB));
    }
}
