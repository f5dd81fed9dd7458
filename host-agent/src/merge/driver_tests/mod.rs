//! Merges driven to their end over the scripted hypervisor, on real volumes.
//!
//! Nothing of a block job moves but by a test's word; what the drivers do is awaited on the board
//! and in the log of calls.

mod cancel;
mod commit_end;
mod given;
mod ladder;
mod late;
mod limit;
mod migrating;
mod overlaying;
mod pull;
mod replaced;
mod restart;
mod room;
mod slack;
mod together;
mod unwritten;

use super::*;
use crate::hypervisor::fake::{Call, FakeHypervisor};
use crate::hypervisor::{HypervisorError, VmState};
use crate::rig::Rig;
use crate::tenure::Tenure;
use livemerge_proto::ids::DiskTarget;
use livemerge_runtime::{Backoff, ManualClock};
use livemerge_storage::{Locator, VolumeInfo};

const PATIENCE: Duration = Duration::from_secs(20);
/// Blocks that the guest has written to each disk.
const WRITTEN: u64 = 5;
const GENERATION: u64 = 1;

/// A running machine, each of its disks with a base and two overlays on it, and the agent.
struct Host {
    rig: Rig,
    vm: VmId,
    disks: Vec<(DiskTarget, Vec<VolumeInfo>)>,
    merges: Arc<Merges>,
    shutdown: Shutdown,
    tenure: Tenure,
    state: tempfile::TempDir,
    policy: Policy,
    clock: Arc<ManualClock>,
}

impl Host {
    async fn new(disks: &[&str]) -> Self {
        Self::with(disks, patient()).await
    }

    /// With an agent that soon does something about a copy that stands still.
    async fn impatient(disks: &[&str]) -> Self {
        let policy = Policy {
            stalled_after: Duration::from_millis(20),
            ..patient()
        };
        Self::with(disks, policy).await
    }

    async fn with(disks: &[&str], policy: Policy) -> Self {
        let (rig, state) = (Rig::new().await, tempfile::tempdir().unwrap());
        let mut chains = vec![];
        for disk in disks {
            let [base, middle, top] =
                ["base", "middle", "top"].map(|layer| format!("{disk}-{layer}.qcow2"));
            let chain = vec![
                rig.volume(&base, None).await,
                rig.volume(&middle, Some(&base)).await,
                rig.volume(&top, Some(&middle)).await,
            ];
            chains.push((disk.parse().unwrap(), chain));
        }
        let locators: Vec<Vec<Locator>> = chains.iter().map(|(_, c)| locators(c)).collect();
        let named = disks.iter().zip(&locators);
        let named: Vec<_> = named.map(|(disk, c)| (*disk, c.as_slice())).collect();
        let vm = rig.machine_of(1, &named);
        for disk in disks {
            for block in 0..WRITTEN {
                assert!(
                    rig.host
                        .guest_write(vm, &disk.parse().unwrap(), block, 7 + block)
                );
            }
        }
        let shutdown = Shutdown::new();
        let clock = Arc::new(ManualClock::new(samples::now()));
        let (merges, tenure) = open(&rig, state.path(), &policy, &clock, &shutdown).await;
        Self {
            tenure,
            policy,
            clock,
            rig,
            vm,
            disks: chains,
            merges,
            shutdown,
            state,
        }
    }

    fn qemu(&self) -> &FakeHypervisor {
        &self.rig.host
    }

    /// Ends the agent where its journal allows it, and starts another one.
    async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    async fn stop(&self) {
        self.shutdown.cancel();
        self.merges.stopped().await;
    }

    async fn start_again(&mut self) {
        self.shutdown = Shutdown::new();
        let state = self.state.path();
        let (policy, clock) = (&self.policy, &self.clock);
        let opened = open(&self.rig, state, policy, clock, &self.shutdown).await;
        (self.merges, self.tenure) = opened;
    }

    /// Commits the disk's layers between `kept` and `youngest` into `kept`.
    fn commit(&self, disk: &DiskTarget, kept: usize, youngest: usize) -> MergeOrder {
        let chain = &self.chain_of(disk);
        let marks: Vec<_> = chain[kept..=youngest].iter().map(mark).collect();
        let (kept, removed) = marks.split_first().expect("two layers at least");
        MergeOrder {
            id: MergeId::from(uuid::Uuid::now_v7()),
            generation: GENERATION,
            vm: self.vm,
            disk: disk.clone(),
            direction: Direction::Commit,
            kept: kept.clone(),
            removed: removed.to_vec(),
            together: vec![],
            bytes_per_second: 0,
            spare: None,
        }
    }

    fn chain_of(&self, disk: &DiskTarget) -> &[VolumeInfo] {
        let found = self.disks.iter().find(|(target, _)| target == disk);
        &found.expect("a disk of the machine").1
    }

    /// An active commit of the two overlays of each of these disks.
    fn group(&self, disks: &[&str]) -> Vec<MergeOrder> {
        let disks = disks.iter().map(|disk| disk.parse().unwrap());
        let mut orders: Vec<_> = disks.map(|disk| self.commit(&disk, 0, 2)).collect();
        let together: Vec<_> = orders.iter().map(|order| order.id).collect();
        for order in &mut orders {
            order.together.clone_from(&together);
        }
        orders
    }

    /// The same, accepted.
    async fn started(&self, disks: &[&str]) -> Vec<MergeId> {
        let orders = self.group(disks);
        let ids = orders.iter().map(|order| order.id).collect();
        self.merges.start(orders).await.unwrap();
        ids
    }

