//! The end of an intermediate commit on storage that is slow to write: QEMU lets the overlay above
//! name the base before the base has its tables, and dies in between. What was committed is then in
//! the volumes below the overlay no more, and still in those that were to be removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1::{self, MergeDirection};
use livemerge_tests::process::run;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};

use super::{CALM, DEVICE, DISK_BYTES, HEAVY_MIB, assert_nothing_lost, until};

/// Where the weight lies, and what it is made of, as `write_through` puts it.
const HEAVY_AT_MIB: u64 = 1024;
const PATTERN: u8 = 90;
/// All of the weight takes some seconds to be written.
const SLOW: u64 = 8 << 20;

/// A merge below a younger snapshot, held where nothing but QEMU's memory knows where the base has
/// what was committed.
struct Held {
    scene: Scene,
    deletion: v1::Operation,
    images: Vec<PathBuf>,
}

/// Who writes down the machine's chain: nobody but the images' headers, or the definition as well, as
/// libvirt does when somebody lets it put overlays on.
#[derive(Clone, Copy, PartialEq)]
enum Chain {
    Headers,
    Definition,
}

async fn held_at_its_end(chain: Chain) -> Result<Held> {
    let rig = Rig::with_daemon_and_disk("vm-vda.qcow2", 512)?;
    let mut spec = rig.describe("vm", &["vda"], DISK_BYTES, CALM)?;
    spec.monitor = Some(rig.path().join("monitor"));
    let guest = rig.start(spec)?;
    guest.acks.wait_for_fill("vda", LIMIT).await?;
    let mut scene = Scene::around(rig, guest).await?;
    let snapshot = scene.snapshot("goes").await?;
    // The base has no room for it yet.
    let mut monitor = scene.monitor()?;
    monitor.write_through(DEVICE, HEAVY_AT_MIB, HEAVY_MIB)?;
    scene.snapshot("stays").await?;
    let images = scene.images_of("vda").await?;
    if chain == Chain::Definition {
        define_with_chain(&scene.rig)?;
    }
    scene.rig.disk()?.slow_down(SLOW)?;
    let by_commit = v1::MergeOptions {
        direction: MergeDirection::Commit.into(),
        bytes_per_second: 0,
    };
    let deletion = scene.api.delete_with(&snapshot, by_commit).await?;
    let overlay = images.last().context("no image")?.clone();
    let base = images[0].clone();
    tokio::task::spawn_blocking(move || until_it_names(&overlay, &base)).await??;
    Ok(Held {
        scene,
        deletion,
        images,
    })
}

impl Held {
    /// Looks at the chain as QEMU left it: no agent may run that would make it whole before.
    async fn qemu_dies_at_its_end(&mut self) -> Result<()> {
        self.qemu_dies().await?;
        ensure!(names(&self.images[2])? == self.images[0], "not at its end");
        let read = reads_pattern(&self.images[2]);
        ensure!(read.is_err(), "QEMU was done: nothing is lost");
        self.scene.rig.disk()?.speed_up()
    }

    async fn qemu_dies(&self) -> Result<()> {
        self.scene.kill_qemu()?;
        // libvirt finds out by itself, in its own time.
        until("libvirt sees no end of the machine", async || {
            let state = self.scene.rig.virsh().state("vm")?;
            Ok((state == "shut off").then_some(()))
        })
        .await
    }

    /// The merge has failed, the chain is as before, and all that was written can be read.
    async fn is_as_before(&mut self) -> Result<()> {
        let ended = self.scene.api.ended(&self.deletion, LIMIT).await?;
        ensure!(ended.state() == v1::OperationState::Failed, "{ended:?}");
        let failure = ended.failure.unwrap_or_default();
        ensure!(failure.reason == "VM_DIED", "{failure:?}");
        let images = self.scene.images_of("vda").await?;
        ensure!(images == self.images, "{images:?}");
        self.reads_all(&self.images[2])
    }

    fn reads_all(&self, image: &Path) -> Result<()> {
        let found = self.scene.look("vda", image)?;
        ensure!(found.lost.is_empty(), "{:?} are lost", found.lost);
        reads_pattern(image)
    }

