//! Room that a commit has left its volume is taken back once nobody can need it.

use super::*;
use crate::slack::{Looked, Slack};
use livemerge_storage::faulty::{self, Moment};
use std::collections::HashSet;

impl Host {
    /// One whose storage gives volumes their room, with the middle layer committed below the guest.
    async fn committed() -> Self {
        let host = Self::new(&["vda"]).await;
        host.rig.store.seem_provided();
        let order = host.commit(&vda(), 0, 1);
        let id = order.id;
        host.merges.start(vec![order]).await.unwrap();
        host.copy(&vda()).await;
        assert!(merged(&host.ended(id).await));
        host
    }

    fn slack(&self) -> Slack {
        Slack {
            merges: Arc::clone(&self.merges),
            hypervisor: self.rig.hypervisor(),
            volumes: Arc::clone(&self.rig.volumes),
        }
    }

    /// Two looks: what is off has to be so for a while.
    async fn look_twice(&self) -> Looked {
        let slack = self.slack();
        let first = slack.look(&HashSet::new()).await;
        slack.look(&first.off).await
    }

    fn stored(&self, call: faulty::Call) -> usize {
        let calls = self.rig.store.calls();
        calls.iter().filter(|done| **done == call).count()
    }

    async fn noted(&self) -> usize {
        self.merges.slack().await.len()
    }
}

#[tokio::test]
async fn it_is_taken_back_when_the_machine_is_off_and_not_before() {
    let mut host = Host::committed().await;
    host.look_twice().await;
    assert_eq!(host.stored(faulty::Call::Reduce), 0, "QEMU has it open");
    host.restart().await;
    host.qemu().kill_vm(host.vm);
    let off = host.slack().look(&HashSet::new()).await.off;
    assert_eq!(host.stored(faulty::Call::Reduce), 0, "it may be restarting");
    assert_eq!(off, HashSet::from([host.vm]));
    for _ in 0..2 {
        host.slack().look(&off).await;
        assert_eq!(host.stored(faulty::Call::Reduce), 1);
        assert_eq!(host.noted().await, 0);
    }
    assert!(host.stored(faulty::Call::Activate) > 0);
}

#[tokio::test]
async fn what_fails_is_tried_again_and_leaves_the_volume_for_the_next_start() {
    let host = Host::committed().await;
    host.qemu().kill_vm(host.vm);
    for moment in [Moment::Before, Moment::After] {
        host.rig.store.lose(faulty::Call::Reduce, moment);
        let active = host.stored(faulty::Call::Activate);
        assert!(host.look_twice().await.failed);
        assert_eq!(host.noted().await, 1);
        assert_eq!(host.stored(faulty::Call::Activate), active + 1);
    }
    assert!(!host.look_twice().await.failed);
    assert_eq!(host.noted().await, 0);
    assert_eq!(host.stored(faulty::Call::Reduce), 3);
}

#[tokio::test]
async fn a_machine_that_a_merge_works_on_keeps_its_room() {
    let host = Host::committed().await;
    host.qemu().kill_vm(host.vm);
    let lane = host.merges.lane(host.vm);
    let merging = lane.lock().await;
    host.look_twice().await;
    assert_eq!(host.stored(faulty::Call::Reduce), 0);
    drop(merging);
    host.look_twice().await;
    assert_eq!(host.stored(faulty::Call::Reduce), 1);
}

#[tokio::test]
async fn a_volume_that_became_the_active_one_keeps_its_room() {
    let host = Host::committed().await;
    // As after a merge of what was above it.
    host.qemu().remove_vm(host.vm);
    let base = [host.chain_of(&vda())[0].locator.clone()];
    assert_eq!(host.rig.machine(1, &base), host.vm);
    host.qemu().kill_vm(host.vm);
    host.look_twice().await;
    assert_eq!(host.stored(faulty::Call::Reduce), 0);
    assert_eq!(host.noted().await, 0);
}

#[tokio::test]
async fn a_machine_that_is_gone_holds_no_note() {
    let host = Host::committed().await;
    host.qemu().kill_vm(host.vm);
    host.qemu().remove_vm(host.vm);
    host.look_twice().await;
    assert_eq!(host.stored(faulty::Call::Reduce), 0);
    assert_eq!(host.noted().await, 0);
}

/// An earlier try may have stopped where the volume was not active: then nobody can open the chain.
#[tokio::test]
async fn a_machine_that_cannot_be_read_gets_its_volume_back() {
    let host = Host::committed().await;
    host.qemu().kill_vm(host.vm);
    host.qemu().disconnect();
    let active = host.stored(faulty::Call::Activate);
    host.look_twice().await;
    assert_eq!(host.stored(faulty::Call::Activate), active + 2);
    assert_eq!(host.stored(faulty::Call::Reduce), 0);
    host.qemu().connect();
    host.look_twice().await;
    assert_eq!(host.noted().await, 0);
}
