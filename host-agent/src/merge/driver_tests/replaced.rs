//! A newer agent of the same host has taken over, with a copy of the directory.

use super::*;

#[tokio::test]
async fn an_agent_that_was_replaced_leaves_its_merges_to_the_newer_one() {
    let host = Host::new(&["vda"]).await;
    let order = host.commit(&vda(), 0, 2);
    let id = order.id;
    host.merges.start(vec![order.clone()]).await.unwrap();
    host.job(&vda()).await;
    host.tenure.replaced();
    assert!(host.tenure.is_over());
    host.merges.stopped().await;
    let file = host.state.path().join("merges").join(format!("{id}.merge"));
    let story = std::fs::read(&file).unwrap();

    let theirs = tempfile::tempdir().unwrap();
    std::fs::create_dir(theirs.path().join("merges")).unwrap();
    let copy = theirs.path().join("merges").join(format!("{id}.merge"));
    std::fs::copy(&file, copy).unwrap();
    let shutdown = Shutdown::new();
    let (rig, policy, clock) = (&host.rig, &host.policy, &host.clock);
    let (newer, _) = open(rig, theirs.path(), policy, clock, &shutdown).await;
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    let mut board = newer.watch();
    let is_merged = |views: &Views| merged(&views[&id].record.phase);
    let done = tokio::time::timeout(PATIENCE, board.wait_for(is_merged)).await;
    drop(done.expect("the newer one merges").unwrap());

    assert_eq!(
        std::fs::read(&file).unwrap(),
        story,
        "the older one is done"
    );
    assert!(copies(&host.phase(id)));
    let stops = host.count(|call| matches!(call, Call::Suspend(_)));
    let runs = host.count(|call| matches!(call, Call::Resume(_)));
    assert_eq!((stops, runs), (1, 1), "by the newer one");
    let refusals = [
        host.merges.start(vec![order]).await.unwrap_err(),
        host.merges.cancel(id, GENERATION + 1).await.unwrap_err(),
        host.merges.limit(id, GENERATION, 1).await.unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(refused.reason, Reason::StaleGeneration);
    }
    host.guest_is_well();
}

/// Nobody else would know that it is this one that has stopped the guest.
#[tokio::test]
async fn an_agent_that_is_replaced_in_the_pivot_lets_the_guest_run_first() {
    let host = Host::new(&["vda"]).await;
    let id = host.started(&["vda"]).await[0];
    host.copy(&vda()).await;
    let asked = || host.qemu().running_job(host.vm, &vda()).unwrap().asked;
    eventually("the pivot", asked).await;
    host.tenure.replaced();
    host.looks(&vda()).await;
    let machine = host.qemu().peek(host.vm).unwrap();
    assert_eq!(machine.state, VmState::Paused, "QEMU may switch now");
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    host.merges.stopped().await;
    host.guest_is_well();
}
