//! Agents of other versions: one behind is worked with as far as it can, what is older or newer is shown
//! and asked nothing.

use super::*;
use livemerge_proto::agent_api::SPOKEN;

/// The agent is one of that version from now on, and the server has seen it.
async fn speaks(rig: &mut Rig, number: i32) {
    rig.agent.script().api_version = number;
    until("the number", async || {
        let host = rig.host_is(HOST, v1::HostStatus::Up).await;
        (host.api_version == number).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_of_one_version_behind_is_worked_with() {
    let mut rig = Rig::open(&["vda"]).await;
    speaks(&mut rig, SPOKEN - 1).await;
    let ids = rig.take(2).await;
    rig.agent.merge_all();
    let delete = rig.delete(&[&ids[0]]).await.id;
    let ended = rig.ended(&delete).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded, "{ended:?}");
    // It is told when it is upgraded in its place.
    speaks(&mut rig, SPOKEN).await;
}

#[tokio::test]
async fn what_an_older_agent_lacks_ends_with_its_reason() {
    let mut rig = Rig::open(&["vda"]).await;
    speaks(&mut rig, SPOKEN - 1).await;
    let ids = rig.take(1).await;
    rig.agent.script().lacks.insert("start");
    let delete = rig.delete(&[&ids[0]]).await.id;
    let ended = rig.ended(&delete).await;
    assert_eq!(ended.state(), v1::OperationState::Failed);
    assert_eq!(ended.failure.unwrap().reason, "AGENT_INCOMPATIBLE");
    assert_eq!(rig.agent.was_asked("start"), 1, "it is not asked again");
    assert_eq!(rig.state(&ids[0]).await, Some(v1::SnapshotState::Ready));

    // Once it can, the same is done.
    rig.agent.script().lacks.clear();
    rig.agent.merge_all();
    let again = rig.delete(&[&ids[0]]).await.id;
    assert_eq!(
        rig.ended(&again).await.state(),
        v1::OperationState::Succeeded
    );
}

#[tokio::test]
async fn an_agent_of_another_time_is_shown_and_asked_nothing() {
    let mut rig = Rig::open(&["vda"]).await;
    for number in [SPOKEN + 1, SPOKEN - 2] {
        rig.agent.script().api_version = number;
        let host = rig.host_is(HOST, v1::HostStatus::Incompatible).await;
        assert_eq!(host.api_version, number);
        assert!(host.last_seen_at.is_some());
        let asked = |rig: &Rig| {
            let script = rig.agent.script();
            let asked = script.asked.iter();
            asked.filter(|it| !it.starts_with("watch")).count()
        };
        let before = asked(&rig);
        let request = v1::GetVolumeChainRequest {
            vm_id: rig.vm.clone(),
            ..v1::GetVolumeChainRequest::default()
        };
        let problem = refusal(rig.inventory.get_volume_chain(request).await);
        assert_eq!(problem.reason, Reason::AgentIncompatible);
        let which = if number > SPOKEN { "newer" } else { "older" };
        assert!(problem.to_string().contains(which), "{problem}");
        assert_eq!(asked(&rig), before);
        rig.agent.script().api_version = SPOKEN;
        rig.host_is(HOST, v1::HostStatus::Up).await;
    }
}

#[tokio::test]
async fn what_was_accepted_waits_for_an_agent_that_is_understood() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    let delete = rig.delete(&[&ids[0]]).await.id;
    let open = rig.merges(1).await;
    rig.agent.script().api_version = SPOKEN + 1;
    rig.host_is(HOST, v1::HostStatus::Incompatible).await;
    // The agent ends what it has; nothing is ordered of it.
    rig.agent.show(&open, v1::MergePhase::Merged);
    rig.host_is(HOST, v1::HostStatus::Incompatible).await;
    assert_eq!(rig.agent.was_asked("remove"), 0);
    assert!(rig.operation(&delete).await.ended_at.is_none());

    rig.agent.script().api_version = SPOKEN;
    let ended = rig.ended(&delete).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded, "{ended:?}");
    assert_eq!(rig.agent.was_asked("remove"), 1);
}

#[tokio::test]
async fn an_agent_without_a_watch_is_shown_as_such() {
    let mut rig = Rig::open(&["vda"]).await;
    rig.agent.script().lacks.insert("watch");
    rig.host_is(HOST, v1::HostStatus::Incompatible).await;
    rig.agent.script().lacks.clear();
    rig.host_is(HOST, v1::HostStatus::Up).await;
}

/// It could take an order in another sense, or take a late one for a new one.
#[tokio::test]
async fn an_agent_that_has_not_said_its_version_is_ordered_nothing() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    rig.agent.script().silent.insert("watch");
    until("the line breaks", async || {
        let request = v1::ListHostsRequest::default();
        let answer = rig.inventory.list_hosts(request).await.unwrap();
        (answer.get_ref().hosts[0].api_version == 0).then_some(())
    })
    .await;
    rig.agent.merge_all();
    let delete = rig.delete(&[&ids[0]]).await.id;
    let waiting = until("a try", async || rig.operation(&delete).await.waiting).await;
    assert_eq!(waiting.reason, "HOST_UNREACHABLE");
    assert_eq!(rig.agent.was_asked("start"), 0);

    rig.agent.script().silent.clear();
    let ended = rig.ended(&delete).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded, "{ended:?}");
}
