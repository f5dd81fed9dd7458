//! The keeper on a scripted hypervisor, with room that is given in chunks.

use super::Room;
use super::keeper::keep_every;
use crate::hypervisor::fake::{Call, FakeHypervisor, FakeImages, Pace};
use crate::hypervisor::{Hypervisor as _, Overlay, VmState};
use async_trait::async_trait;
use livemerge_proto::ids::VmId;
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_runtime::Shutdown;
use livemerge_storage::{Locator, VolumeRef};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

const CHUNK: u64 = 4 << 20;
const MOST: u64 = 5 * CHUNK;
const VM: u128 = 7;
const ROUND: Duration = Duration::from_millis(20);

/// Volumes under `/dev/vg/`, with the room that each has.
#[derive(Default)]
struct Chunks {
    rooms: Mutex<BTreeMap<String, u64>>,
    full: Mutex<bool>,
    /// What happens while room is given next.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// How often room was asked for, or how much there is.
    asked: AtomicU64,
}

impl Chunks {
    fn of(&self, name: &str) -> u64 {
        self.rooms
            .lock()
            .unwrap()
            .get(name)
            .copied()
            .unwrap_or(CHUNK)
    }
}

#[async_trait]
impl Room for Chunks {
    fn gives(&self) -> bool {
        true
    }

    async fn provided(&self, locator: &Locator) -> Option<VolumeRef> {
        let Locator::Block(path) = locator else {
            return None;
        };
        let name = path.strip_prefix("/dev/vg").ok()?.to_str()?;
        Some(VolumeRef {
            storage: "vg".parse().unwrap(),
            name: name.parse().unwrap(),
        })
    }

    async fn room(&self, volume: &VolumeRef) -> Result<u64, Problem> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(self.of(volume.name.as_str()))
    }

    async fn provide(&self, volume: &VolumeRef, bytes: u64) -> Result<u64, Problem> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if *self.full.lock().unwrap() {
            return Err(Problem::new(Reason::InsufficientSpace, "full"));
        }
        if let Some(happens) = self.meanwhile.lock().unwrap().take() {
            happens();
        }
        let room = bytes
            .next_multiple_of(CHUNK)
            .min(MOST)
            .max(self.of(volume.name.as_str()));
        self.rooms
            .lock()
            .unwrap()
            .insert(volume.name.to_string(), room);
        Ok(room)
    }
}

/// A machine on two volumes, and a keeper that has looked at it once.
struct Scene {
    host: FakeHypervisor,
    room: Arc<Chunks>,
    vm: VmId,
    shutdown: Shutdown,
}

fn at(name: &str) -> Locator {
    Locator::Block(format!("/dev/vg/{name}").into())
}

impl Scene {
    async fn new() -> Self {
        Self::keeping(ROUND).await
    }

    /// With so much time between two looks at all machines.
    async fn keeping(every: Duration) -> Self {
        let host = FakeHypervisor::new(FakeImages::default(), Pace::Manual);
        let vm = VmId::from(Uuid::from_u128(VM));
        let chain = [Locator::File("/images/old".into()), at("base"), at("top")];
        host.add_vm(vm, "machine", &[("vda", &chain)]);
        let scene = Self {
            host,
            room: Arc::default(),
            vm,
            shutdown: Shutdown::default(),
        };
        let room: Arc<dyn Room> = Arc::clone(&scene.room) as _;
        tokio::spawn(keep_every(
            every,
            Arc::new(scene.host.clone()),
            room,
            CHUNK,
            scene.shutdown.clone(),
        ));
        scene.until(|scene| scene.watched("top") == CHUNK / 2).await;
        scene
    }

