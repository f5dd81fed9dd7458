//! What an operation waits for is shown, with the next try; whoever does not want to wait can end it.

use super::*;

impl Rig {
    /// What the operation waits for, once that is this.
    pub(crate) async fn waits_for(&mut self, operation: &str, reason: Reason) -> v1::Waiting {
        until("the wait", async || {
            let waiting = self.operation(operation).await.waiting?;
            (waiting.reason == reason.as_str()).then_some(waiting)
        })
        .await
    }
}

fn now() -> i64 {
    SystemClock.now().as_second()
}

#[tokio::test]
async fn a_removal_that_waits_can_be_cancelled_and_goes_on_with_the_next_delete() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    rig.agent.script().in_use = true;
    rig.agent.merge_all();
    let delete = rig.delete(&[&ids[0]]).await;
    let waiting = rig.waits_for(&delete.id, Reason::VolumeInUse).await;
    assert!(waiting.next_try_at.unwrap().seconds >= now());
    // It is tried again and again, and not given up.
    until("more tries", async || {
        (rig.agent.was_asked("remove") >= 4).then_some(())
    })
    .await;
    let open = rig.operation(&delete.id).await;
    assert_eq!(open.state(), v1::OperationState::Running);
    let request = v1::CancelOperationRequest {
        operation_id: delete.id.clone(),
    };
    rig.operations.cancel_operation(request).await.unwrap();
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Cancelled);
    assert_eq!(ended.disks[0].phase(), v1::MergePhase::Removing);
    let incomplete = Some(v1::SnapshotState::Incomplete);
    assert_eq!(rig.state(&ids[0]).await, incomplete);

    rig.agent.script().in_use = false;
    let again = rig.delete(&[&ids[0]]).await;
    let ended = rig.ended(&again.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
    assert_eq!(
        rig.agent.was_asked("start"),
        1,
        "what is merged is only removed"
    );
    assert_eq!(rig.state(&ids[0]).await, None);
}

#[tokio::test]
async fn how_often_a_removal_was_tried_is_told_when_it_goes_on() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    rig.agent.script().in_use = true;
    rig.agent.merge_all();
    let delete = rig.delete(&[&ids[0]]).await;
    until("some tries", async || {
        (rig.agent.was_asked("remove") >= 3).then_some(())
    })
    .await;
    rig.agent.script().in_use = false;
    rig.ended(&delete.id).await;
    let recovered = rig.events_of(v1::EventType::OperationRecovered).await;
    let attempts: u32 = recovered[0].details["attempts"].parse().unwrap();
    assert!(attempts >= 3, "{recovered:?}");
    let requested = rig.events_of(v1::EventType::SnapshotDeleteRequested).await;
    assert_eq!(requested[0].details["request_id"], delete.request_id);
}

#[tokio::test]
async fn what_a_merge_waits_for_on_its_host_is_the_operations_as_well() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    let delete = rig.delete(&[&ids[0]]).await;
    let merges = rig.merges(1).await;
    let waiting = |reason: Reason, attempts| v1::MergeWaiting {
        cause: Some(v1::Failure {
            reason: reason.to_string(),
            message: format!("{attempts} tries"),
            ..v1::Failure::default()
        }),
        next_try_at: Some(prost_types::Timestamp {
            seconds: 4_000_000_000,
            nanos: 0,
        }),
        attempts,
    };
    let told = v1::EventType::OperationWaiting;
    // A pivot that was put off is told as such, and by no other event.
    let put_off = waiting(Reason::PivotPutOff, 7);
    rig.agent.show_waiting(&merges, Some(&put_off));
    let shown = rig.waits_for(&delete.id, Reason::PivotPutOff).await;
    assert_eq!((shown.message.as_str(), shown.attempts), ("7 tries", 7));
    assert_eq!(shown.next_try_at, put_off.next_try_at);
    // Neither is what may be over in a moment.
    let first = waiting(Reason::StoreUnavailable, 1);
    rig.agent.show_waiting(&merges, Some(&first));
    rig.waits_for(&delete.id, Reason::StoreUnavailable).await;
    assert_eq!(rig.events_of(told).await, []);
    let third = waiting(Reason::StoreUnavailable, 3);
    rig.agent.show_waiting(&merges, Some(&third));
    until("the event", async || {
        let told = rig.events_of(told).await;
        (told.len() == 1).then_some(())
    })
    .await;
    rig.agent.show_waiting(&merges, None);
    until("its end", async || {
        let recovered = rig.events_of(v1::EventType::OperationRecovered).await;
        let waiting = rig.operation(&delete.id).await.waiting;
        (recovered.len() == 1 && waiting.is_none()).then_some(())
    })
    .await;
    rig.agent.show(&merges, v1::MergePhase::Merged);
    let ended = rig.ended(&delete.id).await;
    assert_eq!(ended.state(), v1::OperationState::Succeeded);
}

#[tokio::test]
async fn orders_that_nobody_answers_are_told_of_when_that_lasts() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(2).await;
    let told = v1::EventType::OperationWaiting;
    rig.agent.merge_all();
    for (number, call) in ["start", "remove"].into_iter().enumerate() {
        rig.agent.script().silent.insert(call);
        let delete = rig.delete(&[&ids[1 - number]]).await;
        // Shown at once.
        rig.waits_for(&delete.id, Reason::HostUnreachable).await;
        assert_eq!(rig.events_of(told).await.len(), number);
        until("the event", async || {
            let events = rig.events_of(told).await;
            (events.len() > number).then_some(())
        })
        .await;
        rig.agent.script().silent.remove(call);
        let ended = rig.ended(&delete.id).await;
        assert_eq!(ended.state(), v1::OperationState::Succeeded);
        assert_eq!(rig.events_of(told).await.len(), number + 1);
    }
}

#[tokio::test]
async fn a_silence_that_is_soon_over_is_not_told_of() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    rig.agent.merge_all();
    rig.agent.script().silent.insert("remove");
    let delete = rig.delete(&[&ids[0]]).await;
    rig.waits_for(&delete.id, Reason::HostUnreachable).await;
    rig.agent.script().silent.remove("remove");
    rig.agent.script().in_use = true;
    rig.waits_for(&delete.id, Reason::VolumeInUse).await;
    rig.agent.script().in_use = false;
    rig.ended(&delete.id).await;
    assert_eq!(rig.events_of(v1::EventType::OperationWaiting).await, []);
    let refused = rig.events_of(v1::EventType::VolumeRemovalRefused).await;
    assert_eq!(refused.len(), 1);
}
