//! Processes that are killed or stopped at a chosen point of a merge, and what is left of their
//! memory, under a guest that writes.

use std::time::Duration;

use anyhow::{Result, ensure};
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::journal;
use livemerge_tests::kills::{self, Victim};
use livemerge_tests::scene::{LIMIT, Scene};

const WORKLOAD: Workload = Workload {
    slots: 256,
    fill_mib: 16,
    background_kib: 64 << 10,
    rate: 50,
};
const HEAVY_BYTES: i64 = 192 << 20;
const DISK: &str = "vda";

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

/// A part of what `make sweep` does at length, as the next three.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_killed_in_every_phase_and_the_merge_succeeds() -> Result<()> {
    let kills = kills::run(Victim::Agent, 0..5, 2).await.all()?;
    assert_eq!(kills.len(), 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_killed_while_it_merges_layers_with_relative_names_and_they_stay_relative()
-> Result<()> {
    let kills = kills::run(Victim::AgentBesideNames, 0..3, 10).await.all()?;
    assert_eq!(kills.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_from_the_acceptance_to_the_removal_and_the_merge_succeeds()
-> Result<()> {
    let kills = kills::run(Victim::Server, 0..6, 9).await.all()?;
    assert_eq!(kills.len(), 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_killed_while_it_starts_the_commit_and_the_merge_succeeds() -> Result<()> {
    let kills = kills::run(Victim::AgentAtStart, 0..3, 3).await.all()?;
    let unmarked = kills.iter().filter(|kill| kill.unmarked).count();
    eprintln!(
        "{} kills, {unmarked} of a job that libvirt did not know",
        kills.len()
    );
    assert_eq!(kills.len(), 3);
    Ok(())
}

/// Two more that `make sweep` does at length.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_loses_power_in_mid_merge_and_nothing_is_removed_before_it_is_back() -> Result<()>
{
    // Copying, copying below a younger snapshot, pivoting.
    let kills = kills::run(Victim::Host, 1..4, 5).await.all()?;
    assert_eq!(kills.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn libvirtd_is_killed_in_every_phase_and_the_job_goes_on() -> Result<()> {
    let kills = kills::run(Victim::Libvirtd, 0..5, 6).await.all()?;
    assert_eq!(kills.len(), 5);
    Ok(())
}

/// libvirt may go on to show a pivot that is over: see the table of faults in docs/operations.md.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_is_killed_with_libvirt_in_it_while_the_guest_is_switched() -> Result<()> {
    let kills = kills::run(Victim::AgentInPivot, 0..3, 7).await.all()?;
    assert_eq!(kills.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_is_killed_between_two_disks_and_the_rest_is_deleted_later() -> Result<()> {
    let kills = kills::run(Victim::MachineBetweenDisks, 0..4, 4)
        .await
        .all()?;
    assert_eq!(kills.len(), 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_asked_to_stop_leaves_no_guest_standing() -> Result<()> {
    let mut scene = Scene::begin_with_monitor(&[DISK], WORKLOAD).await?;
    let vm = scene.vm();
    for phase in ["copying", "pivoting", "verifying"] {
        let snapshot = scene.snapshot(phase).await?;
        scene.grow_active_layer(DISK, HEAVY_BYTES).await?;
        let images = scene.images_of(DISK).await?;
        let known = scene.journal().merges();
        let deletion = scene.api.delete(&snapshot).await?;
        let merge = scene
            .until_written(&known, move |line| line.phase == phase)
            .await?;

        // Says so if the exit code is another than 0.
        scene.services.agent.stop()?;
        let story = scene.journal().history(&merge)?;
        eprintln!("asked to stop in {phase}, stopped at {:?}", story.last());
        let stands = |line: &journal::Line| ["pivoting", "verifying"].contains(&&*line.phase);
        let last = story.last().filter(|line| stands(line));
        assert_eq!(last, None, "it ended within the pivot: {story:?}");
        scene.write_more(20).await?;
        let open = story.iter().all(|line| line.phase != "merged");
        if open {
            // QEMU goes on until nothing is left but the pivot.
            scene.until_job(|job| job["ready"] == true).await?;
            assert!(images[1].exists());
        }
        scene.services.agent.start()?;

        scene.api.succeeded(&deletion, LIMIT).await?;
        let story = scene.journal().history(&merge)?;
        assert_eq!(journal::starts(&story), 1, "{story:?}");
        assert!(!images[1].exists());
        assert_eq!(scene.api.list(vm).await?, []);
        assert_eq!(scene.images_of(DISK).await?, images[..1]);
    }
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_asked_to_stop_goes_on_at_its_next_start() -> Result<()> {
    let mut scene = Scene::begin(&[DISK], WORKLOAD).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer(DISK, HEAVY_BYTES).await?;
    let images = scene.images_of(DISK).await?;
    let deletion = scene.api.delete(&snapshot).await?;
    let merge = scene.until_copying().await?;

    scene.services.api.stop()?;
    scene.until_merged(&merge.id).await?;
    assert!(images[1].exists(), "nobody has ordered its removal yet");
    scene.services.api.start()?;

    let ended = scene.api.succeeded(&deletion, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    let log = scene.api.log(vm).await?;
    let resumed = log.iter().any(|event| {
        event.operation_id == ended.id && event.r#type() == v1::EventType::OperationResumed
    });
    assert!(resumed, "{log:?}");
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// What ends the block job that nobody knows any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByHand {
    /// Without its work.
    Abort,
    /// When all is copied.
    Pivot,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_fails_its_merge_alone_and_removes_nothing() -> Result<()> {
    let mut scene = Scene::begin_with_daemon(&[DISK], WORKLOAD).await?;
    let other = scene.rig.start_guest("other", &[DISK], 2 << 30, WORKLOAD)?;
    other.acks.wait_for(DISK, 20, LIMIT).await?;
    scene.api.wait_for_vm(other.spec.uuid, LIMIT).await?;
    let beside = scene.api.snapshot(other.spec.uuid, "beside").await?;
    other.acks.wait_for_more(DISK, 20, LIMIT).await?;

    // A line of the journal is changed, and the job is called off by hand.
    let (deletion, merge) = hold_in_mid_merge(&mut scene, "changed").await?;
    let known = scene.journal().merges();
    let going_on = scene.api.delete(&beside).await?;
    scene
        .until_written(&known, |line| line.phase == "copying")
        .await?;
    scene.services.agent.kill()?;
    journal::flip(&scene.journal().file(&merge))?;
    scene.services.agent.start()?;
    assert_set_aside(&scene, &merge);
    scene.api.succeeded(&going_on, LIMIT).await?;
    fails_and_can_be_had_again(&mut scene, &deletion, ByHand::Abort).await?;

    // The file is cut in its first line, and the job is brought to its end by hand.
    let (deletion, merge) = hold_in_mid_merge(&mut scene, "cut").await?;
    scene.services.agent.kill()?;
    journal::cut(&scene.journal().file(&merge))?;
    scene.services.agent.start()?;
    assert_set_aside(&scene, &merge);
    fails_and_can_be_had_again(&mut scene, &deletion, ByHand::Pivot).await?;

    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

fn assert_set_aside(scene: &Scene, merge: &str) {
    let journal = scene.journal();
    assert!(journal.set_aside(merge).exists());
    assert!(!journal.file(merge).exists());
    let log = scene.services.agent.log_text();
    assert!(log.contains("is damaged and was set aside"), "{log}");
    assert!(log.contains(&format!("{merge}.corrupt")), "{log}");
}

/// Takes a snapshot, and deletes it so slowly that its merge stays in its middle. Returns the
/// delete and the merge's id.
async fn hold_in_mid_merge(scene: &mut Scene, name: &str) -> Result<(v1::Operation, String)> {
    let snapshot = scene.snapshot(name).await?;
    scene.grow_active_layer(DISK, HEAVY_BYTES).await?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&snapshot).await?;
    let merge = scene
        .until_written(&known, |line| line.phase == "copying")
        .await?;
    let begun = std::time::Instant::now();
    while let Err(error) = blockjob(scene, &["--bandwidth", "1"]) {
        ensure!(begun.elapsed() < LIMIT, "no job can be slowed: {error:#}");
    }
    Ok((deletion, merge))
}

fn blockjob(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let name = scene.guest.spec.name.as_str();
    let call = [&["blockjob", name, DISK], arguments].concat();
    scene.rig.virsh().call(&call)
}

/// The delete whose merge nobody remembers fails and leaves all as it is. When the job is ended by
/// hand, the snapshot can be deleted.
async fn fails_and_can_be_had_again(
    scene: &mut Scene,
    deletion: &v1::Operation,
    by_hand: ByHand,
) -> Result<()> {
    let (vm, snapshot) = (scene.vm(), deletion.snapshot_id.as_str());
    let ended = scene.api.ended(deletion, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed);
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(failure.reason, "MERGE_ID_CONFLICT", "{failure:?}");
    let images = scene.images_of(DISK).await?;
    assert_eq!(images.len(), 2, "{images:?}");
    assert!(images.iter().all(|image| image.exists()));
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id, snapshot);
    assert_eq!(
        listed[0].state(),
        v1::SnapshotState::Incomplete,
        "its volume has got data that was written after it was taken"
    );
    scene.write_more(20).await?;

    let known = scene.merges().await?.len();
    end_by_hand(scene, by_hand).await?;
    let again = scene.api.delete(snapshot).await?;
    let again = scene.api.succeeded(&again, LIMIT).await?;
    let merges = scene.merges().await?.len() - known;
    let expected = match by_hand {
        ByHand::Abort => 1,
        ByHand::Pivot => 0,
    };
    assert_eq!(merges, expected, "{again:?}");
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    Ok(())
}

async fn end_by_hand(scene: &Scene, by_hand: ByHand) -> Result<()> {
    if by_hand == ByHand::Abort {
        return blockjob(scene, &["--abort"]).map(drop);
    }
    blockjob(scene, &["--bandwidth", "0"])?;
    let begun = std::time::Instant::now();
    // It is refused until all is copied.
    while let Err(error) = blockjob(scene, &["--pivot"]) {
        ensure!(begun.elapsed() < LIMIT, "no pivot by hand: {error:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
