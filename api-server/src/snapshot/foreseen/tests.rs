//! What is foreseen.

use super::*;
use crate::snapshot::{Mark, MergeKind};
use livemerge_proto::ids::MergeId;
use uuid::Uuid;

/// A commit with nothing in it but this.
pub(in crate::snapshot) fn planned_task(
    round: u32,
    planned_bytes: u64,
    state: DiskState,
) -> DiskTask {
    let volume = livemerge_storage::VolumeRef {
        storage: "default".parse().unwrap(),
        name: "base.qcow2".parse().unwrap(),
    };
    DiskTask {
        disk: "vda".parse().unwrap(),
        round,
        kind: MergeKind::Commit,
        kept: Mark {
            volume,
            identity: "id".parse().unwrap(),
        },
        removed: vec![],
        deletes: vec![],
        merge: MergeId::from(Uuid::now_v7()),
        planned_bytes,
        foreseen: Foreseen::default(),
        state,
        told: Default::default(),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn rounds_follow_one_another_and_those_of_one_go_together() {
    let mut tasks = vec![
        planned_task(0, 100, DiskState::Pending),
        planned_task(0, 300, DiskState::Pending),
        planned_task(1, 200, DiskState::Pending),
    ];
    foresee_times(&mut tasks, Some(100), 0);
    let times: Vec<_> = tasks.iter().map(|task| task.foreseen.time).collect();
    assert_eq!(times, [1, 3, 2].map(|time| Some(seconds(time))));
    assert_eq!(time_of_all(&tasks), Some(seconds(5)));
    // A limit is of those that go together.
    foresee_times(&mut tasks, Some(100), 20);
    let times: Vec<_> = tasks.iter().map(|task| task.foreseen.time).collect();
    assert_eq!(times, [10, 30, 10].map(|time| Some(seconds(time))));
    foresee_times(&mut tasks, None, 20);
    assert_eq!(time_of_all(&tasks), None, "nothing was ever measured");
    assert_eq!(time_of_all(&[]), None);
}

#[test]
fn the_middle_of_the_newest_counts() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![7]), Some(7));
    assert_eq!(median(vec![1, 1_000_000, 5]), Some(5));
    let mut rates = vec![5; MERGES];
    rates.extend([1_000; 100]);
    assert_eq!(median(rates), Some(5), "what is older is forgotten");
}

#[tokio::test]
async fn a_host_is_as_fast_as_its_last_merges_were() {
    use crate::store::SqliteStore;
    use crate::store::conformance::records::{change, operation, request};
    let dir = tempfile::TempDir::new().unwrap();
    let store = SqliteStore::open(&dir.path().join("db")).await.unwrap();
    let hosts: [HostId; 3] = ["a", "b", "c"].map(|id| id.parse().unwrap());
    assert_eq!(rate_of(Some(&hosts[0]), &store).await.unwrap(), None);
    let removed = |copied_bytes, copy_time| DiskState::Removed {
        copied_bytes,
        longest_pause: Duration::ZERO,
        freed_bytes: 0,
        copy_time,
    };
    let of_a = [(1000, 10), (4000, 10), (9000, 10), (0, 10), (70, 0)];
    for (number, (host, figures)) in [(0, of_a.as_slice()), (1, &[(500, 1)])]
        .into_iter()
        .enumerate()
    {
        let tasks = figures
            .iter()
            .map(|(bytes, time)| planned_task(0, 1, removed(*bytes, seconds(*time))));
        let number = number as u64 + 1;
        let mut done = operation(number, number);
        done.host = Some(hosts[host].clone());
        done.work = Work::Delete(DeletePhase::Disks(tasks.collect()));
        store
            .accept(&request(number), &change(&done))
            .await
            .unwrap();
    }
    let mut rates = Vec::new();
    for host in &hosts {
        rates.push(rate_of(Some(host), &store).await.unwrap());
    }
    // The last one has merged nothing: in the middle of all others' is 500.
    assert_eq!(rates, [Some(400), Some(500), Some(500)]);
}
