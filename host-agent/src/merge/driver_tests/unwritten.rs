//! The journal cannot be written while the guest stands still.

use super::*;
use std::fs;

impl Host {
    /// From now on the journal of a merge cannot be written.
    fn lose_journal(&self, merge: MergeId) {
        let file = self.journal_of(merge);
        fs::rename(&file, file.with_extension("away")).unwrap();
        fs::create_dir(file).unwrap();
    }

    fn find_journal(&self, merge: MergeId) {
        let file = self.journal_of(merge);
        fs::remove_dir(&file).unwrap();
        fs::rename(file.with_extension("away"), file).unwrap();
    }

    fn journal_of(&self, merge: MergeId) -> PathBuf {
        let dir = self.state.path().join("merges");
        dir.join(format!("{merge}.merge"))
    }

    /// A merge whose pivot was asked for, and whose journal is lost since.
    async fn asked_and_lost(&self) -> MergeId {
        let id = self.started(&["vda"]).await[0];
        self.copy(&vda()).await;
        let asked = || self.qemu().running_job(self.vm, &vda()).unwrap().asked;
        eventually("the pivot", asked).await;
        self.lose_journal(id);
        id
    }

    fn state(&self) -> VmState {
        self.qemu().peek(self.vm).expect("it is defined").state
    }

    /// How often the journal was tried without success.
    fn tries(&self, merge: MergeId) -> u32 {
        let waiting = self.merges.get(merge).unwrap().waiting;
        let waiting = waiting.filter(|it| it.cause.reason == Reason::StoreUnavailable);
        waiting.map_or(0, |it| it.attempts)
    }
}

fn asked(phase: &Phase) -> bool {
    let intent = Window::Intent;
    matches!(phase, Phase::Pivoting { window, .. } if *window == intent)
}

#[tokio::test]
async fn a_guest_that_was_switched_runs_although_that_cannot_be_written_down() {
    let host = Host::new(&["vda"]).await;
    let id = host.asked_and_lost().await;
    host.switch(&vda()).await;
    eventually("the guest", || host.state() == VmState::Running).await;
    assert!(asked(&host.phase(id)), "the journal says so still");
    host.guest_is_well();

    // Whoever stops it now means it.
    host.qemu().set_paused(host.vm, true);
    let before = host.tries(id);
    eventually("more tries", || host.tries(id) > before + 1).await;
    assert_eq!(host.state(), VmState::Paused);
    host.qemu().set_paused(host.vm, false);

    host.find_journal(id);
    assert!(merged(&host.ended(id).await));
    host.chain_is(&vda(), 1);
    host.guest_is_well();
}

/// An agent that starts with the intent would ask for the pivot again.
#[tokio::test]
async fn a_guest_that_was_not_switched_stands_still_until_that_is_written_down() {
    let host = Host::new(&["vda"]).await;
    let id = host.asked_and_lost().await;
    host.qemu().fail_job(host.vm, &vda());
    eventually("more tries", || host.tries(id) > 1).await;
    assert_eq!(host.state(), VmState::Paused);
    host.find_journal(id);
    eventually("the guest", || host.state() == VmState::Running).await;
    host.guest_is_well();
}

/// Nothing may be done but wait, and that is told.
#[tokio::test]
async fn a_pivot_without_an_end_is_shown() {
    let policy = Policy {
        pivot_limit: Duration::from_millis(20),
        ..patient()
    };
    let host = Host::with(&["vda"], policy).await;
    let id = host.started(&["vda"]).await[0];
    host.copy(&vda()).await;
    let waits = || {
        let waiting = host.merges.get(id).unwrap().waiting?;
        (waiting.cause.reason == Reason::StorageUnreachable).then_some(waiting.attempts)
    };
    eventually("that it is told", || waits() > Some(2)).await;
    assert!(asked(&host.phase(id)));
    assert_eq!(host.state(), VmState::Paused);
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    assert_eq!(waits(), None);
    host.guest_is_well();
}
