//! An intermediate commit whose QEMU dies when the overlay above names the base already, and the
//! base has not got what was committed.

use super::pull::restores;
use super::*;

impl Host {
    /// The middle layer goes into the base, below the one that the guest writes. Begun.
    async fn commits(&self) -> MergeId {
        let order = self.commit(&vda(), 0, 1);
        let id = order.id;
        self.merges.start(vec![order]).await.unwrap();
        self.job(&vda()).await;
        self.looks(&vda()).await;
        id
    }

    fn dies_at_the_end(&self) {
        assert!(self.qemu().dies_at_the_end(self.vm, &vda()));
        assert_ne!(self.next_start_reads(), self.written(), "it is lost");
    }

    /// After the death, the disk is as before the merge, and can be merged.
    async fn is_whole_and_commits_again(&self) {
        assert_eq!(self.next_start_reads(), self.written());
        self.chain_is(&vda(), 3);
        self.qemu().start_vm(self.vm).unwrap();
        let again = self.commits().await;
        self.copy(&vda()).await;
        assert!(merged(&self.ended(again).await));
        self.guest_is_well();
    }
}

/// The guest's data are in the middle layer, so that there is something to commit.
async fn host() -> Host {
    let host = Host::new(&["vda"]).await;
    let [_, middle, top] = host.chain_of(&vda()) else {
        panic!("a base and two overlays")
    };
    let images = host.qemu().images();
    images.create(&top.locator, Some(&middle.locator));
    for block in 0..WRITTEN {
        images.write(&middle.locator, block, 7 + block);
    }
    host.guest_is_well();
    host
}

#[tokio::test]
async fn a_machine_that_dies_there_gets_its_chain_back() {
    let host = host().await;
    let id = host.commits().await;
    host.dies_at_the_end();
    assert_eq!(failed_with(&host.ended(id).await), Some(Reason::VmDied));
    assert_eq!(host.count(restores), 1);
    host.is_whole_and_commits_again().await;
}

#[tokio::test]
async fn it_gets_it_back_from_an_agent_that_was_down() {
    let mut host = host().await;
    let id = host.commits().await;
    let ended = host.ends_while_away(id, Host::dies_at_the_end).await;
    assert_eq!(failed_with(&ended), Some(Reason::VmDied));
    host.is_whole_and_commits_again().await;
}

#[tokio::test]
async fn a_machine_that_was_started_without_the_data_is_not_merged() {
    let mut host = host().await;
    let id = host.commits().await;
    let starts_again = |host: &Host| {
        host.dies_at_the_end();
        host.qemu().start_vm(host.vm).unwrap();
    };
    let before = host.count(Call::mutates);
    let ended = host.ends_while_away(id, starts_again).await;
    assert_eq!(failed_with(&ended), Some(Reason::ChainLacksData));
    assert_eq!(host.count(Call::mutates), before, "nothing is touched");
}

/// Seen in the QEMU that did it, it is merged, whatever becomes of that one.
#[tokio::test]
async fn once_it_was_seen_qemu_may_die() {
    let host = host().await;
    let id = host.commits().await;
    host.copy(&vda()).await;
    host.until(id, |phase| !matches!(phase, Phase::Copying { .. }))
        .await;
    host.qemu().kill_vm(host.vm);
    assert!(merged(&host.ended(id).await));
    assert_eq!(host.count(restores), 0);
    assert_eq!(host.next_start_reads(), host.written());
}
