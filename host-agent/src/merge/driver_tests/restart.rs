//! The agent ends and starts again with merges under way.

use super::*;
use crate::hypervisor::HypervisorError;

fn lost() -> HypervisorError {
    HypervisorError::Unknown("no answer".to_owned())
}

#[tokio::test]
async fn what_was_being_given_up_is_given_up_on() {
    let mut host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    for disk in [vda(), vdb()] {
        host.job(&disk).await;
    }
    // No abort arrives before the agent ends.
    for _ in 0..2 {
        host.qemu().fail_next("abort_job", lost());
    }
    host.merges.cancel(ids[0], GENERATION).await.unwrap();
    host.restart().await;
    for id in ids {
        assert!(cancelled(&host.ended(id).await));
    }
    for disk in [vda(), vdb()] {
        host.chain_is(&disk, 3);
    }
    host.guest_is_well();
}

#[tokio::test]
async fn a_group_goes_on_as_one() {
    let mut host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    host.copy(&vda()).await;
    host.until(ids[0], ready).await;
    host.job(&vdb()).await;
    host.restart().await;
    for disk in [vda(), vdb()] {
        host.looks(&disk).await;
    }
    let stops = |call: &Call| matches!(call, Call::Suspend(_) | Call::Pivot(..));
    assert_eq!(host.count(stops), 0, "the other one still copies");
    host.copy(&vdb()).await;
    host.switch(&vda()).await;
    host.switch(&vdb()).await;
    for id in ids {
        assert!(merged(&host.ended(id).await));
    }
    host.guest_is_well();
}

/// That one had failed is known after the restart, too.
#[tokio::test]
async fn who_lost_another_one_before_the_restart_is_given_up_after_it() {
    let mut host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    for disk in [vda(), vdb()] {
        host.job(&disk).await;
    }
    host.stop().await;
    host.qemu().cancel_job(host.vm, &vda());
    host.qemu()
        .fail_next("start_job", HypervisorError::Refused("no".to_owned()));
    host.start_again().await;
    let failed = host.ended(ids[0]).await;
    assert_eq!(failed_with(&failed), Some(Reason::MergeIoError));
    assert!(cancelled(&host.ended(ids[1]).await));
    host.guest_is_well();
}

/// That one had pivoted is known after the restart, too.
#[tokio::test]
async fn once_one_has_pivoted_the_rest_goes_forward_after_a_restart() {
    let mut host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    for disk in [vda(), vdb()] {
        host.copy(&disk).await;
    }
    host.switch(&vda()).await;
    // From here on the guest cannot be stopped, so the other one waits.
    for _ in 0..10_000 {
        let refused = HypervisorError::Refused("no".to_owned());
        host.qemu().fail_next("suspend", refused);
    }
    assert!(merged(&host.ended(ids[0]).await));
    host.restart().await;
    let refused = host.merges.cancel(ids[1], GENERATION).await.unwrap_err();
    assert_eq!(refused.reason, Reason::PointOfNoReturn);
    assert!(!host.phase(ids[1]).ended());
    host.guest_is_well();
}

/// Nobody was told that it is accepted.
#[tokio::test]
async fn a_half_written_group_is_forgotten() {
    let mut host = Host::new(&["vda", "vdb"]).await;
    // As behind another order: nothing of it is begun.
    let held = host.merges.lanes.of(host.vm).lock_owned().await;
    let orders = host.group(&["vda", "vdb"]);
    let ids: Vec<_> = orders.iter().map(|order| order.id).collect();
    host.merges.start(orders.clone()).await.unwrap();
    host.shutdown.cancel();
    drop(held);
    host.merges.stopped().await;
    let journal = host.state.path().join("merges");
    std::fs::remove_file(journal.join(format!("{}.merge", ids[1]))).unwrap();
    host.start_again().await;
    assert_eq!(host.merges.get(ids[0]), None);
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 0);
    assert_eq!(host.count(Call::mutates), 0);
    // Who ordered it does so again.
    host.merges.start(orders).await.unwrap();
    for disk in [vda(), vdb()] {
        host.copy(&disk).await;
    }
    host.switch(&vda()).await;
    host.switch(&vdb()).await;
    for id in ids {
        assert!(merged(&host.ended(id).await));
    }
}

/// What is asked of a merge that no driver has any more, and that has not ended.
#[tokio::test]
async fn an_agent_that_stops_promises_nothing() {
    let mut host = Host::new(&["vda"]).await;
    let id = host.started(&["vda"]).await[0];
    host.job(&vda()).await;
    host.stop().await;
    let cancelled_not = host.merges.cancel(id, GENERATION).await.unwrap_err();
    assert_eq!(cancelled_not.reason, Reason::ServerDraining);
    let limited_not = host.merges.limit(id, GENERATION, 1).await.unwrap_err();
    assert_eq!(limited_not.reason, Reason::ServerDraining);
    host.start_again().await;
    host.merges.cancel(id, GENERATION).await.unwrap();
    assert!(cancelled(&host.ended(id).await));
}
