//! A pull whose QEMU dies before it has written out what it pulled.

use super::*;
use crate::hypervisor::HypervisorError;

impl Host {
    /// Everything below the layer that the guest writes, pulled into it.
    fn pull(&self) -> MergeOrder {
        let mut order = self.commit(&vda(), 0, 2);
        let kept = order.removed.pop().expect("two are removed");
        let base = std::mem::replace(&mut order.kept, kept);
        order.removed.insert(0, base);
        order.direction = Direction::Pull;
        order
    }

    /// Begun.
    async fn pulls(&self) -> MergeId {
        let order = self.pull();
        let id = order.id;
        self.merges.start(vec![order]).await.unwrap();
        self.job(&vda()).await;
        self.looks(&vda()).await;
        id
    }

    /// The job ends and QEMU dies, before anybody hears of the one or the other.
    fn completes_and_dies(&self) {
        self.qemu().advance(self.vm, &vda(), usize::MAX);
        assert_eq!(self.qemu().running_job(self.vm, &vda()), None);
        self.qemu().kill_vm(self.vm);
        assert_ne!(self.next_start_reads(), self.written(), "it is lost");
    }

    /// How the merge ends, of which the agent sees nothing before all this has happened.
    pub(super) async fn ends_while_away(&mut self, id: MergeId, happens: impl Fn(&Self)) -> Phase {
        self.stop().await;
        happens(self);
        self.start_again().await;
        self.ended(id).await
    }

    pub(super) fn next_start_reads(&self) -> Vec<Option<u64>> {
        let top = &self.chain_of(&vda())[2].locator;
        let read = |block| self.qemu().images().read(top, block);
        (0..WRITTEN).map(read).collect()
    }

    pub(super) fn written(&self) -> Vec<Option<u64>> {
        (0..WRITTEN).map(|block| Some(7 + block)).collect()
    }

    /// After the death, the disk is as before the merge, and can be merged.
    async fn is_whole_and_pulls_again(&self) {
        assert_eq!(self.next_start_reads(), self.written());
        self.chain_is(&vda(), 3);
        self.qemu().start_vm(self.vm).unwrap();
        let again = self.pulls().await;
        self.copy(&vda()).await;
        assert!(merged(&self.ended(again).await));
        self.guest_is_well();
        self.qemu().kill_vm(self.vm);
        assert_eq!(self.next_start_reads(), self.written());
    }
}

/// The guest's data are in the base, so that there is something to pull.
async fn host() -> Host {
    let host = Host::new(&["vda"]).await;
    let base = &host.chain_of(&vda())[0].locator;
    let top = &host.chain_of(&vda())[2].locator;
    let images = host.qemu().images();
    images.create(top, Some(&host.chain_of(&vda())[1].locator));
    for block in 0..WRITTEN {
        images.write(base, block, 7 + block);
    }
    host.guest_is_well();
    host
}

pub(super) fn restores(call: &Call) -> bool {
    matches!(call, Call::RestoreBacking(..))
}

#[tokio::test]
async fn a_machine_that_dies_too_soon_gets_its_chain_back() {
    let host = host().await;
    let id = host.pulls().await;
    host.completes_and_dies();
    assert_eq!(failed_with(&host.ended(id).await), Some(Reason::VmDied));
    assert_eq!(host.count(restores), 1);
    host.is_whole_and_pulls_again().await;
}

#[tokio::test]
async fn what_the_guest_wrote_meanwhile_stays() {
    let host = host().await;
    let id = host.pulls().await;
    host.qemu().advance(host.vm, &vda(), usize::MAX);
    assert!(host.qemu().guest_write(host.vm, &vda(), 1, 99));
    host.qemu().kill_vm(host.vm);
    assert_eq!(failed_with(&host.ended(id).await), Some(Reason::VmDied));
    let wanted: Vec<_> = [7, 99, 9, 10, 11].map(Some).into();
    assert_eq!(host.next_start_reads(), wanted);
}

#[tokio::test]
async fn it_is_restored_by_an_agent_that_was_down() {
    let mut host = host().await;
    let id = host.pulls().await;
    let ended = host.ends_while_away(id, Host::completes_and_dies).await;
    assert_eq!(failed_with(&ended), Some(Reason::VmDied));
    host.is_whole_and_pulls_again().await;
}

#[tokio::test]
async fn a_restoration_that_goes_wrong_is_repeated() {
    let mut host = host().await;
    let id = host.pulls().await;
    for error in [
        HypervisorError::Unknown("no answer".to_owned()),
        HypervisorError::Refused("it is open".to_owned()),
        HypervisorError::Unknown("no answer".to_owned()),
    ] {
        host.qemu().fail_next("restore_backing", error);
    }
    host.qemu().lose_reply("restore_backing");
    host.completes_and_dies();
    host.until(id, |phase| matches!(phase, Phase::Restoring { .. }))
        .await;
    host.restart().await;
    assert_eq!(failed_with(&host.ended(id).await), Some(Reason::VmDied));
    assert_eq!(host.count(restores), 4);
    host.is_whole_and_pulls_again().await;
}

#[tokio::test]
async fn a_machine_that_was_started_without_the_data_is_not_merged() {
    let mut host = host().await;
    let id = host.pulls().await;
    let starts_again = |host: &Host| {
        host.completes_and_dies();
        host.qemu().start_vm(host.vm).unwrap();
    };
    let before = host.count(Call::mutates);
    let ended = host.ends_while_away(id, starts_again).await;
    assert_eq!(failed_with(&ended), Some(Reason::ChainLacksData));
    assert_eq!(host.count(Call::mutates), before, "nothing is touched");
}

/// What was written out is merged, whichever QEMU runs.
#[tokio::test]
async fn once_the_guest_stood_still_qemu_may_die() {
    let host = host().await;
    let id = host.pulls().await;
    // The guest does not run again before the merge is written down as done.
    host.qemu()
        .fail_next("resume", HypervisorError::Unknown("no answer".to_owned()));
    host.qemu().advance(host.vm, &vda(), usize::MAX);
    host.until(id, |phase| matches!(phase, Phase::Verifying { .. }))
        .await;
    host.qemu().kill_vm(host.vm);
    assert!(merged(&host.ended(id).await));
    assert_eq!(host.count(restores), 0);
    assert_eq!(host.next_start_reads(), host.written());
}
