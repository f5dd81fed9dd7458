//! Merges of a machine that is shut off: the decisions, and whole merges on the scripted host.

use super::samples::{disk, job, locator, now, record, seen};
use super::step::{Action, Machine, Observation, Outcome, Step, step};
use super::*;
use crate::hypervisor::{BlockJobKind, BlockJobOutcome, DiskView, VmState};
use crate::rig::{Rig, vda};
use livemerge_runtime::ManualClock;
use livemerge_storage::{Locator, VolumeInfo};

const BEFORE: [&str; 3] = ["old", "base", "top"];
const UNDER: [&str; 4] = ["old", "base", "top", "newer"];

fn at(phase: Phase) -> MergeRecord {
    MergeRecord {
        kind: MergeKind::OfflineCommit,
        phase,
        ..record(true)
    }
}

fn copying(starts: u32) -> Phase {
    let since = now();
    Phase::Copying { starts, since }
}

fn cancelling() -> Phase {
    Phase::Cancelling { since: now() }
}

fn off(disk: DiskView, running: bool) -> Observation {
    let job = running.then(|| job(BlockJobKind::Offline, 1, 9)).flatten();
    seen(VmState::ShutOff, disk, job)
}

/// Long after.
fn late(seen: Observation) -> Observation {
    let long = Duration::from_secs(60);
    Observation {
        in_phase: long,
        job_missing_for: long,
        ..seen
    }
}

fn decide(phase: Phase, seen: &Observation) -> Step {
    step(&at(phase), seen, &Policy::default(), now())
}

fn reason(step: &Step) -> Option<Reason> {
    match step {
        Step::Finish(Outcome::Failed(failure)) => Some(failure.reason),
        _ => None,
    }
}

#[test]
fn it_goes_the_way_of_an_intermediate_commit_wherever_the_layers_lie() {
    for layers in [&BEFORE[..], &UNDER] {
        let started = decide(Phase::Pending, &off(disk(layers), false));
        assert_eq!(started, Step::Enter(copying(1), Some(Action::StartJob)));
        let waits = decide(copying(1), &late(off(disk(layers), true)));
        assert!(matches!(waits, Step::Wait(_)), "{waits:?}");
        let cancelled = decide(cancelling(), &late(off(disk(layers), false)));
        assert_eq!(cancelled, Step::Finish(Outcome::Cancelled));
    }
    for layers in [&["old", "base"][..], &["old", "base", "newer"]] {
        let verifying = Phase::Verifying { suspended_at: None };
        let next = decide(copying(1), &off(disk(layers), false));
        assert_eq!(next, Step::Enter(verifying.clone(), None));
        let done = decide(verifying, &off(disk(layers), false));
        assert_eq!(done, Step::Finish(Outcome::Merged));
    }
    let another = decide(Phase::Pending, &off(disk(&["base", "x", "top"]), false));
    assert_eq!(reason(&another), Some(Reason::ChainDiverged));
}

/// The definition still names a removed layer.
#[test]
fn it_is_not_merged_before_the_next_start_is_one_without_the_removed_layers() {
    let lags = DiskView {
        next_start: Some(locator("top")),
        ..disk(&["old", "base"])
    };
    let waits = decide(copying(1), &off(lags, false));
    assert!(matches!(waits, Step::Wait(_)), "{waits:?}");
}

/// Its job dies with the agent: each start of the agent begins again, however many there are.
#[test]
fn it_begins_again_whenever_the_agent_starts() {
    let gone = late(off(disk(&BEFORE), false));
    assert_eq!(
        reason(&decide(copying(3), &gone)),
        Some(Reason::MergeIoError)
    );
    let restarted = Observation {
        fresh_start: true,
        ..gone
    };
    let again = decide(copying(3), &restarted);
    assert_eq!(again, Step::Enter(copying(3), Some(Action::StartJob)));
    let just_now = Observation {
        job_missing_for: Duration::ZERO,
        ..restarted
    };
    let waits = decide(copying(3), &just_now);
    assert!(matches!(waits, Step::Wait(_)), "an old one may be dying");
}

#[test]
fn a_failed_job_is_a_failed_merge() {
    let failed = Observation {
        told: Some(step::Told::Job(BlockJobOutcome::Failed)),
        ..off(disk(&BEFORE), false)
    };
    let next = decide(copying(1), &failed);
    assert_eq!(reason(&next), Some(Reason::MergeIoError));
}