    /// Deleting again succeeds, and nothing is lost then, either.
    async fn goes_on(mut self) -> Result<()> {
        let again = self.scene.api.delete(&self.deletion.snapshot_id).await?;
        self.scene.api.succeeded(&again, LIMIT).await?;
        ensure!(!self.images[1].exists(), "it is left");
        ensure!(self.scene.images_of("vda").await?.len() == 2);
        reads_pattern(&self.images[2])?;
        self.scene.agrees().await?;
        assert_nothing_lost(&self.scene.verdicts().await?);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_dies_at_the_end_of_an_intermediate_commit_and_the_chain_is_made_whole() -> Result<()>
{
    for chain in [Chain::Headers, Chain::Definition] {
        let mut held = held_at_its_end(chain).await?;
        held.scene.services.agent.freeze(true)?;
        held.qemu_dies_at_its_end().await?;
        held.scene.services.agent.freeze(false)?;
        held.is_as_before().await?;
        held.scene.restart_guest().await?;
        held.goes_on().await?;
    }
    Ok(())
}

/// libvirt has seen the end of the commit and the agent has not: the definition, which overrules the
/// headers, has lost the volume as well.
#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_libvirt_took_out_of_the_definition_are_put_back_there() -> Result<()> {
    let mut held = held_at_its_end(Chain::Definition).await?;
    held.scene.services.agent.freeze(true)?;
    held.scene.rig.disk()?.speed_up()?;
    let removed = held.images[1].display().to_string();
    until("the definition goes on naming the volume", async || {
        let virsh = held.scene.rig.virsh();
        let xml = virsh.call(&["dumpxml", "--inactive", "vm"])?;
        Ok((!xml.contains(&removed)).then_some(()))
    })
    .await?;
    held.qemu_dies().await?;
    held.scene.services.agent.freeze(false)?;
    held.is_as_before().await?;
    held.scene.restart_guest().await?;
    held.goes_on().await
}

/// The agent was down, and somebody was faster: what the machine reads then is told, nothing that
/// is needed to make it whole is removed, and it can be made whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_started_without_what_was_committed_keeps_it_and_is_made_whole()
-> Result<()> {
    let mut held = held_at_its_end(Chain::Headers).await?;
    held.scene.services.agent.kill()?;
    held.qemu_dies_at_its_end().await?;
    let name = held.scene.guest.spec.name.clone();
    held.scene.rig.virsh().call(&["start", &name])?;
    held.scene.services.agent.start()?;
    let ended = held.scene.api.ended(&held.deletion, LIMIT).await?;
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(failure.reason, "CHAIN_LACKS_DATA", "{failure:?}");

    let vm = held.scene.vm();
    held.scene.api.wait_for_vm(vm, LIMIT).await?;
    let again = held.scene.api.delete(&held.deletion.snapshot_id).await;
    let refused = Problem::try_from(again.unwrap_err())?;
    assert_eq!(refused.reason, Reason::ChainLacksData, "{refused:?}");
    assert!(held.images.iter().all(|image| image.exists()));
    let findings = held.scene.api.findings().await?;
    let takes_away = [v1::Repair::RemoveVolume, v1::Repair::ForgetDisk];
    let safe = |finding: &v1::Finding| !takes_away.contains(&finding.repair());
    assert!(findings.iter().all(safe), "{findings:?}");

    // As the message says.
    held.scene.services.agent.stop()?;
    held.qemu_dies().await?;
    let (_, command) = failure.message.split_once('`').context("no command")?;
    let (command, _) = command.split_once('`').context("no command")?;
    let mut words = command.split(' ');
    run(Command::new(words.next().unwrap_or_default()).args(words))?;
    held.scene.guest.acks.catch_up().await?;
    held.reads_all(&held.images[2])?;
    held.scene.rig.virsh().call(&["start", &name])?;
    held.scene.services.agent.start()?;
    held.scene.api.wait_for_vm(vm, LIMIT).await?;
    held.scene.write_more(20).await?;
    held.goes_on().await
}

/// The definition names each layer, as libvirt writes it for whoever lets it put overlays on.
fn define_with_chain(rig: &Rig) -> Result<()> {
    let xml = rig.virsh().call(&["dumpxml", "vm"])?;
    let file = rig.path().join("with-chain.xml");
    fs::write(&file, xml)?;
    let file = file.to_str().context("a path that is no text")?;
    rig.virsh().call(&["define", file])?;
    let defined = rig.virsh().call(&["dumpxml", "--inactive", "vm"])?;
    ensure!(defined.contains("<backingStore"), "{defined}");
    Ok(())
}

fn reads_pattern(image: &Path) -> Result<()> {
    let read = format!("read -P {PATTERN} {HEAVY_AT_MIB}M {HEAVY_MIB}M");
    let said = run(Command::new("qemu-io")
        .args(["-r", "-U", "-c", &read])
        .arg(image))?;
    ensure!(!said.contains("failed"), "{said}");
    Ok(())
}

/// Blocks until the overlay's header names the image.
fn until_it_names(overlay: &Path, image: &Path) -> Result<()> {
    let begun = Instant::now();
    while names(overlay)? != image {
        ensure!(begun.elapsed() < LIMIT, "it goes on naming another");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn names(overlay: &Path) -> Result<PathBuf> {
    let head = livemerge_storage::ImageHead::read(overlay, None)?;
    let parent = head.parent.context("it has no backing")?;
    match parent.locator {
        livemerge_storage::Locator::File(path) => Ok(path),
        other => anyhow::bail!("it names {other}"),
    }
}
