//! A guest that stands still because its active layer has no room left.

use super::*;

/// The kept volume has the room that the guest wants: the pivot is what lets it go on.
#[tokio::test]
async fn a_guest_out_of_room_is_switched_and_goes_on() {
    let host = Host::new(&["vda"]).await;
    let ids = host.started(&["vda"]).await;
    host.job(&vda()).await;
    host.qemu().run_out_of_room(host.vm, &vda());
    host.copy(&vda()).await;
    let asked = |call: &Call| matches!(call, Call::Pivot(..));
    eventually("the pivot", || host.count(asked) == 1).await;
    // Whoever gives it room meanwhile does not let it run in the middle of the pivot.
    host.qemu().resume_if_lacks_room(host.vm).await.unwrap();
    let state = || host.qemu().peek(host.vm).expect("it is defined").state;
    assert_eq!(state(), VmState::Paused);
    host.switch(&vda()).await;
    assert!(merged(&host.ended(ids[0]).await));
    host.guest_is_well();
    host.chain_is(&vda(), 1);
}

/// Until the other disk has caught up it may be given room, and let run.
#[tokio::test]
async fn a_guest_out_of_room_may_be_let_run_until_it_is_switched() {
    let host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    host.copy(&vda()).await;
    host.until(ids[0], ready).await;
    host.qemu().run_out_of_room(host.vm, &vda());
    host.looks(&vda()).await;
    let shown = host.merges.get(ids[0]).unwrap().waiting.unwrap();
    assert_eq!(shown.cause.reason, Reason::InsufficientSpace);
    host.qemu().resume_if_lacks_room(host.vm).await.unwrap();
    let state = host.qemu().peek(host.vm).expect("it is defined").state;
    assert_eq!(state, VmState::Running);
    host.copy(&vdb()).await;
    for disk in [vda(), vdb()] {
        host.switch(&disk).await;
    }
    for id in ids {
        assert!(merged(&host.ended(id).await));
    }
    host.guest_is_well();
}
