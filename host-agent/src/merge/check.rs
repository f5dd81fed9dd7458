//! Everything that would refuse a merge, looked at before anything is touched.

use super::bytes::{Work, measure};
use super::types::{Direction, MergeKind, MergeOrder, VolumeMark};
use crate::chains;
use crate::hypervisor::{DiskView, Hypervisor, Layer, VmState, VmView};
use crate::volumes::{Volumes, unanswered};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{Format, Locator, Profile, VolumeInfo, VolumeRef};
use std::time::Duration;

/// Who orders a merge waits for the answer: a map that takes longer to read is guessed.
const MAP_LIMIT: Duration = Duration::from_secs(5);

/// What the checks found out beside that the order fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// What block job does it.
    pub kind: MergeKind,
    /// What QEMU opens for the volume that is kept.
    pub kept: Locator,
    /// It has only the room that it is given.
    pub given_room: bool,
    /// What QEMU opens for the volumes that leave the chain, oldest first.
    pub removed: Vec<Locator>,
    /// The layer that a pull leaves below the kept one.
    pub below: Option<Locator>,
    /// The layer whose header QEMU changes before all data are where it says.
    pub relinked: Option<Locator>,
    /// Format of the youngest removed volume, which such a layer names, when the definition says it.
    pub backing_format: Option<Format>,
    /// Bytes to copy; when that cannot be read in time, those that the removed volumes take.
    pub copy_bytes: u64,
    /// What it has to do, as far as that could be read.
    pub work: Work,
    /// Where they lie, when that could be read.
    pub profile: Option<Profile>,
}

