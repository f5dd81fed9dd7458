//! What real faults leave behind, as `livemerge doctor` finds it, and what its repairs make of it under
//! a guest that writes.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_tests::process::run;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{RECORD, program};
use serde_json::Value;
use sqlx::Executor as _;
use uuid::Uuid;

use super::removal::{condemned, is_purging, next_removal};
use super::{CALM, Immutable, assert_nothing_lost, connect, until};

const DISK: &str = "vda";
/// As the command line calls it when the record says less than there is.
const ERRORS: i32 = 1;

/// What a call of `livemerge` has left.
#[derive(Debug)]
struct Ran {
    exit: Option<i32>,
    said: Value,
    complained: String,
}

fn livemerge(scene: &Scene, args: &[&str]) -> Result<Ran> {
    let mut command = Command::new(program("livemerge")?);
    command.arg("--server").arg(scene.services.api.endpoint());
    let ran = command.args(args).args(["-o", "json"]).output()?;
    let complained = String::from_utf8_lossy(&ran.stderr).into_owned();
    Ok(Ran {
        exit: ran.status.code(),
        said: serde_json::from_slice(&ran.stdout).unwrap_or_default(),
        complained,
    })
}

/// The findings, with the exit code of the command.
fn doctor(scene: &Scene) -> Result<(Option<i32>, Vec<Value>)> {
    let ran = livemerge(scene, &["doctor"])?;
    let findings = ran.said.as_array().cloned();
    Ok((ran.exit, findings.with_context(|| ran.complained)?))
}

/// The findings of these kinds, once they are all that there is.
async fn found(scene: &Scene, kinds: &[&str]) -> Result<Vec<Value>> {
    let mut seen = Vec::new();
    let look = until("something else is found", async || {
        let (_, findings) = doctor(scene)?;
        let same = findings.iter().map(|finding| &finding["kind"]).eq(kinds);
        seen.clone_from(&findings);
        Ok(same.then_some(findings))
    });
    look.await.with_context(|| format!("{seen:#?}"))
}

fn repair(scene: &Scene, finding: &Value) -> Result<Ran> {
    let id = finding["id"].as_str().context("no id")?;
    livemerge(scene, &["doctor", "--repair", id])
}

/// Applies a repair that is an operation, and waits for its end.
async fn repair_by_deleting(scene: &mut Scene, finding: &Value) -> Result<()> {
    assert_eq!(finding["repair"], "delete_snapshot", "{finding}");
    let ran = repair(scene, finding)?;
    assert_eq!(ran.said["outcome"], "started", "{ran:?}");
    let id = ran.said["operation_id"].as_str().context("no operation")?;
    let operation = scene.api.operation(id).await?;
    scene.api.succeeded(&operation, LIMIT).await?;
    let vm = scene.vm();
    assert_eq!(scene.api.list(vm).await?, []);
    assert_eq!(scene.images_of(DISK).await?.len(), 1);
    nothing_differs(scene).await
}

