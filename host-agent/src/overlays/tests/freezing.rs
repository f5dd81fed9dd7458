//! Orders for overlays on a guest that is frozen meanwhile, or cannot be.

use super::*;
use crate::freeze::Policy;
use crate::hypervisor::fake::{Call, GuestAgent};
use livemerge_runtime::Shutdown;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const POLICY: Policy = Policy {
    answer: Duration::from_millis(200),
    hold: Duration::from_secs(10),
};

/// A machine whose guest may have an agent, and an order for its overlay.
struct Quiesced {
    rig: Rig,
    overlays: Overlays,
    order: OverlayOrder,
    state: TempDir,
}

async fn with_agent(agent: GuestAgent, quiesce: Quiesce) -> Quiesced {
    let (rig, overlays, order) = ordered().await;
    rig.host.set_guest_agent(order.vm, agent, 2);
    let state = TempDir::new().unwrap();
    let overlays = overlays.freezing(open(&rig, state.path()));
    Quiesced {
        rig,
        overlays,
        order: OverlayOrder { quiesce, ..order },
        state,
    }
}

fn open(rig: &Rig, dir: &Path) -> Arc<Freezes> {
    Freezes::open(dir, rig.hypervisor(), POLICY, Shutdown::new()).unwrap()
}

impl Quiesced {
    async fn create(&self) -> Result<Consistency, Problem> {
        let overlaid = self.overlays.create(&self.order).await?;
        let active = overlaid.chains[0].layers.last().unwrap();
        assert_eq!(active.locator, self.rig.locator("overlay.qcow2"));
        Ok(overlaid.consistency)
    }

    /// The calls that change something, by name.
    fn changes(&self) -> Vec<&'static str> {
        let calls = self.rig.host.calls();
        let changes = calls.iter().filter(|call| call.mutates());
        changes.map(Call::name).collect()
    }

    fn is_marked(&self) -> bool {
        let mut files = std::fs::read_dir(self.state.path()).unwrap();
        files.any(|file| file.unwrap().path().extension().unwrap() == "frozen")
    }

    async fn until_thawed(&self) {
        let thawed = async {
            while self.rig.host.is_guest_frozen(self.order.vm) || self.is_marked() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), thawed);
        in_time.await.expect("the guest is thawed");
    }

    async fn refuses(&self) {
        let refused = self.create().await.unwrap_err();
        assert_eq!(refused.reason, Reason::GuestAgentUnavailable, "{refused}");
        assert!(!there(&self.rig).await, "nothing of the order is left");
        assert_eq!(added(&self.rig), 0);
        self.until_thawed().await;
    }
}

fn unknown() -> HypervisorError {
    HypervisorError::Unknown("hangs".to_owned())
}

#[tokio::test]
async fn a_guest_is_frozen_exactly_while_its_overlays_are_put_on() {
    for quiesce in [Quiesce::IfPossible, Quiesce::Required] {
        let guest = with_agent(GuestAgent::Answers, quiesce).await;
        assert_eq!(guest.create().await.unwrap(), Consistency::Frozen);
        let expected = ["freeze_guest", "add_overlays", "thaw_guest"];
        assert_eq!(guest.changes(), expected);
        guest.until_thawed().await;
    }
}

#[tokio::test]
async fn a_repetition_is_told_the_same_also_after_a_restart() {
    let guest = with_agent(GuestAgent::Answers, Quiesce::Required).await;
    assert_eq!(guest.create().await.unwrap(), Consistency::Frozen);
    assert_eq!(guest.create().await.unwrap(), Consistency::Frozen);
    let overlays = guest
        .overlays
        .freezing(open(&guest.rig, guest.state.path()));
    let told = overlays.create(&guest.order).await.unwrap();
    assert_eq!(told.consistency, Consistency::Frozen);
    assert_eq!(added(&guest.rig), 1);
    // Of another order's overlays it says nothing.
    let other = OverlayOrder {
        request: uuid::Uuid::from_u128(10),
        ..guest.order.clone()
    };
    let told = overlays.create(&other).await.unwrap();
    assert_eq!(told.consistency, Consistency::Unknown);
}

#[tokio::test]
async fn without_an_agent_that_answers_the_wish_decides() {
    for agent in [GuestAgent::Missing, GuestAgent::Silent] {
        let guest = with_agent(agent, Quiesce::IfPossible).await;
        assert_eq!(guest.create().await.unwrap(), Consistency::Crash);
        assert_eq!(guest.changes(), ["freeze_guest", "add_overlays"]);
        with_agent(agent, Quiesce::Required).await.refuses().await;
    }
}

