//! A merged volume whose host is silent is removed by another one that has the machine by now, and by
//! nobody as long as nothing is known of the machine.

use super::*;

const OTHER: &str = "host-2";

/// Two hosts; a snapshot whose merge is done and whose removal is refused, as somebody uses the volume;
/// and the first host silent.
struct Silent {
    rig: Rig,
    other: Agent,
    delete: String,
    /// The volume that is to be removed.
    volume: String,
}

impl Silent {
    async fn begin() -> Self {
        let vm = any_id();
        let (agent, endpoint) = Agent::serve(vm.clone(), &["vda"]).await;
        let (other, others) = Agent::serve_as(OTHER, vm.clone(), &["vda"]).await;
        other.script().absent = true;
        let mut rig = Rig::around(vm, agent, vec![(HOST, endpoint), (OTHER, others)]).await;
        let ids = rig.take(1).await;
        let volume = rig.agent.script().chains["vda"][1].0.clone();
        rig.agent.script().in_use = true;
        rig.agent.merge_all();
        let delete = rig.delete(&[&ids[0]]).await.id;
        until("the removal", async || {
            (rig.agent.was_asked("remove") > 0).then_some(())
        })
        .await;
        for call in ["watch", "remove", "chains", "volumes"] {
            rig.agent.script().silent.insert(call);
        }
        let mut silent = Self {
            rig,
            other,
            delete,
            volume,
        };
        silent.rig.host_is(HOST, v1::HostStatus::Unresponsive).await;
        silent
    }

    /// The machine runs on the other host from now on, from these layers.
    fn moved(&self, layers: &[&str]) {
        let mut script = self.other.script();
        let layers = layers.iter().map(|name| ((*name).to_owned(), 64 << 20));
        script.chains.insert("vda".to_owned(), layers.collect());
        script.absent = false;
    }

    /// It has been tried again, and nobody has removed anything.
    async fn still_waits(&mut self) {
        let before = self.rig.operation(&self.delete).await;
        let attempts = before.waiting.map_or(0, |waiting| waiting.attempts);
        until("another try", async || {
            let now = self.rig.operation(&self.delete).await;
            let waiting = now.waiting?;
            (waiting.attempts > attempts).then_some(())
        })
        .await;
        let now = self.rig.operation(&self.delete).await;
        assert_eq!(now.state(), v1::OperationState::Running);
        assert_eq!(self.other.was_asked("remove"), 0);
    }
}

#[tokio::test]
async fn a_host_that_has_the_machine_removes_in_the_place_of_a_silent_one() {
    let mut silent = Silent::begin().await;
    silent.other.script().stored = vec!["vda-base".to_owned(), silent.volume.clone()];
    // It is defined elsewhere, as a migration leaves it: it may run on where it was.
    silent.moved(&["vda-base"]);
    silent.other.script().off = true;
    silent.still_waits().await;
    silent.other.script().off = false;
    // The first order is carried out, and its answer is lost: the volume is not listed any more.
    silent.other.script().lost_once = true;
    silent.moved(&["vda-base"]);
    let ended = silent.rig.ended(&silent.delete).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(
        silent.other.was_asked(&format!("remove {}", silent.volume)),
        2
    );
    let removed = silent.rig.events_of(v1::EventType::VolumeRemoved).await;
    assert_eq!(removed[0].details["removed_by"], OTHER);
}

#[tokio::test]
async fn nobody_removes_what_a_machine_uses_or_another_domain_has() {
    let mut silent = Silent::begin().await;
    // Its domain of the same id is another one: it has no such volume.
    silent.other.script().stored = vec!["vda-base".to_owned()];
    silent.moved(&["vda-base"]);
    silent.still_waits().await;
    // It has that, and the machine was started from it.
    silent.other.script().stored = vec!["vda-base".to_owned(), silent.volume.clone()];
    let volume = silent.volume.clone();
    silent.moved(&["vda-base", &volume]);
    silent.still_waits().await;
    // The first host is back, and has the machine as it was.
    silent.other.script().absent = true;
    silent.rig.agent.script().in_use = false;
    silent.rig.agent.script().silent.clear();
    let ended = silent.rig.ended(&silent.delete).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(silent.other.was_asked("remove"), 0);
}
