//! Whether the guest is frozen for a snapshot: what is asked, kept and told.

use super::*;
use v1::{Quiesce, SnapshotConsistency};

fn wanted(rig: &Rig, quiesce: Quiesce) -> v1::CreateSnapshotRequest {
    v1::CreateSnapshotRequest {
        request_id: any_id(),
        vm_id: rig.vm.clone(),
        name: quiesce.as_str_name().to_owned(),
        quiesce: quiesce.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_snapshot_is_taken_as_wished_and_says_how_it_was() {
    let mut rig = Rig::open(&["vda"]).await;
    for (wished, asked, consistency) in [
        (
            Quiesce::Unspecified,
            Quiesce::IfPossible,
            SnapshotConsistency::Crash,
        ),
        (
            Quiesce::Required,
            Quiesce::Required,
            SnapshotConsistency::Frozen,
        ),
        (Quiesce::Never, Quiesce::Never, SnapshotConsistency::Crash),
    ] {
        let request = wanted(&rig, wished);
        let answer = rig.snapshots.create_snapshot(request.clone()).await;
        let operation = answer.unwrap().into_inner().operation.unwrap();
        let taken = rig.ended(&operation.id).await;
        assert_eq!(taken.state(), v1::OperationState::Succeeded);
        let asked = format!("create {}", asked.as_str_name());
        assert_eq!(rig.agent.was_asked(&asked), 1);
        let snapshot = rig.snapshot(&taken.snapshot_id).await;
        assert_eq!(snapshot.consistency(), consistency);

        // The wish belongs to the request.
        let again = rig.snapshots.create_snapshot(request.clone()).await;
        let again = again.unwrap().into_inner().operation.unwrap();
        assert_eq!(again.id, operation.id);
        let other = v1::CreateSnapshotRequest {
            quiesce: match wished {
                Quiesce::Never => Quiesce::Required,
                _ => Quiesce::Never,
            }
            .into(),
            ..request
        };
        let refused = refusal(rig.snapshots.create_snapshot(other).await);
        assert_eq!(refused.reason, Reason::RequestIdReused);
    }
}

#[tokio::test]
async fn a_guest_that_stays_frozen_is_told_of_once_until_it_is_thawed() {
    use v1::EventType::{GuestStillFrozen, GuestThawed};
    let mut rig = Rig::open(&["vda"]).await;
    for (frozen, told) in [
        (true, [1, 0]),
        (true, [1, 0]),
        (false, [1, 1]),
        (true, [2, 1]),
    ] {
        rig.agent.script().still_frozen = frozen;
        rig.restart().await;
        let vm_id = rig.vm.clone();
        let shown = until("the machine", async || {
            let request = v1::GetVmRequest {
                vm_id: vm_id.clone(),
            };
            let vm = rig.inventory.get_vm(request).await.ok()?.into_inner().vm?;
            (vm.state() == v1::VmState::Running).then_some(vm)
        })
        .await;
        assert_eq!(shown.still_frozen, frozen);
        let events = [
            rig.events_of(GuestStillFrozen).await,
            rig.events_of(GuestThawed).await,
        ];
        assert_eq!(events.each_ref().map(Vec::len), told);
        let still = &events[0][0];
        assert_eq!(still.severity(), v1::EventSeverity::Error);
        assert_eq!(
            (still.vm_id.as_str(), still.host_id.as_str()),
            (&*rig.vm, HOST)
        );
    }
}
