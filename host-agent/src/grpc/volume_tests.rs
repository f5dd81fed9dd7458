//! Volumes that are made larger or removed, and the list of domains, as the API server asks for them.

use crate::agent::{self, Agent};
use crate::config::Config;
use crate::domains::Domain;
use crate::rig::Rig;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::volume_service_client::VolumeServiceClient;
use livemerge_runtime::{Shutdown, SystemClock};
use livemerge_storage::faulty::Call;
use livemerge_storage::{FileStore, VolumeInfo, VolumeStore as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

struct Scene {
    rig: Rig,
    agent: Agent,
    dir: tempfile::TempDir,
}

impl Scene {
    /// With empty domains beside the rig's.
    async fn new(others: &[&str]) -> Self {
        let (rig, dir) = (Rig::new().await, tempfile::tempdir().unwrap());
        let mut config = Config::default();
        config.host.state_dir = dir.path().join("state");
        let mut domains = vec![Domain::plain(Arc::clone(&rig.store) as _)];
        for id in others {
            let root = dir.path().join(id);
            std::fs::create_dir(&root).unwrap();
            let store = FileStore::open(id.parse().unwrap(), &root).await.unwrap();
            domains.push(Domain::plain(Arc::new(store)));
        }
        let clock = Arc::new(SystemClock);
        let agent = agent::open(&config, clock, rig.hypervisor(), domains, Shutdown::new()).await;
        Self {
            rig,
            agent: agent.unwrap(),
            dir,
        }
    }

    async fn grow(&self, volume: &VolumeInfo, bytes: i64) -> Result<i64, Problem> {
        self.grow_as(volume, volume.identity.as_str(), bytes).await
    }

    async fn grow_as(
        &self,
        volume: &VolumeInfo,
        identity: &str,
        bytes: i64,
    ) -> Result<i64, Problem> {
        let request = v1::GrowVolumeRequest {
            request_id: uuid::Uuid::now_v7().to_string(),
            generation: 1,
            volume: Some(v1::VolumeRef {
                storage: volume.volume.storage.to_string(),
                name: volume.volume.name.to_string(),
            }),
            identity: identity.to_owned(),
            virtual_bytes: bytes,
        };
        let mut client = VolumeServiceClient::new(self.agent.volumes.clone());
        let answer = client.grow_volume(request).await;
        let answer = answer.map_err(|status| Problem::try_from(status).unwrap())?;
        Ok(answer.into_inner().volume.unwrap().virtual_bytes)
    }

    fn grown(&self) -> usize {
        let calls = self.rig.store.calls();
        calls.iter().filter(|call| **call == Call::Grow).count()
    }
}

#[tokio::test]
async fn a_volume_grows_to_what_is_asked_for_and_never_shrinks() {
    let scene = Scene::new(&[]).await;
    let volume = scene.rig.volume("base.qcow2", None).await;
    let two = 2 * i64::try_from(MIB).unwrap();
    for bytes in [two, two, 1] {
        assert_eq!(scene.grow(&volume, bytes).await.unwrap(), two, "{bytes}");
    }
    assert_eq!(scene.grown(), 1, "the others were done already");
    let stored = scene.rig.store.stat(&volume.volume.name).await.unwrap();
    assert_eq!(stored.virtual_bytes, 2 * MIB);
    for bytes in [0, -1] {
        let refused = scene.grow(&volume, bytes).await.unwrap_err();
        assert_eq!(refused.reason, Reason::FieldInvalid);
    }
}

#[tokio::test]
async fn a_volume_that_is_open_or_another_one_is_left_alone() {
    let scene = Scene::new(&[]).await;
    let volume = scene.rig.volume("base.qcow2", None).await;
    let larger = 1 << 30;
    let other = scene.grow_as(&volume, "of-another", larger).await;
    assert_eq!(other.unwrap_err().reason, Reason::VolumeNotFound);
    let mut writer = Command::new("qemu-io")
        .args(["-f", "qcow2"])
        .arg(scene.rig.path("base.qcow2"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("qemu-io is needed here");
    while !scene.rig.store.in_use(&volume.volume.name).await.unwrap() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let refused = scene.grow(&volume, larger).await.unwrap_err();
    assert_eq!(refused.reason, Reason::VolumeInUse);
    let as_it_is = i64::try_from(MIB).unwrap();
    assert_eq!(scene.grow(&volume, as_it_is).await.unwrap(), as_it_is);
    drop(writer.stdin.take());
    writer.wait().unwrap();
    assert_eq!(scene.grow(&volume, larger).await.unwrap(), larger);
}

#[tokio::test]
async fn the_domains_are_listed_page_by_page() {
    let scene = Scene::new(&["a", "b", "z"]).await;
    let mut client = VolumeServiceClient::new(scene.agent.volumes.clone());
    for size in [0, 1, 3, 4] {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListStoragesRequest {
                page_size: size,
                page_token,
            };
            let answer = client.list_storages(request).await.unwrap().into_inner();
            assert!(size == 0 || answer.storages.len() <= usize::try_from(size).unwrap());
            all.extend(answer.storages.into_iter().map(|storage| storage.id));
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(all, ["a", "b", "default", "z"], "in pages of {size}");
    }
    let request = v1::ListStoragesRequest {
        page_token: "?".to_owned(),
        ..v1::ListStoragesRequest::default()
    };
    let refused = client.list_storages(request).await.unwrap_err();
    let refused = Problem::try_from(refused).unwrap();
    assert_eq!(refused.reason, Reason::PageTokenInvalid);
    drop(scene.dir);
}

fn removal(volume: &VolumeInfo, id: u128) -> v1::VolumeRemoval {
    v1::VolumeRemoval {
        request_id: uuid::Uuid::from_u128(id).to_string(),
        volume: Some(v1::VolumeRef {
            storage: volume.volume.storage.to_string(),
            name: volume.volume.name.to_string(),
        }),
        identity: volume.identity.to_string(),
    }
}

fn together(
    first: v1::VolumeRemoval,
    also: Vec<v1::VolumeRemoval>,
    generation: i64,
) -> v1::RemoveVolumeRequest {
    v1::RemoveVolumeRequest {
        request_id: first.request_id,
        generation,
        volume: first.volume,
        identity: first.identity,
        also,
    }
}

#[tokio::test]
async fn of_volumes_that_are_removed_together_each_has_its_answer() {
    let scene = Scene::new(&[]).await;
    let used = scene.rig.volume("used.qcow2", None).await;
    let free = scene.rig.volume("free.qcow2", None).await;
    scene.rig.volume("child.qcow2", Some("used.qcow2")).await;
    let mut client = VolumeServiceClient::new(scene.agent.volumes.clone());
    let request = together(removal(&used, 1), vec![removal(&free, 2)], 2);
    for _repeated in 0..2 {
        let answer = client.remove_volume(request.clone()).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.removal, None, "the first one stays");
        let [stays, goes] = &answer.outcomes[..] else {
            panic!("{answer:?}");
        };
        let failure = stays.failure.as_ref().unwrap();
        assert_eq!(failure.reason, Reason::VolumeInUse.as_str());
        assert_eq!(goes.failure, None);
        let gone = goes.removal.as_ref().unwrap();
        assert_eq!(gone.state(), v1::RemovalState::Gone);
        assert_eq!(gone.id, request.also[0].request_id);
    }
    assert!(scene.rig.path("used.qcow2").exists());
    assert!(!scene.rig.path("free.qcow2").exists());
    // An order of an older server is refused whole.
    let older = together(removal(&used, 3), vec![removal(&free, 4)], 1);
    let refused = client.remove_volume(older).await.unwrap_err();
    let refused = Problem::try_from(refused).unwrap();
    assert_eq!(refused.reason, Reason::StaleGeneration);
    drop(scene.dir);
}

#[tokio::test]
async fn no_volume_and_no_id_is_named_twice() {
    let scene = Scene::new(&[]).await;
    let volume = scene.rig.volume("a.qcow2", None).await;
    let other = scene.rig.volume("b.qcow2", None).await;
    let mut client = VolumeServiceClient::new(scene.agent.volumes.clone());
    let also = vec![removal(&volume, 2), removal(&other, 1)];
    let request = together(removal(&volume, 1), also, 1);
    let refused = client.remove_volume(request).await.unwrap_err();
    let refused = Problem::try_from(refused).unwrap();
    let fields: Vec<_> = refused.violations.iter().map(|(it, _)| &**it).collect();
    assert_eq!(fields, ["also[0].volume", "also[1].request_id"]);
    assert!(scene.rig.path("a.qcow2").exists());
    drop(scene.dir);
}
