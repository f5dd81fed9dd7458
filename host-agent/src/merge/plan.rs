//! How the volumes of a disk could become one, and what each way would cost.
//!
//! ```text
//!   lowest ◀─ … ◀─ youngest      commit   keeps the lowest,   removes all above it
//!                                pull     keeps the youngest, removes all below it
//! ```
//!
//! An option is possible when an order for it would be accepted now: the same checks say so, and
//! their refusal is its blocker. What cannot be told is no blocker but an error of the whole plan.
//! Planning changes nothing and waits for no merge.

use super::bytes::{Work, measure};
use super::check::fits;
use super::room::Room;
use super::types::{Direction, MergeOrder, VolumeMark};
use crate::hypervisor::Hypervisor;
use crate::volumes::Volumes;
use futures::future::try_join_all;
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{Parent, VolumeInfo, VolumeRef};
use std::time::Duration;
use tonic::Code;
use uuid::Uuid;

/// A map that takes longer to read is guessed.
pub(super) const MAP_LIMIT: Duration = Duration::from_secs(20);

/// The volumes of one disk that shall become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskRange {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The oldest of them.
    pub lowest: VolumeMark,
    /// The youngest of them.
    pub youngest: VolumeMark,
    /// The only direction that may be chosen.
    pub forced: Option<Direction>,
}

/// How one disk's volumes can become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPlan {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The direction to take; `None` when none is possible, or not the forced one.
    pub chosen: Option<Direction>,
    /// The commit, then the pull.
    pub options: [MergeOption; 2],
}

impl DiskPlan {
    /// The option to take.
    pub fn choice(&self) -> Option<&MergeOption> {
        let mut options = self.options.iter();
        options.find(|option| Some(option.direction) == self.chosen)
    }
}

/// One way to merge a disk's volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOption {
    /// Which way the data goes.
    pub direction: Direction,
    /// What refuses it.
    pub blocker: Option<Problem>,
    /// The volume that would be kept.
    pub kept: VolumeMark,
    /// The volumes that would leave the chain, oldest first.
    pub removed: Vec<VolumeMark>,
    /// What the job would have to do.
    pub work: Work,
    /// Room in the kept volume's domain, without what open merges and the disks before this one take.
    pub free_bytes: u64,
    /// What the removed volumes take in storage.
    pub freed_bytes: u64,
}

/// Plans the merges of some disks of a machine, which share the room of their domains in this
/// order.
///
/// # Errors
/// When something that a range names is not there, or something did not answer.
pub async fn plan(
    vm: VmId,
    ranges: Vec<DiskRange>,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
    mut room: Room,
) -> Result<Vec<DiskPlan>, Problem> {
    let drafts = ranges
        .iter()
        .map(|range| drafts(vm, range, hypervisor, volumes));
    let drafts = try_join_all(drafts).await?;
    let mut plans = Vec::with_capacity(ranges.len());
    for (range, drafts) in ranges.into_iter().zip(drafts) {
        plans.push(plan_disk(range, drafts, volumes, &mut room).await?);
    }
    Ok(plans)
}

/// One way to merge a disk's volumes, but for the room that it needs.
struct Draft {
    order: MergeOrder,
    work: Work,
    freed_bytes: u64,
    refused: Option<Problem>,
}