async fn nothing_differs(scene: &Scene) -> Result<()> {
    found(scene, &[]).await?;
    let (exit, _) = doctor(scene)?;
    assert_eq!(exit, Some(0));
    scene.write_more(20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_faults_leave_is_found_and_each_repair_brings_it_right() -> Result<()> {
    let mut scene = Scene::begin_with_daemon(&[DISK], CALM).await?;
    nothing_differs(&scene).await?;
    an_overlay_that_was_never_put_on(&mut scene).await?;
    a_volume_of_nobody_s(&scene).await?;
    a_removal_that_is_given_up_half_way(&mut scene).await?;
    a_snapshot_that_no_operation_deletes(&mut scene).await?;
    scene.agrees().await?;
    assert_eq!(scene.guest.acks.errors(DISK), 0);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// Somebody copies the disk when its overlay is to be put on, and clones the overlay before it can be
/// taken away again.
async fn an_overlay_that_was_never_put_on(scene: &mut Scene) -> Result<()> {
    let vm = scene.vm();
    let agent = &mut scene.services.agent;
    agent.stop()?;
    agent.fail_at("agent::before-overlays-on=sleep(8000)");
    // A copy that is held back stays so.
    agent.set("merge.stalled_after_ms=3600000");
    agent.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let known = images(scene)?;
    let creation = scene.api.create(vm, "never").await?;
    let overlay = until("no overlay is made", async || {
        let mut new = images(scene)?.into_iter();
        Ok(new.find(|image| !known.contains(image)))
    });
    let overlay = overlay.await?;
    let (clone, copy) = (
        scene.rig.images().join("clone.qcow2"),
        scene.rig.path().join("copy.qcow2"),
    );
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]);
    run(create.arg(&overlay).arg(&clone))?;
    let to = copy.display().to_string();
    let slowly = ["--transient-job", "--bytes", "--bandwidth", "65536"];
    let copying = [&["blockcopy", "vm", DISK, &to], &slowly[..]].concat();
    scene.rig.virsh().call(&copying)?;
    let ended = scene.api.ended(&creation, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed, "{ended:?}");
    scene
        .rig
        .virsh()
        .call(&["blockjob", "vm", DISK, "--abort"])?;
    fs::remove_file(&clone)?;
    assert!(overlay.exists());

    let findings = found(scene, &["leaked_volume"]).await?;
    assert_eq!(findings[0]["repair"], "remove_volume", "{findings:?}");
    let ran = repair(scene, &findings[0])?;
    assert_eq!(ran.said["outcome"], "done", "{ran:?}");
    assert!(!overlay.exists());
    let again = repair(scene, &findings[0])?;
    assert_eq!(again.said["outcome"], "already_gone", "{again:?}");
    assert_eq!(scene.api.list(vm).await?, []);
    let agent = &mut scene.services.agent;
    agent.stop()?;
    agent.fail_at("");
    agent.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    nothing_differs(scene).await
}

fn images(scene: &Scene) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(scene.rig.images())?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == "qcow2") {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// It may be the disk of a machine that is not defined now.
async fn a_volume_of_nobody_s(scene: &Scene) -> Result<()> {
    let name = format!("{}.qcow2", Uuid::new_v4());
    let image = scene.rig.create_image(&name, 1 << 20)?;
    let findings = found(scene, &["leaked_volume"]).await?;
    let ran = repair(scene, &findings[0])?;
    assert_ne!(ran.exit, Some(0), "{ran:?}");
    ensure!(ran.complained.contains("NO_SAFE_REPAIR"), "{ran:?}");
    assert!(image.exists());
    fs::remove_file(image)?;
    nothing_differs(scene).await
}

/// The volume cannot be freed, and whoever waits for that calls the delete off.
async fn a_removal_that_is_given_up_half_way(scene: &mut Scene) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot("given-up").await?;
    let volume = scene.images_of(DISK).await?.pop().context("no image")?;
    // Nobody frees a volume that another call frees: that one is us.
    let other = File::open(&volume)?;
    other.lock()?;
    let known = condemned(&scene.rig)?;
    let deletion = scene.api.delete(&snapshot).await?;
    let dir = next_removal(&scene.rig, &known)?;
    until("it is not being freed", async || {
        Ok(is_purging(&dir)?.then_some(()))
    })
    .await?;
    let fault = Immutable::make(vec![dir.join("volume")])?;
    drop(other);
    until("the operation does not wait", async || {
        let shown = scene.api.operation(&deletion.id).await?;
        Ok(shown.waiting)
    })
    .await?;
    scene.api.cancel(&deletion).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Cancelled, "{ended:?}");

    let findings = found(scene, &["condemned_leftover", "snapshot_incomplete"]).await?;
    assert_eq!(findings[0]["repair"], "resume_removal", "{findings:?}");
    // As long as the fault is there nothing is better, and nothing is worse.
    let early = repair(scene, &findings[0])?;
    assert_ne!(early.said["outcome"], "done", "{early:?}");
    assert!(dir.join("volume").exists());
    let same = found(scene, &["condemned_leftover", "snapshot_incomplete"]).await?;
    drop(fault);
    let ran = repair(scene, &same[0])?;
    // The agent itself tries it again now and then.
    let outcome = ran.said["outcome"].as_str().unwrap_or_default();
    ensure!(["done", "already_gone"].contains(&outcome), "{ran:?}");
    assert!(!dir.exists() && !volume.exists());
    let findings = found(scene, &["snapshot_incomplete"]).await?;
    assert_eq!(scene.api.list(vm).await?.len(), 1);
    repair_by_deleting(scene, &findings[0]).await
}

/// The server dies in mid-merge, and what it had written down of the delete is lost.
async fn a_snapshot_that_no_operation_deletes(scene: &mut Scene) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot("stuck").await?;
    let slow = v1::MergeOptions {
        direction: v1::MergeDirection::Commit.into(),
        bytes_per_second: 1024,
    };
    let known = scene.merges().await?.len();
    let deletion = scene.api.delete_with(&snapshot, slow).await?;
    scene.until_phase(known, v1::MergePhase::Copying).await?;
    scene.services.api.kill()?;
    let mut record = connect(&scene.rig.path().join(RECORD).join("api-server.db")).await?;
    for lost in [
        "DELETE FROM requests WHERE operation_id = ?",
        "DELETE FROM operations WHERE id = ?",
    ] {
        let query = sqlx::query(lost).bind(deletion.id.clone());
        let done = record.execute(query).await?;
        assert_eq!(done.rows_affected(), 1, "{lost}");
    }
    drop(record);
    let vm_name = scene.guest.spec.name.clone();
    let abort = ["blockjob", &vm_name, DISK, "--abort"];
    scene.rig.virsh().call(&abort)?;
    scene.services.api.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;

    let stuck = scene.api.delete(&snapshot).await;
    assert!(stuck.is_err(), "{stuck:?}");
    let findings = found(scene, &["snapshot_stuck"]).await?;
    assert_eq!(doctor(scene)?.0, Some(ERRORS));
    assert_eq!(findings[0]["repair"], "mark_incomplete", "{findings:?}");
    let ran = repair(scene, &findings[0])?;
    assert_eq!(ran.said["outcome"], "done", "{ran:?}");
    let findings = found(scene, &["snapshot_incomplete"]).await?;
    repair_by_deleting(scene, &findings[0]).await
}