#[tokio::test]
async fn a_guest_that_shall_not_be_frozen_is_not_asked() {
    let guest = with_agent(GuestAgent::Answers, Quiesce::Never).await;
    assert_eq!(guest.create().await.unwrap(), Consistency::Crash);
    assert_eq!(guest.changes(), ["add_overlays"]);
}

#[tokio::test]
async fn a_machine_that_is_off_has_nothing_to_freeze() {
    let guest = with_agent(GuestAgent::Answers, Quiesce::Required).await;
    guest.rig.host.kill_vm(guest.order.vm);
    assert_eq!(guest.create().await.unwrap(), Consistency::Off);
    assert_eq!(guest.changes(), ["add_overlays"]);
    assert_eq!(guest.create().await.unwrap(), Consistency::Off);
}

#[tokio::test]
async fn a_guest_that_stands_still_cannot_be_frozen() {
    let guest = with_agent(GuestAgent::Answers, Quiesce::Required).await;
    guest.rig.host.set_paused(guest.order.vm, true);
    guest.refuses().await;
}

#[tokio::test]
async fn a_guest_without_file_systems_is_not_called_frozen() {
    let guest = with_agent(GuestAgent::Answers, Quiesce::Required).await;
    let vm = guest.order.vm;
    guest.rig.host.set_guest_agent(vm, GuestAgent::Answers, 0);
    guest.refuses().await;
}

/// Whether it was done cannot be told, so it is undone.
#[tokio::test]
async fn a_freeze_whose_answer_is_lost_is_taken_back() {
    for (quiesce, done) in [
        (Quiesce::IfPossible, false),
        (Quiesce::IfPossible, true),
        (Quiesce::Required, false),
        (Quiesce::Required, true),
    ] {
        let guest = with_agent(GuestAgent::Answers, quiesce).await;
        if done {
            guest.rig.host.lose_reply("freeze_guest");
        } else {
            guest.rig.host.fail_next("freeze_guest", unknown());
        }
        if quiesce == Quiesce::Required {
            guest.refuses().await;
        } else {
            assert_eq!(guest.create().await.unwrap(), Consistency::Crash);
            guest.until_thawed().await;
        }
        assert!(guest.changes().contains(&"thaw_guest"));
    }
}

#[tokio::test]
async fn a_guest_is_thawed_whatever_comes_of_its_overlays() {
    for quiesce in [Quiesce::IfPossible, Quiesce::Required] {
        let guest = with_agent(GuestAgent::Answers, quiesce).await;
        refuse(&guest.rig);
        let refused = guest.create().await.unwrap_err();
        assert_eq!(refused.reason, Reason::StrategyUnsupported);
        guest.until_thawed().await;
        assert!(!there(&guest.rig).await);

        let guest = with_agent(GuestAgent::Answers, quiesce).await;
        guest.rig.host.fail_next("add_overlays", unknown());
        let waits = guest.create().await.unwrap_err();
        assert_eq!(waits.reason, Reason::HypervisorUnreachable);
        guest.until_thawed().await;
        // The next try freezes anew.
        assert_eq!(guest.create().await.unwrap(), Consistency::Frozen);
        guest.until_thawed().await;
    }
}

/// Frozen is said only of what certainly was.
#[tokio::test]
async fn a_thaw_that_is_not_answered_is_tried_again() {
    let guest = with_agent(GuestAgent::Answers, Quiesce::IfPossible).await;
    guest.rig.host.fail_next("thaw_guest", unknown());
    guest.rig.host.fail_next("thaw_guest", unknown());
    assert_eq!(guest.create().await.unwrap(), Consistency::Crash);
    guest.until_thawed().await;
    assert_eq!(guest.changes().last(), Some(&"thaw_guest"));
}

#[tokio::test]
async fn no_guest_is_frozen_without_a_mark() {
    let guest = with_agent(GuestAgent::Answers, Quiesce::Required).await;
    std::fs::remove_dir(guest.state.path()).unwrap();
    let waits = guest.create().await.unwrap_err();
    assert_eq!(waits.reason, Reason::StoreUnavailable);
    assert!(there(&guest.rig).await, "it is tried again");
    assert_eq!(guest.changes(), [""; 0]);
    std::fs::create_dir(guest.state.path()).unwrap();
    assert_eq!(guest.create().await.unwrap(), Consistency::Frozen);
}
