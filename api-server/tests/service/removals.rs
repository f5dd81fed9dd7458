//! What storage keeps of what was removed is listed over all hosts, and brought back.

use super::*;

fn kept(id: &str, name: &str) -> v1::Removal {
    v1::Removal {
        id: id.to_owned(),
        volume: Some(v1::VolumeRef {
            storage: "default".to_owned(),
            name: name.to_owned(),
        }),
        state: v1::RemovalState::Condemned.into(),
        keep_until: Some(prost_types::Timestamp {
            seconds: 4_000_000_000,
            nanos: 0,
        }),
        identity: format!("of-{name}"),
        ..v1::Removal::default()
    }
}

impl Rig {
    async fn removals(&mut self, size: i32) -> Vec<String> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::InventoryServiceListRemovalsRequest {
                page_size: size,
                page_token,
                ..v1::InventoryServiceListRemovalsRequest::default()
            };
            let answer = self.inventory.list_removals(request).await.unwrap();
            let answer = answer.into_inner();
            all.extend(answer.removals.into_iter().map(|removal| removal.id));
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }

    async fn restore(
        &mut self,
        storage: &str,
        removal: &str,
    ) -> Result<Response<v1::InventoryServiceRestoreVolumeResponse>, Status> {
        self.restore_as(&any_id(), storage, removal).await
    }

    async fn restore_as(
        &mut self,
        request: &str,
        storage: &str,
        removal: &str,
    ) -> Result<Response<v1::InventoryServiceRestoreVolumeResponse>, Status> {
        let request = v1::InventoryServiceRestoreVolumeRequest {
            request_id: request.to_owned(),
            storage: storage.to_owned(),
            removal_id: removal.to_owned(),
        };
        self.inventory.restore_volume(request).await
    }
}

#[tokio::test]
async fn removals_are_listed_once_and_restored_by_who_keeps_them() {
    let vm = any_id();
    let (agent, endpoint) = Agent::serve(vm.clone(), &["vda"]).await;
    let (other, others) = Agent::serve_as("host-2", vm.clone(), &["vda"]).await;
    other.script().absent = true;
    let mut ids: Vec<String> = (0..5).map(|_| any_id()).collect();
    ids.sort();
    // Both see the first ones; one sees the others alone.
    let removals: Vec<_> = ids.iter().map(|id| kept(id, &format!("v-{id}"))).collect();
    agent.script().kept = removals[..3].to_vec();
    other.script().kept.clone_from(&removals);
    let mut rig = Rig::around(vm, agent, vec![(HOST, endpoint), ("host-2", others)]).await;
    until("both hosts", async || {
        (rig.removals(0).await.len() == 5).then_some(())
    })
    .await;
    for size in [0, 1, 2, 5] {
        assert_eq!(rig.removals(size).await, ids, "in pages of {size}");
    }
    let back = rig.restore("default", &ids[4]).await.unwrap().into_inner();
    assert_eq!(back.volume.unwrap().name, format!("v-{}", ids[4]));
    assert_eq!(rig.removals(0).await, ids[..4]);
    let events = rig.events_of(v1::EventType::VolumeRestored).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].details["removal"], ids[4]);

    let request = any_id();
    for _repeated in 0..3 {
        let answer = rig.restore_as(&request, "default", &ids[3]).await;
        let volume = answer.unwrap().into_inner().volume.unwrap();
        assert_eq!(volume.name, format!("v-{}", ids[3]));
    }
    assert_eq!(other.was_asked("restore"), 2);
    let reused = refusal(rig.restore_as(&request, "default", &ids[2]).await);
    assert_eq!(reused.reason, Reason::RequestIdReused);

    let again = refusal(rig.restore("default", &ids[4]).await);
    assert_eq!(again.reason, Reason::RemovalNotFound);
    let elsewhere = refusal(rig.restore("other", &ids[0]).await);
    assert_eq!(elsewhere.reason, Reason::RemovalNotFound);
    for (storage, removal) in [("", ids[0].as_str()), ("default", ""), ("..", "x")] {
        let malformed = refusal(rig.restore(storage, removal).await);
        assert_eq!(
            malformed.reason,
            Reason::FieldInvalid,
            "{storage} {removal}"
        );
    }
}

