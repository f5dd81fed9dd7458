//! How fast a merge's job may copy.

use super::*;
use crate::hypervisor::{Hypervisor as _, HypervisorError};

impl Host {
    fn speed(&self) -> Option<u64> {
        let job = self.qemu().running_job(self.vm, &vda());
        job.map(|job| job.speed)
    }

    /// A merge of `vda` whose job runs with this limit.
    async fn limited(&self, bytes_per_second: u64) -> MergeId {
        let mut order = self.commit(&vda(), 0, 2);
        order.bytes_per_second = bytes_per_second;
        let id = order.id;
        self.merges.start(vec![order]).await.unwrap();
        self.job(&vda()).await;
        id
    }

    async fn limit(&self, merge: MergeId, bytes_per_second: u64) -> Result<MergeView, Problem> {
        self.merges.limit(merge, GENERATION, bytes_per_second).await
    }
}

#[tokio::test]
async fn a_limit_holds_from_the_start_and_is_changed_while_it_copies() {
    let host = Host::new(&["vda"]).await;
    let id = host.limited(4096).await;
    assert_eq!(host.speed(), Some(4096));
    for changed in [8192, 8192, 0, 1] {
        let view = host.limit(id, changed).await.unwrap();
        assert_eq!(view.record.bytes_per_second, changed);
        assert_eq!(host.speed(), Some(changed));
    }
    assert_eq!(host.count(|call| matches!(call, Call::StartJob(..))), 1);
}

#[tokio::test]
async fn the_guest_never_stands_still_for_a_limited_job() {
    let host = Host::new(&["vda"]).await;
    let id = host.limited(4096).await;
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    let calls = host.qemu().calls();
    let place = |wanted: &dyn Fn(&Call) -> bool| calls.iter().position(wanted).unwrap();
    let lifted = place(&|call| *call == Call::SetSpeed(host.vm, vda(), 0));
    let stopped = place(&|call| matches!(call, Call::Suspend(_)));
    assert!(lifted < stopped);
    host.guest_is_well();
}

/// What was asked of the job: its speed, or a pivot.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Speed(u64),
    Pivot,
}

impl Host {
    /// With `merge.pivot = "running"`.
    async fn running() -> Self {
        let policy = Policy {
            pivot: PivotMode::Running,
            ..patient()
        };
        Self::with(&["vda"], policy).await
    }

    /// Waits until the pivot was put off, and lets it be time for the next try.
    async fn put_off(&self, merge: MergeId) {
        let put_off = || {
            let record = self.merges.get(merge).unwrap().record;
            record.pivot_attempts > 0 && ready(&record.phase)
        };
        eventually("that it is put off", put_off).await;
        self.clock.advance(jiff::SignedDuration::from_secs(1));
    }

    fn asked(&self) -> Vec<Asked> {
        let calls = self.qemu().calls().into_iter();
        let asked = calls.filter_map(|call| match call {
            Call::SetSpeed(_, _, speed) => Some(Asked::Speed(speed)),
            Call::Pivot(..) => Some(Asked::Pivot),
            _ => None,
        });
        asked.collect()
    }
}

fn refused() -> HypervisorError {
    HypervisorError::Refused("no".to_owned())
}

/// A guest that writes more than the limit lets copy would never be switched.
#[tokio::test]
async fn the_limit_is_lifted_for_a_guest_that_runs_through_its_pivot_and_set_again_when_put_off() {
    let host = Host::running().await;
    let id = host.limited(4096).await;
    host.qemu().fail_next("pivot", refused());
    host.copy(&vda()).await;
    host.put_off(id).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    use Asked::{Pivot, Speed};
    let wanted = [Speed(0), Pivot, Speed(4096), Speed(0), Pivot];
    assert_eq!(host.asked(), wanted);
    assert_eq!(host.count(|call| matches!(call, Call::Suspend(_))), 0);
    host.guest_is_well();
}

#[tokio::test]
async fn no_pivot_is_asked_for_under_a_limit_that_cannot_be_lifted() {
    let host = Host::running().await;
    let id = host.limited(4096).await;
    host.qemu().fail_next("set_speed", refused());
    host.copy(&vda()).await;
    host.put_off(id).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    use Asked::{Pivot, Speed};
    let wanted = [Speed(0), Speed(4096), Speed(0), Pivot];
    assert_eq!(host.asked(), wanted);
}

