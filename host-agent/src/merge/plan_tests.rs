//! Plans and accepted orders, on images with data in them.

use super::bytes::Work;
use super::check::check;
use super::plan::{DiskPlan, DiskRange, MergeOption, choose, plan};
use super::room::Room;
use super::types::{Direction, MergeOrder, VolumeMark};
use crate::rig::{Rig, vda};
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::VolumeInfo;
use livemerge_storage::faulty::{Call, Moment};

const KIB: u64 = 1 << 10;
const PLENTY: u64 = 1 << 40;
use Direction::{Commit, Pull};

/// A machine with one chain, oldest volume first.
struct Host {
    rig: Rig,
    vm: VmId,
    volumes: Vec<VolumeInfo>,
}

impl Host {
    /// Volumes `0.qcow2`, `1.qcow2` and so on, with data in these KiB.
    async fn new(layers: &[std::ops::Range<u64>]) -> Self {
        let rig = Rig::new().await;
        rig.store.seem_free(PLENTY);
        let volumes = chain(&rig, "", layers).await;
        let locators: Vec<_> = volumes.iter().map(|info| info.locator.clone()).collect();
        let vm = rig.machine(1, &locators);
        Self { rig, vm, volumes }
    }

    fn range(&self, places: [usize; 2]) -> DiskRange {
        let [lowest, youngest] = places.map(|place| mark(&self.volumes[place]));
        DiskRange {
            disk: vda(),
            lowest,
            youngest,
            forced: None,
        }
    }

    async fn plan(&self, range: DiskRange) -> Result<DiskPlan, Problem> {
        let plans = plan(
            self.vm,
            vec![range],
            &self.rig.host,
            &self.rig.volumes,
            Room::default(),
        )
        .await?;
        Ok(plans.into_iter().next().unwrap())
    }

    /// An order for an option, checked as `StartMerge` does.
    async fn copy_bytes(&self, option: &MergeOption) -> Result<u64, Problem> {
        let order = MergeOrder {
            id: MergeId::from(uuid::Uuid::now_v7()),
            generation: 1,
            vm: self.vm,
            disk: vda(),
            direction: option.direction,
            kept: option.kept.clone(),
            removed: option.removed.clone(),
            together: vec![],
            bytes_per_second: 0,
            spare: None,
        };
        let fit = check(&order, &self.rig.host, &self.rig.volumes).await?;
        let mut room = Room::default();
        room.take((&order.kept, &order.removed), &fit.work, &self.rig.volumes)
            .await?;
        Ok(fit.copy_bytes)
    }

    async fn allocated(&self, marks: &[VolumeMark]) -> u64 {
        let mut sum = 0;
        for mark in marks {
            let info = self.rig.volumes.stat(&mark.volume).await;
            sum += info.unwrap().allocated_bytes;
        }
        sum
    }
}

async fn chain(rig: &Rig, label: &str, layers: &[std::ops::Range<u64>]) -> Vec<VolumeInfo> {
    let mut volumes: Vec<VolumeInfo> = Vec::new();
    for (place, kib) in layers.iter().enumerate() {
        let name = format!("{label}{place}.qcow2");
        let below = volumes.last().map(|below| below.volume.name.to_string());
        volumes.push(rig.volume(&name, below.as_deref()).await);
        rig.write(&name, kib.clone());
    }
    volumes
}

fn mark(info: &VolumeInfo) -> VolumeMark {
    VolumeMark {
        volume: info.volume.clone(),
        identity: info.identity.clone(),
    }
}

fn marks(infos: &[VolumeInfo]) -> Vec<VolumeMark> {
    infos.iter().map(mark).collect()
}

fn reasons(plan: &DiskPlan) -> [Option<Reason>; 2] {
    let reason = |option: &MergeOption| option.blocker.as_ref().map(|blocker| blocker.reason);
    [reason(&plan.options[0]), reason(&plan.options[1])]
}

/// To copy, and room to take.
fn kib(option: &MergeOption) -> (u64, u64) {
    assert!(!option.work.estimated);
    (
        option.work.copy_bytes / KIB,
        option.work.space_needed_bytes / KIB,
    )
}

#[tokio::test]
async fn a_small_base_goes_up_into_a_heavy_active_overlay() {
    let host = Host::new(&[0..128, 64..704]).await;
    let plan = host.plan(host.range([0, 1])).await.unwrap();
    assert_eq!((plan.chosen, reasons(&plan)), (Some(Pull), [None, None]));
    let [commit, pull] = &plan.options;
    assert_eq!((kib(commit), kib(pull)), ((640, 576), (64, 64)));
    assert_eq!(pull.kept, mark(&host.volumes[1]));
    assert_eq!(pull.removed, marks(&host.volumes[..1]));
    assert_eq!(commit.kept, mark(&host.volumes[0]));
    assert_eq!(commit.removed, marks(&host.volumes[1..]));
    for option in &plan.options {
        assert_eq!(option.freed_bytes, host.allocated(&option.removed).await);
        assert_eq!(option.free_bytes, PLENTY);
    }
}

