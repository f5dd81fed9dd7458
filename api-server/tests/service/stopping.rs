//! A server that is asked to stop ends its operations between two steps.

use super::*;

#[tokio::test]
async fn a_stop_waits_for_the_answer_that_is_under_way_and_asks_nothing_more() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    rig.agent.script().held.insert("start");
    let delete = rig.delete(&[&ids[0]]).await;
    let merges = rig.merges(1).await;
    rig.shutdown.cancel();
    let held = tokio::time::timeout(Duration::from_millis(300), &mut rig.stopped).await;
    assert!(held.is_err(), "the order is not answered yet");
    rig.agent.script().held.clear();
    let stopped = tokio::time::timeout(Duration::from_secs(10), &mut rig.stopped).await;
    stopped.expect("it stops once the order is answered");
    // What the host does from here on is the next server's.
    let asked = rig.agent.script().asked.len();
    rig.agent.show(&merges, v1::MergePhase::Merged);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(rig.agent.script().asked.len(), asked);
    let left = rig.operation(&delete.id).await;
    assert_eq!(left.state(), v1::OperationState::Running);
    let phase = left.disks[0].phase();
    assert_ne!(phase, v1::MergePhase::Removing, "nobody has looked");

    rig.restart().await;
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(rig.agent.was_asked("start"), 1);
    assert_eq!(rig.state(&ids[0]).await, None);
}

#[tokio::test]
async fn a_stop_waits_for_no_merge_and_no_turn() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    let first = rig.delete(&[&ids[0]]).await;
    rig.merges(1).await;
    let second = rig.delete(&[&ids[1]]).await;
    rig.shutdown.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(5), &mut rig.stopped).await;
    stopped.expect("nobody has to be heard");
    // What is accepted while the server drains is the next one's as well.
    rig.agent.merge_all();
    rig.restart().await;
    for operation in [first, second] {
        let ended = rig.ended(&operation.id).await;
        assert_eq!(ended.state(), v1::OperationState::Succeeded);
    }
}