/// The answer is lost, here on its way from the host.
#[tokio::test]
async fn a_restoration_whose_answer_was_lost_is_answered_when_it_is_asked_for_again() {
    let mut rig = Rig::open(&["vda"]).await;
    let [removal, gone, request, other] = [any_id(), any_id(), any_id(), any_id()];
    for (id, name) in [(&removal, "v"), (&gone, "w")] {
        rig.agent.script().kept.push(kept(id, name));
    }
    until("the host", async || {
        (rig.removals(0).await.len() == 2).then_some(())
    })
    .await;
    rig.agent.script().lost_once = true;
    let lost = refusal(rig.restore_as(&request, "default", &removal).await);
    assert_eq!(lost.reason, Reason::HostUnreachable);
    let asked = rig.events_of(v1::EventType::VolumeRestoreRequested).await;
    assert_eq!(asked[0].details["identity"], "of-v");
    for _repeated in 0..2 {
        let back = rig.restore_as(&request, "default", &removal).await.unwrap();
        assert_eq!(back.into_inner().volume.unwrap().name, "v");
    }
    assert_eq!(rig.agent.was_asked("restore"), 1);
    assert_eq!(rig.events_of(v1::EventType::VolumeRestored).await.len(), 1);
    let again = refusal(rig.restore("default", &removal).await);
    assert_eq!(again.reason, Reason::RemovalNotFound);
    // One that is gone again since is not back.
    rig.agent.script().lost_once = true;
    refusal(rig.restore_as(&other, "default", &gone).await);
    rig.agent.script().stored.retain(|name| name != "w");
    let removed = refusal(rig.restore_as(&other, "default", &gone).await);
    assert_eq!(removed.reason, Reason::RemovalNotFound);
}

#[tokio::test]
async fn the_domains_of_all_hosts_are_shown_and_who_is_silent_is_named() {
    let vm = any_id();
    let (agent, endpoint) = Agent::serve(vm.clone(), &["vda"]).await;
    let (other, others) = Agent::serve_as("host-2", vm.clone(), &["vda"]).await;
    other.script().absent = true;
    let mut rig = Rig::around(vm, agent, vec![(HOST, endpoint), ("host-2", others)]).await;
    let mut shown = async |host: &str| {
        let request = v1::InventoryServiceListStoragesRequest {
            host_id: host.to_owned(),
            ..v1::InventoryServiceListStoragesRequest::default()
        };
        let answer = rig.inventory.list_storages(request).await.unwrap();
        let answer = answer.into_inner();
        let hosts: Vec<_> = answer
            .storages
            .iter()
            .map(|it| it.host_id.clone())
            .collect();
        (hosts, answer.silent_host_ids, answer.storages)
    };
    until("both hosts", async || {
        (shown("").await.0 == [HOST, "host-2"]).then_some(())
    })
    .await;
    let (hosts, silent, storages) = shown("host-2").await;
    assert_eq!((hosts, silent), (vec!["host-2".to_owned()], vec![]));
    let storage = storages[0].storage.clone().unwrap();
    assert_eq!((storage.free_bytes, storage.total_bytes), (5, 9));
    assert_eq!(storage.foreign, ["notes.txt"]);
    other.script().silent.insert("storages");
    let (hosts, silent, _) = shown("").await;
    assert_eq!(
        (hosts, silent),
        (vec![HOST.to_owned()], vec!["host-2".to_owned()])
    );
}

#[tokio::test]
async fn the_domains_of_all_hosts_are_listed_page_by_page() {
    let vm = any_id();
    let (agent, endpoint) = Agent::serve(vm.clone(), &["vda"]).await;
    let (other, others) = Agent::serve_as("host-1-b", vm.clone(), &["vda"]).await;
    other.script().absent = true;
    agent.script().domains = ["default", "fast", "slow"].map(Into::into).into();
    let mut rig = Rig::around(vm, agent, vec![(HOST, endpoint), ("host-1-b", others)]).await;
    let mut listed = async |size: i32| {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::InventoryServiceListStoragesRequest {
                page_size: size,
                page_token,
                ..v1::InventoryServiceListStoragesRequest::default()
            };
            let answer = rig.inventory.list_storages(request).await.unwrap();
            let answer = answer.into_inner();
            let told = answer.storages.into_iter();
            all.extend(told.map(|it| (it.host_id, it.storage.unwrap().id)));
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    };
    let all = until("both hosts", async || {
        let all = listed(0).await;
        (all.len() == 4).then_some(all)
    })
    .await;
    assert!(all.is_sorted(), "by host and id: {all:?}");
    for size in [1, 2, 3, 4] {
        assert_eq!(listed(size).await, all, "in pages of {size}");
    }
}

/// Its next order would remove it again.
#[tokio::test]
async fn what_an_operation_still_removes_is_not_brought_back() {
    let mut rig = Rig::open(&["vda"]).await;
    let ids = rig.take(1).await;
    rig.agent.script().held.insert("remove");
    rig.agent.merge_all();
    let delete = rig.delete(&[&ids[0]]).await;
    let removal = until("the removal", async || rig.agent.script().removing.clone()).await;
    rig.agent.script().kept = vec![kept(&removal, "vda-1")];
    let refused = refusal(rig.restore("default", &removal).await);
    assert_eq!(refused.reason, Reason::ConcurrentChange);
    rig.agent.script().held.clear();
    rig.ended(&delete.id).await;
    rig.restore("default", &removal).await.unwrap();
}