#[tokio::test]
async fn a_light_overlay_goes_down_into_a_heavy_base() {
    let host = Host::new(&[0..704, 64..192]).await;
    let plan = host.plan(host.range([0, 1])).await.unwrap();
    assert_eq!((plan.chosen, reasons(&plan)), (Some(Commit), [None, None]));
    let [commit, pull] = &plan.options;
    assert_eq!((kib(commit), kib(pull)), ((128, 0), (576, 576)));
    // It is written in place, so a full domain is no hindrance.
    host.rig.store.seem_free(0);
    let full = host.plan(host.range([0, 1])).await.unwrap();
    assert_eq!(full.chosen, Some(Commit));
    assert_eq!(reasons(&full), [None, Some(Reason::InsufficientSpace)]);
}

#[tokio::test]
async fn a_forced_direction_is_taken_or_none() {
    let host = Host::new(&[0..704, 64..192]).await;
    let forced = DiskRange {
        forced: Some(Pull),
        ..host.range([0, 1])
    };
    let plan = host.plan(forced.clone()).await.unwrap();
    assert_eq!(plan.choice().unwrap().direction, Pull);
    host.rig.store.seem_free(0);
    let plan = host.plan(forced).await.unwrap();
    assert_eq!((plan.chosen, plan.choice()), (None, None));
}

/// Each byte is copied once, the youngest one's; what lies below the range is nobody's.
#[tokio::test]
async fn several_layers_are_one_job() {
    let host = Host::new(&[0..1024, 0..512, 256..768, 512..576]).await;
    let plan = host.plan(host.range([1, 3])).await.unwrap();
    let [commit, pull] = &plan.options;
    assert_eq!((kib(commit), kib(pull)), ((512, 256), (704, 704)));
    assert_eq!(plan.chosen, Some(Commit));
    assert_eq!(commit.removed, marks(&host.volumes[2..]));
    assert_eq!(pull.removed, marks(&host.volumes[1..3]));
}

#[tokio::test]
async fn below_the_active_layer_there_is_a_commit_only() {
    let host = Host::new(&[0..64, 0..512, 0..64]).await;
    let plan = host.plan(host.range([0, 1])).await.unwrap();
    assert_eq!(plan.chosen, Some(Commit));
    assert_eq!(reasons(&plan), [None, Some(Reason::StrategyUnsupported)]);
}

#[tokio::test]
async fn a_shared_base_blocks_both_and_says_by_whom() {
    let host = Host::new(&[0..64, 0..512]).await;
    let base = host.rig.locator("0.qcow2").to_string();
    host.rig.foreign("clone.qcow2", &base);
    let plan = host.plan(host.range([0, 1])).await.unwrap();
    let shared = Some(Reason::SnapshotSharedBase);
    assert_eq!((plan.chosen, reasons(&plan)), (None, [shared, shared]));
    let clone = host.rig.locator("clone.qcow2").to_string();
    for option in &plan.options {
        let blocker = option.blocker.as_ref().unwrap();
        assert_eq!(blocker.metadata["shared_with"], clone);
    }
}

#[tokio::test]
async fn want_of_space_blocks_and_refuses() {
    let host = Host::new(&[0..64, 64..704]).await;
    let plan = host.plan(host.range([0, 1])).await.unwrap();
    let [commit, pull] = &plan.options;
    assert_eq!((kib(commit), kib(pull)), ((640, 640), (64, 64)));
    assert_eq!(host.copy_bytes(commit).await.unwrap(), 640 * KIB);
    assert_eq!(host.copy_bytes(pull).await.unwrap(), 64 * KIB);

    let wanting = Reason::InsufficientSpace;
    host.rig.store.seem_free((16 << 20) + 640 * KIB);
    let tight = host.plan(host.range([0, 1])).await.unwrap();
    assert_eq!(reasons(&tight), [Some(wanting), None]);
    let refused = host.copy_bytes(commit).await.unwrap_err();
    assert_eq!(refused.reason, wanting);
    assert_eq!(host.copy_bytes(pull).await.unwrap(), 64 * KIB);
    host.rig.store.seem_free((16 << 20) + 647 * KIB);
    assert_eq!(host.copy_bytes(commit).await.unwrap(), 640 * KIB);
}

