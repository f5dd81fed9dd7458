//! The agent dies, and libvirt within it, while they start the block job: before the job is asked
//! for, when QEMU has it and libvirt has not written that down, or just after.
//!
//! QEMU tells the instant itself, on a second monitor.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Kill, LIMIT, Scene, pull_the_plug};
use crate::qmp::Qmp;

const DISK: &str = "vda";
/// The longest delay after the journal's line: the job is asked for within it.
const AFTER_LINE_US: u64 = 20_000;
/// The longest delay after QEMU has made the job: libvirt writes it down within it.
const AFTER_JOB_US: u64 = 2_000;

/// The delay is drawn anew: how long it may be depends on the moment.
pub(super) async fn kill(
    scene: &mut Scene,
    kill: &mut Kill,
    number: u32,
    drawn: u64,
) -> Result<()> {
    let at_job = number % 2 == 1;
    // Every second delay after the job is none: libvirt needs less than any.
    let delay = match (at_job, number % 4) {
        (false, _) => drawn % AFTER_LINE_US,
        (true, 1) => 0,
        (true, _) => drawn % AFTER_JOB_US,
    };
    kill.delay = Duration::from_micros(delay);
    at(scene, kill, number, at_job).await
}

async fn at(scene: &mut Scene, kill: &mut Kill, number: u32, at_job: bool) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot(&format!("before-{number}")).await?;
    let images = scene.images_of(DISK).await?;
    let mut monitor = scene.monitor()?;
    let known = scene.journal().merges();
    let deletion = scene.api.delete(&snapshot).await?;
    if at_job {
        monitor = tokio::task::spawn_blocking(move || -> Result<Qmp> {
            monitor.wait_for(begins)?;
            Ok(monitor)
        })
        .await??;
        kill.moment = "QEMU has the job".to_owned();
    } else {
        scene
            .until_written(&known, |line| line.phase == "copying")
            .await?;
        kill.moment = "Copying written down".to_owned();
    }
    // A timer of the runtime is too coarse for these delays.
    std::thread::sleep(kill.delay);
    scene.services.agent.kill()?;

    let jobs = monitor.execute("query-block-jobs", &json!({}))?;
    let runs = jobs.as_array().is_some_and(|jobs| !jobs.is_empty());
    let name = &scene.guest.spec.name;
    let marked = scene.rig.virsh().written_xml(name)?.contains("<mirror ");
    let layers = monitor.execute("query-block", &json!({}))?;
    let top = images.last().context("no image")?;
    kill.merged = !layers.to_string().contains(&*top.to_string_lossy());
    kill.unmarked = runs && !marked;
    drop(monitor);

    scene.services.agent.start()?;
    scene.api.succeeded(&deletion, LIMIT).await?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    let left = scene.api.list(vm).await?;
    ensure!(left.is_empty(), "snapshots: {left:?}");
    ensure!(!top.exists(), "{} is still there", top.display());
    ensure!(scene.images_of(DISK).await? == images[..images.len() - 1]);
    scene.write_more(20).await?;
    pull_the_plug(scene, kill).await
}

/// QEMU has made the commit's job.
fn begins(event: &Value) -> bool {
    event["event"] == "JOB_STATUS_CHANGE"
        && event["data"]["status"] == "created"
        && event["data"]["id"]
            .as_str()
            .is_some_and(|id| id.starts_with("commit-"))
}