#[tokio::test]
async fn a_limited_job_whose_pivot_is_put_off_is_limited_again() {
    let host = Host::new(&["vda"]).await;
    let id = host.limited(4096).await;
    host.qemu().fail_next("pivot", refused());
    host.copy(&vda()).await;
    host.put_off(id).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    use Asked::{Pivot, Speed};
    let wanted = [Speed(0), Pivot, Speed(4096), Speed(0), Pivot];
    assert_eq!(host.asked(), wanted);
}

/// It ended before it could: the journal says that the limit may be lifted.
#[tokio::test]
async fn an_agent_that_starts_again_in_the_pivot_sets_the_limit_again() {
    let mut host = Host::running().await;
    let id = host.limited(4096).await;
    host.stop().await;
    let now = samples::now();
    let phase = Phase::Pivoting {
        window: Window::Intent,
        since: now,
        suspended_at: None,
    };
    let record = MergeRecord {
        phase,
        pivot_attempts: 1,
        ..host.merges.get(id).unwrap().record
    };
    let dir = host.state.path().join("merges");
    let (journal, _) = Journal::open(&dir, KEEP, now).unwrap();
    journal.write(&record).unwrap();
    host.copy(&vda()).await;
    host.qemu().set_speed(host.vm, &vda(), 0).await.unwrap();
    host.start_again().await;
    let limited = || host.asked().get(1) == Some(&Asked::Speed(4096));
    eventually("the limit", limited).await;
    host.put_off(id).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
}

/// The first start fails without a word; the job of the second one is as slow.
#[tokio::test]
async fn a_job_that_is_started_again_keeps_the_limit() {
    let host = Host::new(&["vda"]).await;
    let id = host.limited(4096).await;
    host.limit(id, 8192).await.unwrap();
    host.qemu().disconnect();
    host.qemu().cancel_job(host.vm, &vda());
    host.qemu().connect();
    let starts = || host.count(|call| matches!(call, Call::StartJob(..)));
    eventually("a second start", || starts() == 2).await;
    host.job(&vda()).await;
    assert_eq!(host.speed(), Some(8192));
}

#[tokio::test]
async fn an_agent_that_starts_again_knows_the_limit() {
    let mut host = Host::new(&["vda"]).await;
    let id = host.limited(4096).await;
    host.limit(id, 8192).await.unwrap();
    host.stop().await;
    host.qemu().cancel_job(host.vm, &vda());
    host.start_again().await;
    host.job(&vda()).await;
    assert_eq!(host.speed(), Some(8192));
    assert_eq!(host.merges.get(id).unwrap().record.bytes_per_second, 8192);
}

#[tokio::test]
async fn a_limit_of_what_waits_holds_when_it_begins() {
    let host = Host::new(&["vda", "vdb"]).await;
    let first = host.started(&["vdb"]).await[0];
    host.job(&vdb()).await;
    let order = host.commit(&vda(), 0, 2);
    let id = order.id;
    host.merges.start(vec![order]).await.unwrap();
    host.limit(id, 8192).await.unwrap();
    assert_eq!(host.count(|call| matches!(call, Call::SetSpeed(..))), 0);
    host.merges.cancel(first, GENERATION).await.unwrap();
    host.job(&vda()).await;
    assert_eq!(host.speed(), Some(8192));
}

#[tokio::test]
async fn what_has_ended_or_is_not_known_has_no_limit() {
    let host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    let unknown = MergeId::from(uuid::Uuid::now_v7());
    let refused = host.limit(unknown, 1).await.unwrap_err();
    assert_eq!(refused.reason, Reason::MergeNotFound);
    for disk in [vda(), vdb()] {
        host.copy(&disk).await;
    }
    host.switch(&vda()).await;
    host.switch(&vdb()).await;
    for id in &ids {
        assert!(merged(&host.ended(*id).await));
    }
    for id in ids {
        let refused = host.limit(id, 1).await.unwrap_err();
        assert_eq!(refused.reason, Reason::ConcurrentChange);
    }
}