/// What one disk takes, another one cannot have.
#[tokio::test]
async fn disks_share_the_room_of_their_domain() {
    let rig = Rig::new().await;
    let layers = [0..64, 64..192];
    let disks = [
        chain(&rig, "a", &layers).await,
        chain(&rig, "b", &layers).await,
    ];
    let locators = disks.each_ref().map(|disk| {
        let locators = disk.iter().map(|info| info.locator.clone());
        locators.collect::<Vec<_>>()
    });
    let vm = VmId::from(uuid::Uuid::from_u128(1));
    rig.host
        .add_vm(vm, "one", &[("vda", &locators[0]), ("vdb", &locators[1])]);
    let range = |disk: &str, volumes: &[VolumeInfo]| DiskRange {
        disk: disk.parse::<DiskTarget>().unwrap(),
        lowest: mark(&volumes[0]),
        youngest: mark(&volumes[1]),
        forced: Some(Commit),
    };
    let free = (16 << 20) + 200 * KIB;
    rig.store.seem_free(free);
    let ranges = vec![range("vda", &disks[0]), range("vdb", &disks[1])];
    let plans = plan(vm, ranges, &rig.host, &rig.volumes, Room::default())
        .await
        .unwrap();
    assert_eq!(plans[0].chosen, Some(Commit));
    assert_eq!(plans[0].options[0].free_bytes, free);
    assert_eq!(plans[1].chosen, None);
    assert_eq!(plans[1].options[0].free_bytes, free - 128 * KIB);
    assert_eq!(reasons(&plans[1])[0], Some(Reason::InsufficientSpace));
}

/// The bytes are then only shown: nobody is refused by a guess.
#[tokio::test]
async fn a_map_that_cannot_be_read_is_guessed() {
    let host = Host::new(&[0..64, 64..704]).await;
    let plan = host.plan(host.range([0, 1])).await.unwrap();
    host.rig.store.seem_free(0);
    for moment in [Moment::Before, Moment::After] {
        host.rig.store.lose(Call::Extents, moment);
        let guessed = host.plan(host.range([0, 1])).await.unwrap();
        for option in &guessed.options {
            assert_eq!(option.blocker, None);
            assert_eq!(option.work, Work::estimate(option.freed_bytes));
        }
        assert_eq!(guessed.chosen, Some(Pull));
        host.rig.store.lose(Call::Extents, moment);
        let commit = &plan.options[0];
        let copy_bytes = host.copy_bytes(commit).await.unwrap();
        assert_eq!(copy_bytes, host.allocated(&commit.removed).await);
    }
}

#[tokio::test]
async fn a_range_must_be_one() {
    let host = Host::new(&[0..64, 0..64]).await;
    let reversed = host.plan(host.range([1, 0])).await.unwrap_err();
    assert_eq!(reversed.reason, Reason::ChainDiverged);
    let mut elsewhere = host.range([0, 1]);
    elsewhere.disk = "vdz".parse().unwrap();
    let missing = host.plan(elsewhere).await.unwrap_err();
    assert_eq!(missing.reason, Reason::DiskNotFound);
    let mut another = host.range([0, 1]);
    another.lowest.identity = "another".parse().unwrap();
    let plan = host.plan(another).await.unwrap();
    assert_eq!(reasons(&plan), [Some(Reason::ChainDiverged); 2]);
    host.rig.store.lose(Call::Dependents, Moment::Before);
    let unknown = host.plan(host.range([0, 1])).await.unwrap_err();
    assert_eq!(unknown.reason, Reason::StorageUnreachable);
}

#[tokio::test]
async fn the_cheaper_possible_way_is_chosen() {
    let host = Host::new(&[0..64, 0..64]).await;
    let options = host.plan(host.range([0, 1])).await.unwrap().options;
    for (commit, pull, forced, chosen) in [
        (Some(10), Some(11), None, Some(Commit)),
        (Some(11), Some(10), None, Some(Pull)),
        (Some(10), Some(10), None, Some(Commit)),
        (None, Some(10), None, Some(Pull)),
        (Some(10), None, None, Some(Commit)),
        (None, None, None, None),
        (Some(10), Some(11), Some(Pull), Some(Pull)),
        (Some(11), Some(10), Some(Commit), Some(Commit)),
        (Some(10), None, Some(Pull), None),
        (None, Some(10), Some(Commit), None),
    ] {
        let mut options = options.clone();
        for (option, cost) in options.iter_mut().zip([commit, pull]) {
            let blocker = Problem::new(Reason::StrategyUnsupported, "no");
            option.blocker = cost.is_none().then_some(blocker);
            option.work.copy_bytes = cost.unwrap_or(0);
        }
        assert_eq!(
            choose(&options, forced),
            chosen,
            "{commit:?} {pull:?} {forced:?}"
        );
    }
}
