//! The API server dies: the host goes on without it, and the next server does what is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use super::{Kill, LIMIT, Scene, pull_the_plug};

const DISK: &str = "vda";
/// The longest delay after the delete was accepted, before its merge is ordered, and after the
/// merge is done, before the volume is gone.
const AT_AN_END_US: u64 = 4_000;
/// The moments that the delay begins at: the delete is accepted, the merge is in that phase. When it
/// is merged, the removal follows.
const MOMENTS: [Option<MergePhase>; 6] = [
    None,
    Some(MergePhase::Copying),
    Some(MergePhase::Ready),
    Some(MergePhase::Pivoting),
    Some(MergePhase::Verifying),
    Some(MergePhase::Merged),
];

pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    drawn: u64,
) -> Result<()> {
    let moment = MOMENTS[number as usize % MOMENTS.len()];
    if matches!(moment, None | Some(MergePhase::Merged)) {
        kill.delay = Duration::from_micros(drawn % AT_AN_END_US);
    }
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let top = images.last().context("no image")?;
    let known = scene.merges().await?.len();
    let deletion = scene.api.delete(&snapshot).await?;
    let mut seen = match moment {
        None => None,
        Some(phase) => Some(scene.until_phase(known, phase).await?),
    };
    std::thread::sleep(kill.delay);
    scene.services.api.kill()?;

    let begun = scene.merges().await?.get(known).cloned();
    seen = seen.or(begun.as_ref().map(v1::Merge::phase));
    kill.moment = match seen {
        None => "accepted, nothing ordered".to_owned(),
        Some(MergePhase::Merged) if top.exists() => "Merged, not removed".to_owned(),
        Some(MergePhase::Merged) => "Merged and removed".to_owned(),
        Some(phase) => format!("{phase:?}"),
    };
    if let Some(merge) = begun {
        let open = merge.phase() < MergePhase::Merged;
        scene.until_merged(&merge.id).await?;
        let orderless = !open || top.exists();
        ensure!(orderless, "{} went without an order", top.display());
        kill.merged = !open;
    }
    scene.services.api.start()?;

    let ended = scene.api.succeeded(&deletion, LIMIT).await?;
    ensure!(ended.snapshot_id == snapshot, "{ended:?}");
    let merges = scene.merges().await?.len() - known;
    ensure!(merges == 1, "{merges} merges were ordered");
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let left = scene.api.list(vm).await?;
    ensure!(left.is_empty(), "snapshots: {left:?}");
    ensure!(!top.exists(), "{} is still there", top.display());
    ensure!(scene.images_of(DISK).await? == images[..images.len() - 1]);
    let log = scene.api.log(vm).await?;
    let own = log.iter().filter(|event| event.operation_id == ended.id);
    let deleted = own.filter(|event| event.r#type() == v1::EventType::SnapshotDeleted);
    ensure!(deleted.count() == 1, "{log:?}");
    scene.write_more(20).await?;
    pull_the_plug(scene, kill).await
}