/// The commit, then the pull.
async fn drafts(
    vm: VmId,
    range: &DiskRange,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<Vec<Draft>, Problem> {
    let layers = layers(range, volumes).await?;
    let names: Vec<&VolumeRef> = layers.iter().map(|(_, info)| &info.volume).collect();
    let works = measure(&names, volumes, MAP_LIMIT).await;
    let mut drafts = Vec::with_capacity(2);
    for direction in [Direction::Commit, Direction::Pull] {
        let (order, freed_bytes) = draft(vm, &range.disk, direction, &layers);
        let estimate = || Work::estimate(freed_bytes);
        drafts.push(Draft {
            refused: refusal(fits(&order, hypervisor, volumes).await)?,
            work: works.as_ref().map_or_else(estimate, |w| w.of(direction)),
            order,
            freed_bytes,
        });
    }
    Ok(drafts)
}

async fn plan_disk(
    range: DiskRange,
    drafts: Vec<Draft>,
    volumes: &Volumes,
    room: &mut Room,
) -> Result<DiskPlan, Problem> {
    let mut options = Vec::with_capacity(2);
    for draft in drafts {
        let Draft {
            order,
            work,
            freed_bytes,
            refused,
        } = draft;
        let free_bytes = room.free(&order.kept.volume.storage, volumes).await?;
        let wanting = room
            .want((&order.kept, &order.removed), &work, volumes)
            .await?;
        options.push(MergeOption {
            direction: order.direction,
            blocker: refused.or(wanting),
            kept: order.kept,
            removed: order.removed,
            work,
            free_bytes,
            freed_bytes,
        });
    }
    let options = <[MergeOption; 2]>::try_from(options).expect("one a direction");
    let plan = DiskPlan {
        disk: range.disk,
        chosen: choose(&options, range.forced),
        options,
    };
    if let Some(choice) = plan.choice() {
        room.take((&choice.kept, &choice.removed), &choice.work, volumes)
            .await?;
    }
    Ok(plan)
}

/// The cheaper one that is possible and may be chosen; of equals the commit.
pub(super) fn choose(options: &[MergeOption; 2], forced: Option<Direction>) -> Option<Direction> {
    let may = |option: &&MergeOption| {
        option.blocker.is_none() && forced.is_none_or(|forced| forced == option.direction)
    };
    let cheapest = options
        .iter()
        .filter(may)
        .min_by_key(|option| option.work.copy_bytes);
    cheapest.map(|option| option.direction)
}

/// What refuses an order. That something is not there, or does not answer, refuses nothing: it
/// leaves no plan.
fn refusal<T>(checked: Result<T, Problem>) -> Result<Option<Problem>, Problem> {
    match checked {
        Ok(_) => Ok(None),
        Err(unknown) if matches!(unknown.reason.code(), Code::Unavailable | Code::NotFound) => {
            Err(unknown)
        }
        Err(refused) => Ok(Some(refused)),
    }
}

/// An order that nobody gives: it is only looked at. With what the volumes that it removes take.
fn draft(
    vm: VmId,
    disk: &DiskTarget,
    direction: Direction,
    layers: &[(VolumeMark, VolumeInfo)],
) -> (MergeOrder, u64) {
    let kept = match direction {
        Direction::Commit => 0,
        Direction::Pull => layers.len() - 1,
    };
    let removed = layers
        .iter()
        .enumerate()
        .filter(|(place, _)| *place != kept);
    let removed = removed.map(|(_, layer)| layer);
    let freed_bytes = removed.clone().map(|(_, info)| info.allocated_bytes).sum();
    let order = MergeOrder {
        id: MergeId::from(Uuid::nil()),
        generation: 0,
        vm,
        disk: disk.clone(),
        direction,
        kept: layers[kept].0.clone(),
        removed: removed.map(|(mark, _)| mark.clone()).collect(),
        together: vec![],
        bytes_per_second: 0,
        spare: None,
    };
    (order, freed_bytes)
}

/// The volumes of the range as their headers name them, oldest first. Whether the machine has them
/// open so is for the checks to say.
async fn layers(
    range: &DiskRange,
    volumes: &Volumes,
) -> Result<Vec<(VolumeMark, VolumeInfo)>, Problem> {
    let info = volumes.stat(&range.youngest.volume).await?;
    let mut layers = vec![(range.youngest.clone(), info)];
    loop {
        let (mark, info) = &layers[layers.len() - 1];
        let Some(parent) = &info.parent else {
            return Err(diverged(range));
        };
        let below = volume_of(parent, &mark.volume, volumes)?;
        if layers.iter().any(|(mark, _)| mark.volume == below) {
            return Err(diverged(range));
        }
        let info = volumes.stat(&below).await?;
        if below == range.lowest.volume {
            layers.push((range.lowest.clone(), info));
            layers.reverse();
            return Ok(layers);
        }
        let identity = info.identity.clone();
        let volume = below;
        layers.push((VolumeMark { volume, identity }, info));
    }
}

fn volume_of(parent: &Parent, child: &VolumeRef, volumes: &Volumes) -> Result<VolumeRef, Problem> {
    volumes.volume_of(&parent.locator).ok_or_else(|| {
        let text = format!(
            "{child} is built on {}, which lies in no storage domain of this host",
            parent.locator
        );
        let problem = Problem::new(Reason::StrategyUnsupported, text);
        problem.with("volume", child).with("below", &parent.locator)
    })
}

fn diverged(range: &DiskRange) -> Problem {
    let (lowest, youngest) = (&range.lowest.volume, &range.youngest.volume);
    let text = format!("{youngest} is not built on {lowest}");
    Problem::new(Reason::ChainDiverged, text)
        .with("disk", &range.disk)
        .with("volumes", format!("{lowest} {youngest}"))
}
