//! Where the bytes lie that open merges copy: from how far a job has come, what it has copied.
//!
//! Only the jobs that go through the virtual disk need it, intermediate commits and pulls. Active
//! and offline commits count their bytes themselves. It is measured when a merge is accepted, kept
//! in memory alone, and measured again after a restart. While it is, nothing new is said of the
//! progress; what cannot be measured counts as spread evenly.

use super::bytes::measure;
use super::types::{MergeKind, MergeRecord};
use crate::hypervisor::JobProgress;
use crate::volumes::Volumes;
use livemerge_proto::ids::MergeId;
use livemerge_storage::{Profile, VolumeRef};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Nobody waits for it: a map that takes longer to read is done without.
const MAP_LIMIT: Duration = Duration::from_secs(60);

/// Of all open merges. Clones have the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Layouts(Arc<Mutex<HashMap<MergeId, Option<Profile>>>>);

impl Layouts {
    pub(super) fn put(&self, merge: MergeId, profile: Profile) {
        self.lock().insert(merge, Some(profile));
    }

    pub(super) fn forget(&self, merge: MergeId) {
        self.lock().remove(&merge);
    }

    /// Bytes that the job has copied, and all that it has to. `None` while that is being measured.
    pub(super) fn copied(&self, record: &MergeRecord, job: &JobProgress) -> Option<(u64, u64)> {
        let all = record.copy_bytes;
        match record.kind {
            MergeKind::ActiveCommit => return Some((job.cur, job.end)),
            _ if job.end > 0 && job.cur >= job.end => return Some((all, all)),
            MergeKind::OfflineCommit => {}
            MergeKind::Commit | MergeKind::Pull => {
                if let Some(profile) = self.lock().get(&record.order.id) {
                    // From what is left: what a pull had copied before it was measured again is no
                    // longer below.
                    let profile = profile.as_ref()?;
                    let left = profile.total() - profile.before(job.cur);
                    return Some((all.saturating_sub(left), all));
                }
            }
        }
        Some((scaled(all, job.cur, job.end), all))
    }

    /// From now on it is being measured.
    pub(super) fn expect(&self, merge: MergeId) {
        self.lock().insert(merge, None);
    }

    /// Reads off the maps again where the bytes lie that an earlier process began to copy.
    pub(super) async fn restore(self, record: MergeRecord, volumes: Arc<Volumes>) {
        let marks = record.order.layers();
        let layers: Vec<&VolumeRef> = marks.iter().map(|mark| &mark.volume).collect();
        let works = measure(&layers, &volumes, MAP_LIMIT).await;
        let profile = works.map(|works| works.profile(record.order.direction));
        // A merge that has ended meanwhile expects nothing any more.
        if let Entry::Occupied(mut expected) = self.lock().entry(record.order.id) {
            match profile {
                Some(profile) => {
                    expected.insert(Some(profile));
                }
                None => {
                    expected.remove();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MergeId, Option<Profile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether where its bytes lie is worth knowing.
pub(super) fn is_needed(record: &MergeRecord) -> bool {
    matches!(record.kind, MergeKind::Commit | MergeKind::Pull) && !record.phase.ended()
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
            let record = MergeRecord {
                kind,
                copy_bytes: 8 * MIB,
                ..record(false)
            };
            let layouts = Layouts::default();
            let copied = |cur| layouts.copied(&record, &at(cur)).unwrap().0 / MIB;
            assert_eq!([0, 50, 100].map(copied), [0, 4, 8], "spread evenly");
            let mut profile = Profile::default();
            profile.add(92 * MIB, 8 * MIB);
            layouts.put(record.order.id, profile);
            let wanted = [0, 0, 0, 4, 8];
            assert_eq!([0, 50, 92, 96, 100].map(copied), wanted);
            layouts.forget(record.order.id);
            assert_eq!(copied(50), 4);
        }
    }

    #[test]
    fn after_a_restart_only_what_is_left_is_seen() {
        let record = MergeRecord {
            kind: MergeKind::Pull,
            copy_bytes: 8 * MIB,
            ..record(false)
        };
        let layouts = Layouts::default();
        layouts.expect(record.order.id);
        assert_eq!(layouts.copied(&record, &at(50)), None, "not measured yet");
        let mut left = Profile::default();
        left.add(90 * MIB, 2 * MIB);
        layouts.put(record.order.id, left);
        let copied = |cur| layouts.copied(&record, &at(cur)).unwrap().0 / MIB;
        assert_eq!([50, 91, 92].map(copied), [6, 7, 8]);
    }

    #[test]
    fn who_counts_its_bytes_itself_is_believed() {
        let layouts = Layouts::default();
        let active = record(true);
        let mut profile = Profile::default();
        profile.add(0, MIB);
        layouts.put(active.order.id, profile);
        assert_eq!(
            layouts.copied(&active, &at(30)),
            Some((30 * MIB, 100 * MIB))
        );
        let offline = MergeRecord {
            kind: MergeKind::OfflineCommit,
            copy_bytes: 10 * MIB,
            ..active
        };
        assert_eq!(layouts.copied(&offline, &at(30)), Some((3 * MIB, 10 * MIB)));
    }
}