#[test]
fn a_machine_that_somebody_started_ends_it_once_no_job_is_left() {
    for state in [VmState::Running, VmState::Paused] {
        let runs = |layers: &[&str], job| late(seen(state, disk(layers), job));
        for phase in [Phase::Pending, copying(1), cancelling()] {
            let ours = job(BlockJobKind::Offline, 1, 9);
            let waits = decide(phase.clone(), &runs(&BEFORE, ours));
            assert!(
                matches!(waits, Step::Wait(_)),
                "QEMU is about to be refused"
            );
            let merged = decide(phase, &runs(&["old", "base"], None));
            assert_eq!(merged, Step::Finish(Outcome::Merged));
        }
        for phase in [Phase::Pending, copying(1)] {
            let next = decide(phase, &runs(&BEFORE, None));
            assert_eq!(reason(&next), Some(Reason::ConcurrentChange));
        }
        let cancelled = decide(cancelling(), &runs(&BEFORE, None));
        assert_eq!(cancelled, Step::Finish(Outcome::Cancelled));
        let diverged = decide(cancelling(), &runs(&["old"], None));
        assert_eq!(reason(&diverged), Some(Reason::ConcurrentChange));
    }
}

#[test]
fn a_machine_that_cannot_be_seen_decides_nothing() {
    let unknown = Observation {
        machine: Machine::Unknown,
        ..off(disk(&BEFORE), false)
    };
    for phase in [Phase::Pending, copying(1), cancelling()] {
        let waits = decide(phase, &late(unknown.clone()));
        assert!(matches!(waits, Step::Wait(_)), "{waits:?}");
    }
}

/// The merges of a host on which one machine is shut off, with the chain a, b, c.
struct Host {
    rig: Rig,
    merges: Arc<Merges>,
    vm: VmId,
    layers: [VolumeInfo; 3],
    state: tempfile::TempDir,
}

impl Host {
    async fn new() -> Self {
        let (rig, state) = (Rig::new().await, tempfile::tempdir().unwrap());
        let layers = [
            rig.volume("a.qcow2", None).await,
            rig.volume("b.qcow2", Some("a.qcow2")).await,
            rig.volume("c.qcow2", Some("b.qcow2")).await,
        ];
        let chain = layers.each_ref().map(|info| info.locator.clone());
        let vm = rig.machine(1, &chain);
        for (value, image) in (1..).zip(&chain) {
            rig.host.images().write(image, value, value);
            rig.host.images().write(image, 9, value);
        }
        rig.host.kill_vm(vm);
        let merges = open(&rig, state.path()).await;
        Self {
            rig,
            merges,
            vm,
            layers,
            state,
        }
    }

    /// Of the layer with this number into the one below.
    fn order(&self, top: usize) -> MergeOrder {
        let mark = |info: &VolumeInfo| VolumeMark {
            volume: info.volume.clone(),
            identity: info.identity.clone(),
        };
        MergeOrder {
            id: MergeId::from(uuid::Uuid::now_v7()),
            generation: 1,
            vm: self.vm,
            disk: vda(),
            direction: Direction::Commit,
            kept: mark(&self.layers[top - 1]),
            removed: vec![mark(&self.layers[top])],
            together: vec![],
            bytes_per_second: 0,
            spare: None,
        }
    }

    async fn start(&self, order: MergeOrder) -> Result<MergeView, Problem> {
        let started = self.merges.start(vec![order]).await?;
        Ok(started.into_iter().next().expect("one a order"))
    }

