//! Merges that are given up.

use super::*;

impl Host {
    async fn cancel(&self, merge: MergeId) -> Result<MergeView, Problem> {
        self.merges.cancel(merge, GENERATION).await
    }

    fn aborts(&self) -> usize {
        self.count(|call| matches!(call, Call::AbortJob(..)))
    }
}

#[tokio::test]
async fn a_copy_is_given_up_and_with_it_what_goes_together() {
    let host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    host.qemu().advance(host.vm, &vda(), 2);
    for disk in [vda(), vdb()] {
        host.job(&disk).await;
    }
    let asked = host.cancel(ids[0]).await.unwrap();
    assert!(matches!(asked.record.phase, Phase::Cancelling { .. }));
    for id in &ids {
        assert!(cancelled(&host.ended(*id).await));
    }
    // As often as wanted, without any effect.
    let (aborts, calls) = (host.aborts(), host.qemu().calls().len());
    assert_eq!(aborts, 2);
    for id in ids {
        assert!(cancelled(&host.cancel(id).await.unwrap().record.phase));
    }
    assert_eq!(host.qemu().calls().len(), calls);
    for disk in [vda(), vdb()] {
        host.chain_is(&disk, 3);
    }
    host.guest_is_well();
}

#[tokio::test]
async fn what_is_ready_is_given_up_too_and_a_new_order_is_accepted() {
    let host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    host.copy(&vda()).await;
    host.until(ids[0], ready).await;
    host.job(&vdb()).await;
    host.cancel(ids[0]).await.unwrap();
    for id in ids {
        assert!(cancelled(&host.ended(id).await));
    }
    for disk in [vda(), vdb()] {
        host.chain_is(&disk, 3);
    }
    host.guest_is_well();
    let again = host.started(&["vda"]).await;
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(again[0]).await));
    host.chain_is(&vda(), 1);
    host.guest_is_well();
}

#[tokio::test]
async fn a_commit_that_needs_no_pivot_is_given_up_while_it_copies() {
    let host = Host::new(&["vda"]).await;
    let order = host.commit(&vda(), 0, 1);
    let id = order.id;
    host.merges.start(vec![order]).await.unwrap();
    host.job(&vda()).await;
    host.cancel(id).await.unwrap();
    assert!(cancelled(&host.ended(id).await));
    host.chain_is(&vda(), 3);
    host.guest_is_well();
}

/// It does not wait for its turn to be given up.
#[tokio::test]
async fn what_waits_behind_another_order_is_given_up_at_once() {
    let host = Host::new(&["vda", "vdb", "vdc"]).await;
    let first = host.started(&["vda"]).await[0];
    host.job(&vda()).await;
    let ids = host.started(&["vdb", "vdc"]).await;
    let before = host.count(Call::mutates);
    let asked = host.cancel(ids[1]).await.unwrap();
    assert!(cancelled(&asked.record.phase));
    for id in ids {
        assert!(cancelled(&host.ended(id).await));
    }
    assert!(copies(&host.phase(first)));
    assert_eq!(host.count(Call::mutates), before);
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(first).await));
    for (disk, layers) in [(vda(), 1), (vdb(), 3)] {
        host.chain_is(&disk, layers);
    }
    host.guest_is_well();
}

#[tokio::test]
async fn there_is_no_way_back_from_a_pivot_for_any_of_them() {
    let host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    for disk in [vda(), vdb()] {
        host.copy(&disk).await;
    }
    host.switch(&vda()).await;
    assert!(merged(&host.ended(ids[0]).await));
    // While the other one is switched, or before; the driver answers when the guest runs again.
    let other = vdb();
    let (first, second, ()) = tokio::join!(
        host.cancel(ids[0]),
        host.cancel(ids[1]),
        host.switch(&other)
    );
    assert!(merged(&host.ended(ids[1]).await));
    let later = host.cancel(ids[1]).await;
    for refused in [first, second, later] {
        assert_eq!(refused.unwrap_err().reason, Reason::PointOfNoReturn);
    }
    assert_eq!(host.aborts(), 0);
    host.guest_is_well();
}

#[tokio::test]
async fn what_is_not_known_cannot_be_given_up() {
    let host = Host::new(&["vda"]).await;
    let unknown = MergeId::from(uuid::Uuid::now_v7());
    let refused = host.cancel(unknown).await.unwrap_err();
    assert_eq!(refused.reason, Reason::MergeNotFound);
    let id = host.started(&["vda"]).await[0];
    host.job(&vda()).await;
    host.merges.limit(id, GENERATION + 1, 0).await.unwrap();
    let stale = host.cancel(id).await.unwrap_err();
    assert_eq!(stale.reason, Reason::StaleGeneration);
    assert_eq!(host.aborts(), 0);
}

#[tokio::test]
async fn a_merge_that_has_failed_is_not_given_up_again() {
    let host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    for disk in [vda(), vdb()] {
        host.job(&disk).await;
    }
    host.qemu().fail_job(host.vm, &vda());
    let failed = host.ended(ids[0]).await;
    assert_eq!(host.cancel(ids[0]).await.unwrap().record.phase, failed);
    assert!(cancelled(&host.ended(ids[1]).await));
}

/// The reply is lost, or the call was: it is asked for until the job is gone.
#[tokio::test]
async fn an_abort_without_an_answer_is_repeated() {
    use HypervisorError::{Refused, Unknown};
    for lost in [Unknown("no answer".to_owned()), Refused("busy".to_owned())] {
        let host = Host::new(&["vda"]).await;
        let id = host.started(&["vda"]).await[0];
        host.job(&vda()).await;
        host.qemu().fail_next("abort_job", lost);
        host.cancel(id).await.unwrap();
        assert!(cancelled(&host.ended(id).await));
        assert_eq!(host.aborts(), 2);
        host.chain_is(&vda(), 3);
        host.guest_is_well();
    }
}

/// While it was being given up, QEMU was already done.
#[tokio::test]
async fn what_has_ended_by_itself_meanwhile_is_merged() {
    let host = Host::new(&["vda"]).await;
    let order = host.commit(&vda(), 0, 1);
    let id = order.id;
    host.merges.start(vec![order]).await.unwrap();
    host.job(&vda()).await;
    let lost = HypervisorError::Unknown("no answer".to_owned());
    host.qemu().fail_next("abort_job", lost);
    host.cancel(id).await.unwrap();
    host.qemu().advance(host.vm, &vda(), usize::MAX);
    assert!(merged(&host.ended(id).await));
    host.guest_is_well();
}
