//! Room of one storage domain that merges of several hosts take.

use super::*;

const OTHER: &str = "host-2";
const NEEDED: i64 = 5 << 20;

#[tokio::test]
async fn a_host_is_told_what_merges_of_others_will_still_take() {
    let (vm, others_vm) = (any_id(), any_id());
    let (agent, endpoint) = Agent::serve(vm.clone(), &["vda"]).await;
    let (other, others) = Agent::serve_as(OTHER, others_vm.clone(), &["vda"]).await;
    let way = v1::MergeOption {
        direction: v1::MergeDirection::Commit.into(),
        copy_bytes: NEEDED,
        space_needed_bytes: NEEDED,
        ..v1::MergeOption::default()
    };
    for host in [&agent, &other] {
        let measured = &mut host.script().measured;
        measured.insert("vda".to_owned(), vec![way.clone()]);
    }
    let hosts = vec![(HOST, endpoint), (OTHER, others)];
    let mut rig = Rig::around(vm, agent.clone(), hosts).await;
    let taken = rig.take(1).await;
    let delete = rig.delete(&[&taken[0]]).await.id;
    until("the first merge", async || agent.open_merges().pop()).await;
    assert_eq!(agent.script().promised, [], "its own it knows");

    rig.vm = others_vm;
    rig.machine().await;
    let taken = rig.take(1).await;
    let second = rig.delete(&[&taken[0]]).await.id;
    until("the second merge", async || other.open_merges().pop()).await;
    let told = other.script().promised.clone();
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