    /// Waits until the copy runs.
    async fn copies(&self) {
        while self.rig.host.running_job(self.vm, &vda()).is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn ended(&self, id: MergeId) -> Phase {
        let mut board = self.merges.watch();
        let is = |views: &Views| views.get(&id).is_some_and(|view| view.record.phase.ended());
        let views = board.wait_for(is).await.unwrap();
        views[&id].record.phase.clone()
    }

    fn chain(&self) -> Vec<Locator> {
        let view = self.rig.host.peek(self.vm).unwrap();
        let layers = view.disks[0].chain.iter();
        layers.map(|layer| layer.locator.clone()).collect()
    }

    /// What the guest reads when it starts now.
    fn content(&self) -> Vec<u64> {
        let next = self.rig.host.peek(self.vm).unwrap();
        let next = next.disks[0].next_start.clone().unwrap();
        let content = self.rig.host.images().content(&next).unwrap();
        content.into_values().collect()
    }

    fn locators(&self, layers: &[usize]) -> Vec<Locator> {
        let layers = layers.iter();
        layers.map(|at| self.layers[*at].locator.clone()).collect()
    }
}

async fn open(rig: &Rig, state: &Path) -> Arc<Merges> {
    let policy = Policy {
        settle: Duration::from_millis(50),
        look_every: Duration::from_millis(5),
        ..Policy::default()
    };
    let dir = state.join("merges");
    let opened = Merges::open(
        &dir,
        rig.hypervisor(),
        Arc::clone(&rig.volumes),
        Arc::new(Fence::open(state).unwrap()),
        Arc::new(ManualClock::new(now())),
        policy,
        Shutdown::new(),
    );
    opened.await.unwrap()
}

#[tokio::test]
async fn the_next_start_reads_the_same_from_fewer_layers() {
    for (top, after) in [(2, &[0, 1][..]), (1, &[0, 2])] {
        let host = Host::new().await;
        let content = host.content();
        let view = host.start(host.order(top)).await.unwrap();
        assert_eq!(view.record.kind, MergeKind::OfflineCommit);
        host.copies().await;
        let locked = host.rig.host.start_vm(host.vm);
        assert!(locked.is_err(), "a job works on its images");
        host.rig.host.advance(host.vm, &vda(), usize::MAX);
        let ended = host.ended(view.record.order.id).await;
        assert!(matches!(ended, Phase::Merged { .. }), "{ended:?}");
        assert_eq!(host.chain(), host.locators(after));
        assert_eq!(host.content(), content);
        host.rig.host.start_vm(host.vm).unwrap();
        assert_eq!(host.chain(), host.locators(after));
    }
}

/// What was written has been found not to be whole.
#[tokio::test]
async fn a_damaged_image_fails_the_merge_and_all_stays() {
    for top in [2, 1] {
        let host = Host::new().await;
        let content = host.content();
        let id = host.start(host.order(top)).await.unwrap().record.order.id;
        host.copies().await;
        host.rig.host.damage_job(host.vm, &vda());
        let Phase::Failed { failure, .. } = host.ended(id).await else {
            panic!("it cannot be merged like that");
        };
        assert_eq!(failure.reason, Reason::ChainCorrupt);
        assert_eq!(host.chain(), host.locators(&[0, 1, 2]));
        assert_eq!(host.content(), content);
    }
}

#[tokio::test]
async fn a_cancelled_one_leaves_the_chain() {
    let host = Host::new().await;
    let content = host.content();
    let id = host.start(host.order(2)).await.unwrap().record.order.id;
    host.copies().await;
    host.rig.host.advance(host.vm, &vda(), 1);
    host.merges.cancel(id, 1).await.unwrap();
    let ended = host.ended(id).await;
    assert!(matches!(ended, Phase::Cancelled { .. }), "{ended:?}");
    assert_eq!(host.chain(), host.locators(&[0, 1, 2]));
    assert_eq!(host.content(), content);
    host.rig.host.start_vm(host.vm).unwrap();
}

#[tokio::test]
async fn an_agent_that_dies_begins_again() {
    let mut host = Host::new().await;
    let content = host.content();
    let id = host.start(host.order(1)).await.unwrap().record.order.id;
    for _ in 0..4 {
        host.copies().await;
        host.rig.host.advance(host.vm, &vda(), 1);
        host.merges.around.shutdown.cancel();
        host.merges.stopped().await;
        host.rig.host.lose_offline_jobs();
        host.merges = open(&host.rig, host.state.path()).await;
    }
    host.copies().await;
    host.rig.host.advance(host.vm, &vda(), usize::MAX);
    let ended = host.ended(id).await;
    assert!(matches!(ended, Phase::Merged { .. }), "{ended:?}");
    assert_eq!(host.content(), content);
}

#[tokio::test]
async fn a_machine_started_before_the_copy_fails_it() {
    let host = Host::new().await;
    let lane = host.merges.lanes.of(host.vm).lock_owned().await;
    let id = host.start(host.order(2)).await.unwrap().record.order.id;
    host.rig.host.start_vm(host.vm).unwrap();
    drop(lane);
    let Phase::Failed { failure, .. } = host.ended(id).await else {
        panic!("it cannot be merged like that");
    };
    assert_eq!(failure.reason, Reason::ConcurrentChange);
    assert_eq!(host.chain(), host.locators(&[0, 1, 2]));
}

#[tokio::test]
async fn nothing_pulls_without_a_guest_and_one_job_is_enough() {
    let host = Host::new().await;
    let commit = host.order(2);
    let pull = MergeOrder {
        direction: Direction::Pull,
        kept: commit.removed[0].clone(),
        removed: vec![commit.kept.clone()],
        ..host.order(2)
    };
    let refused = host.start(pull).await.unwrap_err();
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    assert!(
        refused.message.contains("does not run"),
        "{}",
        refused.message
    );
    // Somebody else's, which no journal of ours has.
    let job = crate::hypervisor::JobOrder {
        disk: vda(),
        kind: BlockJobKind::Offline,
        base: Some(host.layers[0].locator.clone()),
        top: host.layers[1].locator.clone(),
        bytes_per_second: 0,
        merge: None,
    };
    host.rig
        .hypervisor()
        .start_job(host.vm, &job)
        .await
        .unwrap();
    let refused = host.start(host.order(2)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ConcurrentChange);
}
