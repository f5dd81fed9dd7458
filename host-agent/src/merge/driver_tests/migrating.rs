//! A machine on its way to another host.

use super::*;

#[tokio::test]
async fn no_merge_is_begun_on_a_machine_that_is_on_its_way() {
    let host = Host::new(&["vda"]).await;
    let order = || host.commit(&vda(), 1, 2);
    host.qemu().set_migrating(host.vm, true);
    let refused = host.merges.start(vec![order()]).await.unwrap_err();
    assert_eq!(refused.reason, Reason::VmMigrating);
    let unknown = HypervisorError::Unknown("hangs".to_owned());
    host.qemu().fail_next("migrates", unknown);
    let waits = host.merges.start(vec![order()]).await.unwrap_err();
    assert_eq!(waits.reason, Reason::HypervisorUnreachable);
    host.qemu().set_migrating(host.vm, false);
    host.merges.start(vec![order()]).await.unwrap();
    host.job(&vda()).await;
}

/// libvirt says so itself, between the look and the job's start.
#[tokio::test]
async fn a_machine_that_sets_out_before_the_job_starts_ends_the_merge_with_the_reason() {
    let host = Host::new(&["vda"]).await;
    let layers = host.chain_of(&vda()).len();
    let held = HypervisorError::Migrating("held by another job".to_owned());
    host.qemu().fail_next("start_job", held);
    let ids = host.started(&["vda"]).await;
    let ended = host.ended(ids[0]).await;
    assert_eq!(failed_with(&ended), Some(Reason::VmMigrating));
    host.chain_is(&vda(), layers);
}