/// Looks whether the order can be carried out as things are, but for the room that it needs.
///
/// # Errors
/// Says what refuses it, or what did not answer.
pub async fn check(
    order: &MergeOrder,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<Fit, Problem> {
    let fit = fits(order, hypervisor, volumes).await?;
    let layers = order.layers();
    let layers: Vec<&VolumeRef> = layers.iter().map(|mark| &mark.volume).collect();
    let works = measure(&layers, volumes, MAP_LIMIT).await;
    let estimate = || Work::estimate(fit.copy_bytes);
    let work = works
        .as_ref()
        .map_or_else(estimate, |works| works.of(order.direction));
    Ok(Fit {
        copy_bytes: work.copy_bytes,
        work,
        profile: works.map(|works| works.profile(order.direction)),
        ..fit
    })
}

/// Looks at everything but the room. The bytes to copy are those that the removed volumes take.
///
/// # Errors
/// Says what refuses it, or what did not answer.
pub(super) async fn fits(
    order: &MergeOrder,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<Fit, Problem> {
    let vm = hypervisor
        .vm(order.vm)
        .await
        .map_err(|error| chains::vm_error(order.vm, &error))?;
    chains::stays(&vm, hypervisor).await?;
    let kept = same_volume(&order.kept, volumes).await?;
    chains::readable(&kept)?;
    let (mut copy_bytes, mut virtual_bytes) = (0, 0);
    for removed in &order.removed {
        let removed = same_volume(removed, volumes).await?;
        chains::readable(&removed)?;
        no_bitmaps(order, &removed)?;
        copy_bytes += removed.allocated_bytes;
        virtual_bytes = virtual_bytes.max(removed.virtual_bytes);
    }
    let is_given_room = volumes.most_room(&kept).is_some();
    large_enough(&kept, virtual_bytes, is_given_room)?;
    let disk = chains::disk_of(&vm, &order.disk)?;
    does_not_pull(order, &vm)?;
    idle(order, &vm, disk, hypervisor).await?;
    not_kept(order, hypervisor).await?;
    let fit = neighbours(order, disk, volumes)?;
    not_shared(order, disk, &fit, hypervisor, volumes).await?;
    let kind = match vm.state {
        VmState::ShutOff => MergeKind::OfflineCommit,
        VmState::Running | VmState::Paused => fit.kind,
    };
    Ok(Fit {
        // Nobody but QEMU lets a header say what is not so yet.
        relinked: fit.relinked.filter(|_| kind != MergeKind::OfflineCommit),
        kind,
        // The size of a raw one is its room.
        given_room: is_given_room && kept.format != Format::Raw,
        copy_bytes,
        work: Work::estimate(copy_bytes),
        ..fit
    })
}

/// The name still means the volume that the order means.
async fn same_volume(wanted: &VolumeMark, volumes: &Volumes) -> Result<VolumeInfo, Problem> {
    let found = volumes.stat(&wanted.volume).await?;
    if found.identity == wanted.identity {
        return Ok(found);
    }
    let text = format!(
        "{} is no longer the volume that the order means",
        wanted.volume
    );
    Err(Problem::new(Reason::ChainDiverged, text).with("volume", &wanted.volume))
}

/// The bitmaps of a volume go with it, and the next incremental backup would lack what they knew.
/// Those of the volume that is kept are kept up by QEMU, which writes it.
fn no_bitmaps(order: &MergeOrder, removed: &VolumeInfo) -> Result<(), Problem> {
    if removed.bitmaps.is_empty() {
        return Ok(());
    }
    let names = removed.bitmaps.join(", ");
    let text = format!(
        "{} keeps the dirty bitmaps {names}, which would go with it: delete the backup's checkpoints \
         first, or remove the bitmaps with `qemu-img bitmap --remove` while the machine is off",
        removed.volume
    );
    let problem = Problem::new(Reason::StrategyUnsupported, text).with("disk", &order.disk);
    Err(problem
        .with("volume", &removed.volume)
        .with("bitmaps", names))
}

/// QEMU lets a file grow, and an image within its room. A raw volume is as large as its room, which
/// storage gives once: a disk that has grown since does not fit.
fn large_enough(kept: &VolumeInfo, virtual_bytes: u64, is_given_room: bool) -> Result<(), Problem> {
    let grows = kept.format != Format::Raw || !is_given_room;
    if grows || kept.virtual_bytes >= virtual_bytes {
        return Ok(());
    }
    let text = format!(
        "{} is raw and has {} bytes, fewer than the {virtual_bytes} of the disk: extend it first",
        kept.volume, kept.virtual_bytes
    );
    Err(Problem::new(Reason::StrategyUnsupported, text).with("volume", &kept.volume))
}

/// Nobody but QEMU pulls.
fn does_not_pull(order: &MergeOrder, vm: &VmView) -> Result<(), Problem> {
    if vm.state != VmState::ShutOff || order.direction == Direction::Commit {
        return Ok(());
    }
    let text = format!("virtual machine {} does not run: nothing pulls", vm.name);
    Err(Problem::new(Reason::StrategyUnsupported, text).with("vm", order.vm))
}

/// The hypervisor's own snapshots name layers of the disk: after a merge they would name volumes
/// that are gone, and data that has changed.
async fn not_kept(order: &MergeOrder, hypervisor: &dyn Hypervisor) -> Result<(), Problem> {
    let kept = hypervisor.kept_snapshots(order.vm).await;
    let mut kept = kept.map_err(|error| chains::vm_error(order.vm, &error))?;
    kept.retain(|snapshot| snapshot.is_of(&order.disk));
    if kept.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = kept.into_iter().map(|snapshot| snapshot.name).collect();
    let names = names.join(", ");
    let text = format!(
        "libvirt's own snapshots {names} name layers of disk {}: remove libvirt's metadata first, with `virsh snapshot-delete --metadata`",
        order.disk
    );
    let problem = Problem::new(Reason::StrategyUnsupported, text).with("disk", &order.disk);
    Err(problem.with("libvirt_snapshots", names))
}

/// No block job works on the disk, ours or anybody's.
async fn idle(
    order: &MergeOrder,
    vm: &VmView,
    disk: &DiskView,
    hypervisor: &dyn Hypervisor,
) -> Result<(), Problem> {
    if !chains::job_runs(vm, disk, hypervisor).await? {
        return Ok(());
    }
    let text = format!("another block job runs on disk {}", order.disk);
    Err(Problem::new(Reason::ConcurrentChange, text).with("disk", &order.disk))
}

/// The volumes lie directly on one another. Gives them as QEMU has them open, which may be another
/// spelling than storage's own.
fn neighbours(order: &MergeOrder, disk: &DiskView, volumes: &Volumes) -> Result<Fit, Problem> {
    let place = |mark: &VolumeMark| volumes.layer_of(&mark.volume, &disk.chain);
    let places: Option<Vec<_>> = order.layers().into_iter().map(place).collect();
    let in_a_row =
        |places: &Vec<(usize, &Layer)>| places.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
    let Some(places) = places.filter(in_a_row) else {
        let names: Vec<_> = order
            .layers()
            .iter()
            .map(|mark| mark.volume.to_string())
            .collect();
        let text = format!(
            "{} do not lie directly on one another in the chain of {}",
            names.join(", "),
            order.disk
        );
        let problem = Problem::new(Reason::ChainDiverged, text).with("disk", &order.disk);
        return Err(problem.with("volumes", names.join(" ")));
    };
    let (first, last) = (places[0].0, places[places.len() - 1].0);
    let active = last + 1 == disk.chain.len();
    let locators = places.iter().map(|(_, layer)| layer.locator.clone());
    let mut removed: Vec<Locator> = locators.collect();
    let (kind, kept, below, relinked) = match order.direction {
        Direction::Commit => {
            let above = disk.chain.get(last + 1);
            let above = above.map(|above| above.locator.clone());
            let kind = if active {
                MergeKind::ActiveCommit
            } else {
                MergeKind::Commit
            };
            (kind, removed.remove(0), None, above)
        }
        Direction::Pull if active => {
            let below = first
                .checked_sub(1)
                .map(|below| disk.chain[below].locator.clone());
            let kept = removed.remove(removed.len() - 1);
            (MergeKind::Pull, kept.clone(), below, Some(kept))
        }
        Direction::Pull => {
            let text = format!(
                "{} is not the layer that the guest writes",
                order.kept.volume
            );
            let problem = Problem::new(Reason::StrategyUnsupported, text);
            return Err(problem
                .with("disk", &order.disk)
                .with("volume", &order.kept.volume));
        }
    };
    let youngest = disk.position(&removed[removed.len() - 1]);
    let backing_format = youngest.and_then(|place| disk.chain[place].format);
    Ok(Fit {
        kind,
        kept,
        given_room: false,
        removed,
        below,
        relinked,
        backing_format,
        copy_bytes: 0,
        work: Work::estimate(0),
        profile: None,
    })
}

/// A volume with more than one overlay is never written, and its overlay never taken away.
async fn not_shared(
    order: &MergeOrder,
    disk: &DiskView,
    fit: &Fit,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<(), Problem> {
    let marks = std::iter::once(&order.kept).chain(&order.removed);
    let layers: Vec<_> = std::iter::once(&fit.kept)
        .chain(&fit.removed)
        .cloned()
        .collect();
    let built_on = volumes.built_on(&layers).await?;
    let chain: Vec<_> = disk
        .chain
        .iter()
        .map(|layer| layer.locator.clone())
        .collect();
    let machines = hypervisor.references(&layers).await;
    let machines = machines.map_err(|error| unanswered(&error))?;
    for ((mark, layer), machines) in marks.zip(&layers).zip(&machines) {
        let volume = &mark.volume;
        let mut sharers = built_on.sharers(layer, &chain, volumes);
        let others = machines
            .iter()
            .filter(|other| other.vm != order.vm || other.disk != order.disk);
        sharers.extend(
            others.map(|other| format!("{} of virtual machine {}", other.disk, other.name)),
        );
        if !sharers.is_empty() {
            let by = sharers.join(", ");
            let problem = Problem::new(
                Reason::SnapshotSharedBase,
                format!("{volume} is also needed by {by}"),
            );
            return Err(problem.with("volume", volume).with("shared_with", by));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;

    #[tokio::test]
    async fn only_a_raw_volume_that_is_given_its_room_cannot_grow() {
        let image = Rig::new().await.volume("base.qcow2", None).await;
        let raw = VolumeInfo {
            format: Format::Raw,
            ..image.clone()
        };
        let bytes = image.virtual_bytes;
        assert!(large_enough(&image, bytes + 1, true).is_ok());
        assert!(large_enough(&raw, bytes + 1, false).is_ok(), "a file");
        assert!(large_enough(&raw, bytes, true).is_ok());
        let refused = large_enough(&raw, bytes + 1, true).unwrap_err();
        assert_eq!(refused.reason, Reason::StrategyUnsupported);
    }
}
