//! The network between the two services is cut for longer than the server bears silence, or right
//! behind what was answered.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_proto::v1;
use livemerge_tests::answers::AnswerLine;
use livemerge_tests::journal::starts;
use livemerge_tests::relay::{Line, Relay};
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Services};

use super::{DISK_BYTES, PATIENT, POLL, WEIGHT_BYTES, WORKLOAD, assert_nothing_lost, slow};

/// After the server has noticed.
const STILL_CUT: Duration = Duration::from_secs(1);

/// Both directions between the services.
struct Lines {
    to_server: Relay,
    to_agent: Relay,
}

impl Lines {
    fn set(&self, line: Line) {
        self.to_server.set(line);
        self.to_agent.set(line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_cut_in_mid_merge_and_before_the_removal_and_both_go_on() -> Result<()> {
    let rig = Rig::new()?;
    let guest = rig.start_guest("vm", &["vda"], DISK_BYTES, WORKLOAD)?;
    let mut services = Services::new(&rig, Reach::Loopback)?;
    let lines = Lines {
        to_server: Relay::before(&services.api.endpoint()).await?,
        to_agent: Relay::before(&services.agent.endpoint()).await?,
    };
    let (to_server, to_agent) = (lines.to_server.endpoint(), lines.to_agent.endpoint());
    services.agent.set(&format!("host.api_server={to_server}"));
    services.agent.set(&format!("host.advertise={to_agent}"));
    let mut scene = Scene::with(rig, guest, services).await?;
    for cut in [Line::Reset, Line::Silent] {
        cut_while_copying(&mut scene, &lines, cut)
            .await
            .with_context(|| format!("{cut:?}, copying"))?;
        cut_before_the_removal(&mut scene, &lines, cut)
            .await
            .with_context(|| format!("{cut:?}, before the removal"))?;
    }
    the_answer_of_a_removal_is_lost(&mut scene, &lines).await?;
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

async fn cut_while_copying(scene: &mut Scene, lines: &Lines, cut: Line) -> Result<()> {
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", WEIGHT_BYTES).await?;
    let images = scene.images_of("vda").await?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&snapshot).await?;
    let merge = scene
        .until_written(&known, |line| line.phase == "copying")
        .await?;
    lines.set(cut);

    // The agent needs nobody.
    scene.until_merged(&merge).await?;
    dark(scene, &deletion).await?;
    assert!(images[1].exists(), "nobody can have ordered its removal");
    // The server answers what it can.
    let vm = scene.vm();
    assert_eq!(scene.api.vm(vm).await?.state(), v1::VmState::Unknown);
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Deleting);

    agree_again(scene, lines, &deletion).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    Ok(())
}

async fn cut_before_the_removal(scene: &mut Scene, lines: &Lines, cut: Line) -> Result<()> {
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of("vda").await?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&snapshot).await?;
    let merge = scene
        .until_written(&known, |line| line.phase == "copying")
        .await?;
    // What it is told meanwhile does not reach it before the cut.
    scene.services.api.freeze(true)?;
    scene.until_merged(&merge).await?;
    lines.set(cut);
    scene.services.api.freeze(false)?;

    dark(scene, &deletion).await?;
    assert!(images[1].exists(), "nobody can have ordered its removal");
    agree_again(scene, lines, &deletion).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    Ok(())
}

/// The order has arrived and is carried out; the line breaks before that is answered.
async fn the_answer_of_a_removal_is_lost(scene: &mut Scene, lines: &Lines) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of("vda").await?;
    let agent = &mut scene.services.agent;
    agent.stop()?;
    agent.fail_at("agent::after-removal=sleep(3000)");
    agent.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let deletion = scene.api.delete(&snapshot).await?;
    let gone = async {
        while images[1].exists() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await?;
    lines.set(Line::Reset);
    let waits = async {
        while scene.api.operation(&deletion.id).await?.waiting.is_none() {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, waits).await??;
    agree_again(scene, lines, &deletion).await?;
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    let log = scene.api.log(vm).await?;
    let removed = log.iter().filter(|event| {
        event.operation_id == deletion.id && event.r#type() == v1::EventType::VolumeRemoved
    });
    assert_eq!(removed.count(), 1);
    Ok(())
}

/// What the agent has measured, and that it has taken the order, is lost on the way: it
/// is measured again, and a merge that the host already lists is not ordered again.
#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_a_plan_and_of_a_start_are_lost_and_the_merge_is_done_once() -> Result<()> {
    let rig = Rig::new()?;
    let guest = rig.start_guest("vm", &["vda"], DISK_BYTES, WORKLOAD)?;
    let mut services = Services::new(&rig, Reach::Loopback)?;
    let line = AnswerLine::before(&services.agent.endpoint()).await?;
    let advertise = format!("host.advertise={}", line.endpoint());
    services.agent.set(&advertise);
    services.agent.set(PATIENT);
    let mut scene = Scene::with(rig, guest, services).await?;

    // The merge is in its middle when it is ordered again.
    let (deletion, merge, images) = both_answers_are_lost(&mut scene, &line, slow()).await?;
    let begun = scene.journal().history(&merge)?;
    assert_eq!(begun.last().map(|line| &*line.phase), Some("copying"));
    line.mend();
    scene.until_host(v1::HostStatus::Up).await?;
    scene.api.limit(&deletion, 0).await?;
    is_done_once(&mut scene, &deletion, &merge, &images).await?;

    // It has ended when it is.
    let at_once = v1::MergeOptions {
        bytes_per_second: 0,
        ..slow()
    };
    let (deletion, merge, images) = both_answers_are_lost(&mut scene, &line, at_once).await?;
    scene.until_merged(&merge).await?;
    assert!(images[1].exists(), "nobody can have ordered its removal");
    line.mend();
    is_done_once(&mut scene, &deletion, &merge, &images).await?;

    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// Leaves the line broken. Gives the delete, its merge, and the images that the disk had before.
async fn both_answers_are_lost(
    scene: &mut Scene,
    line: &AnswerLine,
    options: v1::MergeOptions,
) -> Result<(v1::Operation, String, Vec<PathBuf>)> {
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", WEIGHT_BYTES).await?;
    let images = scene.images_of("vda").await?;
    let known = scene.journal().merges();
    let lost = line.losses();
    line.lose_answer_of("PlanMerge");
    let deletion = scene.api.delete_with(&snapshot, options).await?;
    line.lost(lost + 1, LIMIT).await?;
    line.lose_answer_of("StartMerge");
    line.mend();
    line.lost(lost + 2, LIMIT).await?;
    let merge = scene
        .until_written(&known, |line| line.phase == "copying")
        .await?;
    let shown = scene.api.operation(&deletion.id).await?;
    assert_eq!(shown.state(), v1::OperationState::Running, "{shown:?}");
    Ok((deletion, merge, images))
}

async fn is_done_once(
    scene: &mut Scene,
    deletion: &v1::Operation,
    merge: &str,
    images: &[PathBuf],
) -> Result<()> {
    let vm = scene.vm();
    scene.api.succeeded(deletion, LIMIT).await?;
    let story = scene.journal().history(merge)?;
    assert_eq!(starts(&story), 1, "{story:?}");
    assert!(!images[1].exists());
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    let log = scene.api.log(vm).await?;
    for once in [
        v1::EventType::LiveMergePlanned,
        v1::EventType::LiveMergeStarted,
        v1::EventType::LiveMergeCompleted,
        v1::EventType::VolumeRemoved,
    ] {
        let told = log
            .iter()
            .filter(|event| event.operation_id == deletion.id && event.r#type() == once);
        assert_eq!(told.count(), 1, "{once:?}: {log:?}");
    }
    Ok(())
}

/// The server notices, and waits.
async fn dark(scene: &mut Scene, deletion: &v1::Operation) -> Result<()> {
    scene.until_host(v1::HostStatus::Unresponsive).await?;
    tokio::time::sleep(STILL_CUT).await;
    scene.write_more(20).await?;
    let shown = scene.api.operation(&deletion.id).await?;
    assert_eq!(shown.state(), v1::OperationState::Running, "{shown:?}");
    Ok(())
}

async fn agree_again(scene: &mut Scene, lines: &Lines, deletion: &v1::Operation) -> Result<()> {
    lines.set(Line::Through);
    scene.api.succeeded(deletion, LIMIT).await?;
    scene.until_host(v1::HostStatus::Up).await?;
    let vm = scene.vm();
    scene.api.wait_for_vm(vm, LIMIT).await?;
    assert_eq!(scene.api.list(vm).await?, []);
    Ok(())
}