    /// The byte that is watched last.
    fn watched(&self, name: &str) -> u64 {
        let calls = self.host.calls();
        let watch = |call: &Call| match call {
            Call::WatchFill(_, _, layer, bytes) if *layer == at(name) => Some(*bytes),
            _ => None,
        };
        calls.iter().rev().find_map(watch).unwrap_or(0)
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn state(&self) -> VmState {
        self.host.vm(self.vm).await.unwrap().state
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[tokio::test]
async fn a_guest_that_writes_on_is_given_room_before_it_has_none() {
    let scene = Scene::new().await;
    let mut written = 0;
    while written < MOST - CHUNK {
        written += CHUNK / 8;
        assert!(
            written < scene.room.of("top"),
            "{written}: it would have stopped"
        );
        scene.host.fill_up(scene.vm, &at("top"), written);
        scene
            .until(|scene| scene.watched("top") > written || scene.room.of("top") == MOST)
            .await;
    }
    // Of the other layer nothing was written, and nothing is given to it.
    assert_eq!(scene.room.of("base"), CHUNK);
}

#[tokio::test]
async fn the_base_of_a_commit_is_given_room_too() {
    let scene = Scene::new().await;
    scene.until(|scene| scene.watched("base") > 0).await;
    scene.host.fill_up(scene.vm, &at("base"), CHUNK - 1);
    scene.until(|scene| scene.room.of("base") > CHUNK).await;
    assert_eq!(scene.room.of("top"), CHUNK);
}

#[tokio::test]
async fn a_full_volume_is_given_no_more_and_nobody_asks_without_end() {
    let scene = Scene::new().await;
    scene.host.fill_up(scene.vm, &at("top"), MOST);
    scene.until(|scene| scene.room.of("top") == MOST).await;
    let asked = || scene.room.asked.load(Ordering::Relaxed);
    let (calls, before) = (scene.host.calls().len(), asked());
    tokio::time::sleep(20 * ROUND).await;
    // Each round looks at the machines, at this one, and asks twice for the layer that is written.
    assert!(scene.host.calls().len() - calls < 100);
    assert!(asked() - before < 60);
}

#[tokio::test]
async fn a_machine_that_had_no_room_runs_again_once_it_has_some() {
    let scene = Scene::new().await;
    *scene.room.full.lock().unwrap() = true;
    scene.host.fill_up(scene.vm, &at("top"), CHUNK);
    scene
        .host
        .run_out_of_room(scene.vm, &"vda".parse().unwrap());
    tokio::time::sleep(10 * ROUND).await;
    assert_eq!(scene.state().await, VmState::Paused, "there is no room yet");
    *scene.room.full.lock().unwrap() = false;
    while scene.state().await != VmState::Running {
        tokio::time::sleep(ROUND).await;
    }
    assert!(scene.room.of("top") > CHUNK);
}

#[tokio::test]
async fn a_machine_that_somebody_has_stopped_stays_so() {
    let scene = Scene::new().await;
    scene.host.suspend(scene.vm).await.unwrap();
    scene.host.fill_up(scene.vm, &at("top"), CHUNK);
    scene.until(|scene| scene.room.of("top") > CHUNK).await;
    tokio::time::sleep(10 * ROUND).await;
    assert_eq!(scene.state().await, VmState::Paused);
}

/// As a merge does for its pivot, or an operator.
#[tokio::test]
async fn a_machine_that_is_stopped_while_it_is_given_room_stays_so() {
    let scene = Scene::new().await;
    let (host, vm) = (scene.host.clone(), scene.vm);
    *scene.room.meanwhile.lock().unwrap() = Some(Box::new(move || {
        host.set_paused(vm, false);
        host.set_paused(vm, true);
    }));
    *scene.room.full.lock().unwrap() = true;
    scene.host.fill_up(vm, &at("top"), CHUNK);
    scene.host.run_out_of_room(vm, &"vda".parse().unwrap());
    *scene.room.full.lock().unwrap() = false;
    let tried = |call: &Call| *call == Call::ResumeIfLacksRoom(vm);
    scene
        .until(|scene| scene.host.calls().iter().any(tried))
        .await;
    tokio::time::sleep(10 * ROUND).await;
    assert_eq!(scene.state().await, VmState::Paused);
}

#[tokio::test]
async fn a_machine_that_lacks_room_which_is_not_given_here_stays_so() {
    let scene = Scene::new().await;
    let other = VmId::from(Uuid::from_u128(VM + 1));
    let file = [Locator::File("/images/file".into())];
    let disks: [(&str, &[Locator]); 2] = [("vda", &[at("own")]), ("vdb", &file)];
    scene.host.add_vm(other, "other", &disks);
    scene.host.run_out_of_room(other, &"vdb".parse().unwrap());
    tokio::time::sleep(10 * ROUND).await;
    let calls = scene.host.calls();
    let resumed = |call: &&Call| matches!(call, Call::ResumeIfLacksRoom(vm) if *vm == other);
    assert_eq!(calls.iter().filter(resumed).count(), 0);
}

/// What it wants to write is farther away than what it is given.
#[tokio::test]
async fn a_machine_that_stops_again_at_once_is_resumed_once_a_round() {
    let scene = Scene::new().await;
    let disk = "vda".parse().unwrap();
    scene.host.fill_up(scene.vm, &at("top"), 1);
    let resumed = || {
        let calls = scene.host.calls();
        let resumed = |call: &&Call| matches!(call, Call::ResumeIfLacksRoom(_));
        calls.iter().filter(resumed).count()
    };
    let (begun, rounds) = (tokio::time::Instant::now(), 20);
    while begun.elapsed() < rounds * ROUND {
        scene.host.run_out_of_room(scene.vm, &disk);
        tokio::time::sleep(ROUND / 10).await;
    }
    let rounds = usize::try_from(begun.elapsed().as_millis() / ROUND.as_millis()).unwrap();
    assert!((1..=rounds + 1).contains(&resumed()), "{}", resumed());
}

#[tokio::test]
async fn a_new_layer_is_watched_at_once() {
    let scene = Scene::keeping(Duration::from_secs(3600)).await;
    scene.host.images().create(&at("new"), Some(&at("top")));
    let overlay = Overlay {
        disk: "vda".parse().unwrap(),
        locator: at("new"),
    };
    scene.host.add_overlays(scene.vm, &[overlay]).await.unwrap();
    scene.until(|scene| scene.watched("new") > 0).await;
}