    fn phase(&self, merge: MergeId) -> Phase {
        self.merges.get(merge).expect("it is known").record.phase
    }

    async fn until(&self, merge: MergeId, wanted: impl Fn(&Phase) -> bool) -> Phase {
        let mut board = self.merges.watch();
        let is = |views: &Views| wanted(&views[&merge].record.phase);
        let reached = tokio::time::timeout(PATIENCE, board.wait_for(is)).await;
        reached
            .unwrap_or_else(|_| panic!("still {:?}", self.phase(merge)))
            .unwrap();
        self.phase(merge)
    }

    async fn ended(&self, merge: MergeId) -> Phase {
        self.until(merge, Phase::ended).await
    }

    /// Waits until the disk's job runs.
    async fn job(&self, disk: &DiskTarget) {
        let runs = || self.qemu().running_job(self.vm, disk).is_some();
        eventually("the job", runs).await;
    }

    /// Copies all that is left of a disk's job, once it runs.
    async fn copy(&self, disk: &DiskTarget) {
        self.job(disk).await;
        self.qemu().advance(self.vm, disk, usize::MAX);
    }

    /// Lets QEMU switch, once it is asked to.
    async fn switch(&self, disk: &DiskTarget) {
        let asked = || {
            let job = self.qemu().running_job(self.vm, disk);
            job.is_some_and(|job| job.asked)
        };
        eventually("the pivot", asked).await;
        assert!(self.qemu().switch(self.vm, disk));
        self.qemu().notice(self.vm, disk);
    }

    /// Waits until the disk was looked at a few times more.
    async fn looks(&self, disk: &DiskTarget) {
        let look = Call::Job(self.vm, disk.clone());
        let looked = || self.count(|call| *call == look);
        let before = looked();
        eventually("more looks", || looked() > before + 3).await;
    }

    fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        self.qemu()
            .calls()
            .iter()
            .filter(|call| wanted(call))
            .count()
    }

    /// The guest runs, reads what it wrote, and writes on.
    fn guest_is_well(&self) {
        let machine = self.qemu().peek(self.vm).expect("it is defined");
        assert_eq!(machine.state, VmState::Running);
        for (disk, _) in &self.disks {
            for block in 0..WRITTEN {
                let read = self.qemu().guest_read(self.vm, disk, block);
                assert_eq!(read, Some(7 + block), "{disk}");
            }
            assert!(self.qemu().guest_write(self.vm, disk, WRITTEN, 1));
        }
    }

    /// The disk's chain has so many of its layers, from the base on, and no job.
    fn chain_is(&self, disk: &DiskTarget, layers: usize) {
        let machine = self.qemu().peek(self.vm).expect("it is defined");
        let view = machine.disk(disk).expect("it has the disk");
        let chain: Vec<_> = view.chain.iter().map(|layer| &layer.locator).collect();
        let wanted = locators(&self.chain_of(disk)[..layers]);
        assert_eq!(chain, wanted.iter().collect::<Vec<_>>(), "{disk}");
        assert_eq!(view.next_start.as_ref(), wanted.last());
        assert_eq!(self.qemu().running_job(self.vm, disk), None);
    }
}

/// Of an agent that looks often and is slow to nothing.
fn patient() -> Policy {
    Policy {
        retry: Backoff::new(Duration::from_millis(10), Duration::from_millis(10)),
        settle: Duration::from_millis(50),
        look_every: Duration::from_millis(5),
        pause_limit: Duration::from_secs(5),
        pivot_limit: Duration::from_secs(5),
        ..Policy::default()
    }
}

async fn open(
    rig: &Rig,
    state: &Path,
    policy: &Policy,
    clock: &Arc<ManualClock>,
    shutdown: &Shutdown,
) -> (Arc<Merges>, Tenure) {
    let dir = state.join("merges");
    let fence = Arc::new(Fence::open(state).unwrap());
    let tenure = Tenure::new(Arc::clone(&fence), shutdown);
    let opened = Merges::open(
        &dir,
        rig.hypervisor(),
        Arc::clone(&rig.volumes),
        fence,
        Arc::clone(clock) as _,
        policy.clone(),
        tenure.work().clone(),
    );
    (opened.await.unwrap(), tenure)
}

fn mark(info: &VolumeInfo) -> VolumeMark {
    VolumeMark {
        volume: info.volume.clone(),
        identity: info.identity.clone(),
    }
}

fn locators(chain: &[VolumeInfo]) -> Vec<Locator> {
    chain.iter().map(|volume| volume.locator.clone()).collect()
}

async fn eventually(what: &str, is: impl Fn() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let came = tokio::time::timeout(PATIENCE, wait).await;
    came.unwrap_or_else(|_| panic!("{what} does not come"));
}

fn vda() -> DiskTarget {
    "vda".parse().unwrap()
}

fn vdb() -> DiskTarget {
    "vdb".parse().unwrap()
}

fn merged(phase: &Phase) -> bool {
    matches!(phase, Phase::Merged { .. })
}

fn cancelled(phase: &Phase) -> bool {
    matches!(phase, Phase::Cancelled { .. })
}

fn copies(phase: &Phase) -> bool {
    matches!(phase, Phase::Copying { .. })
}

fn ready(phase: &Phase) -> bool {
    matches!(phase, Phase::Ready { .. })
}

fn failed_with(phase: &Phase) -> Option<Reason> {
    match phase {
        Phase::Failed { failure, .. } => Some(failure.reason),
        _ => None,
    }
}
