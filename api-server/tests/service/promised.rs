//! Room of one storage domain that merges of several hosts take.

use super::*;
use jiff::SignedDuration;
use livemerge_runtime::ManualClock;

const OTHER: &str = "host-2";
const NEEDED: i64 = 5 << 20;

/// A host with a machine, each merge of which needs room; and where it is.
async fn needing(host: &'static str, vm: &str) -> (Agent, (&'static str, String)) {
    let way = v1::MergeOption {
        direction: v1::MergeDirection::Commit.into(),
        copy_bytes: NEEDED,
        space_needed_bytes: NEEDED,
        ..v1::MergeOption::default()
    };
    let (agent, endpoint) = Agent::serve_as(host, vm.to_owned(), &["vda"]).await;
    let measured = [("vda".to_owned(), vec![way])];
    agent.script().measured.extend(measured);
    (agent, (host, endpoint))
}

impl Rig {
    /// Orders a merge of this host's machine, and says what was told with it.
    async fn ordered(&mut self, host: &Agent) -> (String, Vec<v1::PromisedRoom>) {
        let taken = self.take(1).await;
        let delete = self.delete(&[&taken[0]]).await.id;
        until("the merge", async || host.open_merges().pop()).await;
        let told = host.script().promised.clone();
        (delete, told)
    }
}

#[tokio::test]
async fn a_host_is_told_what_merges_of_others_will_still_take() {
    let (vm, others_vm) = (any_id(), any_id());
    let (agent, here) = needing(HOST, &vm).await;
    let (other, there) = needing(OTHER, &others_vm).await;
    let mut rig = Rig::around(vm, agent.clone(), vec![here, there]).await;
    let (delete, told) = rig.ordered(&agent).await;
    assert_eq!(told, [], "its own it knows");

    rig.vm = others_vm;
    rig.machine().await;
    let (second, told) = rig.ordered(&other).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (told[0].bytes, told[0].kept_bytes),
        (NEEDED, Some(64 << 20))
    );
    assert_eq!(told[0].kept_room_bytes, Some(64 << 20));
    let kept = told[0].kept.clone().unwrap().volume.unwrap();
    assert_eq!(kept.name, "vda-base");

    // What is merged takes nothing any more.
    for (host, operation) in [(&agent, &delete), (&other, &second)] {
        host.merge_all();
        rig.ended(operation).await;
    }
    let taken = rig.take(1).await;
    let third = rig.delete(&[&taken[0]]).await.id;
    rig.ended(&third).await;
    assert_eq!(other.was_asked("start"), 2);
    assert_eq!(other.script().promised, []);
}

#[tokio::test]
async fn what_a_host_that_is_gone_was_promised_refuses_nobody_room() {
    let (vm, others_vm) = (any_id(), any_id());
    let (agent, here) = needing(HOST, &vm).await;
    let (other, there) = needing(OTHER, &others_vm).await;
    let clock = Arc::new(ManualClock::new(SystemClock.now()));
    let hosts = vec![here, there];
    let mut rig = Rig::at(clock.clone(), others_vm, other.clone(), hosts).await;
    rig.ordered(&other).await;
    other.script().silent.insert("watch");
    rig.host_is(OTHER, v1::HostStatus::Unresponsive).await;

    rig.vm = vm;
    rig.machine().await;
    let (delete, told) = rig.ordered(&agent).await;
    assert_eq!(told.len(), 1, "it may merge on");
    agent.show(&agent.open_merges(), v1::MergePhase::Merged);
    rig.ended(&delete).await;
    clock.advance(SignedDuration::from_hours(1));
    let (_, told) = rig.ordered(&agent).await;
    assert_eq!(told, []);
}
