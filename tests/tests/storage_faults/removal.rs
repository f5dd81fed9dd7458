//! Storage that fails in the middle of a removal: when the volume has lost its name and is only
//! condemned, and when its bytes may be freed already. It stays listed, and goes when it can.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::volume_service_client::VolumeServiceClient;
use livemerge_tests::qmp::Qmp;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use tonic::transport::Endpoint;

use super::{DEVICE, HEAVY_MIB, Immutable, Kept, ReadOnly, assert_nothing_lost};
use super::{guest_with_weight, until};

/// A removal has some milliseconds between its steps.
const LOOK: Duration = Duration::from_micros(50);
/// How long a process takes to stand still.
const STOPS: Duration = Duration::from_millis(20);
/// How often a removal may be too fast to be held.
const TRIES: usize = 10;
/// Input/output error.
const EIO: i32 = 5;

/// A removal in its middle.
struct Removal {
    deletion: v1::Operation,
    /// The volume's own name, which it has lost.
    volume: PathBuf,
    /// Where it is condemned.
    dir: PathBuf,
}

impl Removal {
    /// Nothing but the order and the volume is there, and no next order is begun.
    fn is_untouched(&self) -> bool {
        let files = fs::read_dir(&self.dir).map_or(0, Iterator::count);
        files == 2 && matches!(self.is_purging(), Ok(false))
    }

    fn is_purging(&self) -> Result<bool> {
        is_purging(&self.dir)
    }

    /// The operation waits for this reason; the volume is condemned and listed.
    async fn waits(&self, scene: &mut Scene, reason: &str) -> Result<()> {
        self.waits_unlisted(scene, reason).await?;
        let listed = removals(scene).await?;
        ensure!(listed.len() == 1, "{listed:?}");
        ensure!(listed[0].state() == v1::RemovalState::Condemned);
        ensure!(self.dir.ends_with(&listed[0].id), "{listed:?}");
        Ok(())
    }

    /// The operation waits for this reason, and has tried again; the volume is condemned.
    async fn waits_unlisted(&self, scene: &mut Scene, reason: &str) -> Result<()> {
        let mut seen = v1::Operation::default();
        until("the operation does not wait", async || {
            seen = scene.api.operation(&self.deletion.id).await?;
            ensure!(seen.ended_at.is_none(), "{seen:?}");
            let waiting = seen.waiting.as_ref();
            let waiting = waiting.filter(|waiting| waiting.reason == reason);
            Ok(waiting
                .is_some_and(|waiting| waiting.attempts > 1)
                .then_some(()))
        })
        .await
        .with_context(|| format!("{:?}", seen.waiting))?;
        ensure!(self.dir.join("volume").exists(), "it is gone");
        ensure!(!self.volume.exists(), "it has its name again");
        Ok(())
    }

    /// The fault is over.
    async fn ends(&self, scene: &mut Scene) -> Result<()> {
        scene.api.succeeded(&self.deletion, LIMIT).await?;
        ensure!(!self.dir.exists() && !self.volume.exists());
        ensure!(removals(scene).await?.is_empty());
        ensure!(scene.images_of("vda").await?.len() == 1);
        let vm = scene.vm();
        ensure!(scene.api.list(vm).await?.is_empty());
        scene.agrees().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_fails_in_mid_removal_and_the_volume_stays_listed_until_it_goes() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.limit_images(320)?;
    let (mut scene, mut monitor) = guest_with_weight(rig).await?;
    type Begin = fn(&Rig) -> Result<Kept>;
    let faults: [(&str, Begin); 2] = [
        ("INSUFFICIENT_SPACE", |rig| {
            Ok(Kept::Full(rig.small()?.fill_up()?))
        }),
        ("STORAGE_UNREACHABLE", |rig| {
            let own = rig.images().join(".livemerge");
            Ok(Kept::ReadOnly(ReadOnly::mount(&own)?))
        }),
    ];
    for (reason, begin) in faults {
        let removal = held_when_condemned(&mut scene, &mut monitor).await?;
        let fault = begin(&scene.rig)?;
        scene.services.agent.freeze(false)?;
        removal.waits(&mut scene, reason).await.context(reason)?;
        ensure!(!removal.is_purging()?);
        scene.write_more(100).await?;
        drop(fault);
        removal.ends(&mut scene).await.context(reason)?;
    }
    fails_while_it_is_freed(&mut scene, &mut monitor).await?;
    assert_eq!(scene.guest.acks.errors("vda"), 0);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// The same when the removal may have begun to free the volume; the agent is killed meanwhile, too.
async fn fails_while_it_is_freed(scene: &mut Scene, monitor: &mut Qmp) -> Result<()> {
    let (snapshot, volume) = heavy_snapshot(scene, monitor).await?;
    // Nobody frees a volume that another call frees: that one is us.
    let other = File::open(&volume)?;
    other.lock()?;
    let known = condemned(&scene.rig)?;
    let deletion = scene.api.delete(&snapshot).await?;
    let dir = next_removal(&scene.rig, &known)?;
    let removal = Removal {
        deletion,
        volume,
        dir,
    };
    until("it is not being freed", async || {
        Ok(removal.is_purging()?.then_some(()))
    })
    .await?;
    let fault = Immutable::make(vec![removal.dir.join("volume")])?;
    drop(other);
    removal.waits(scene, "STORAGE_UNREACHABLE").await?;
    scene.services.agent.kill()?;
    scene.services.agent.start()?;
    let vm = scene.vm();
    scene.api.wait_for_vm(vm, LIMIT).await?;
    removal.waits(scene, "STORAGE_UNREACHABLE").await?;
    scene.write_more(100).await?;
    drop(fault);
    removal.ends(scene).await
}

/// The sector in which a removal is written down goes bad: whoever cannot read what is removed, and
/// how far, removes nothing, and has not forgotten it either.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_cannot_be_read_waits_and_goes_when_it_can() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.put_images_on_a_disk(512)?;
    let (mut scene, mut monitor) = guest_with_weight(rig).await?;
    let removal = held_when_condemned(&mut scene, &mut monitor).await?;
    let order = removal.dir.join("order");
    let read = || {
        fs::read(&order)
            .err()
            .and_then(|error| error.raw_os_error())
    };
    scene.rig.disk()?.make_unreadable(&order)?;
    assert_eq!(read(), Some(EIO));
    // Who has read it goes on with it: the next one has not.
    scene.services.agent.kill()?;
    scene.services.agent.start()?;
    removal
        .waits_unlisted(&mut scene, "STORAGE_UNREACHABLE")
        .await?;
    scene.write_more(100).await?;
    assert_eq!(read(), Some(EIO));

    scene.rig.disk()?.heal()?;
    until("its libvirt does not answer", async || {
        Ok(scene.images_of("vda").await.ok())
    })
    .await?;
    removal.ends(&mut scene).await?;
    assert_eq!(scene.guest.acks.errors("vda"), 0);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// Deletes a snapshot and freezes the agent when the volume has been condemned and nothing of it is
/// freed.
async fn held_when_condemned(scene: &mut Scene, monitor: &mut Qmp) -> Result<Removal> {
    for _ in 0..TRIES {
        let (snapshot, volume) = heavy_snapshot(scene, monitor).await?;
        let known = condemned(&scene.rig)?;
        let deletion = scene.api.delete(&snapshot).await?;
        let dir = next_removal(&scene.rig, &known)?;
        scene.services.agent.freeze(true)?;
        // A thread within a call to the kernel ends that first.
        tokio::time::sleep(STOPS).await;
        let removal = Removal {
            deletion,
            volume,
            dir,
        };
        if removal.is_untouched() {
            return Ok(removal);
        }
        scene.services.agent.freeze(false)?;
        scene.api.succeeded(&removal.deletion, LIMIT).await?;
    }
    anyhow::bail!("the removal was too fast {TRIES} times")
}

/// A snapshot with something to copy above it. Returns its id, and the volume that goes with it.
async fn heavy_snapshot(scene: &mut Scene, monitor: &mut Qmp) -> Result<(String, PathBuf)> {
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of("vda").await?;
    monitor.write_through(DEVICE, 1024, HEAVY_MIB)?;
    let top = images.last().context("no image")?;
    Ok((snapshot, top.clone()))
}

/// Whether the volume that is condemned there may be being freed.
pub(super) fn is_purging(dir: &Path) -> Result<bool> {
    let order: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("order"))?)?;
    order["purging"].as_bool().context("no order")
}

/// The removals that have a directory.
pub(super) fn condemned(rig: &Rig) -> Result<Vec<PathBuf>> {
    let dir = rig.images().join(".livemerge/removals");
    let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Blocks until the volume of another removal than the known ones has been condemned.
pub(super) fn next_removal(rig: &Rig, known: &[PathBuf]) -> Result<PathBuf> {
    let begun = Instant::now();
    let new = |dir: &&PathBuf| !known.contains(dir) && has_volume(dir);
    loop {
        if let Some(dir) = condemned(rig)?.iter().find(new) {
            return Ok(dir.clone());
        }
        ensure!(begun.elapsed() < LIMIT, "nothing is removed");
        std::thread::sleep(LOOK);
    }
}

fn has_volume(dir: &Path) -> bool {
    dir.join("volume").exists()
}

async fn removals(scene: &Scene) -> Result<Vec<v1::Removal>> {
    let endpoint = Endpoint::from_shared(scene.services.agent.endpoint())?;
    let mut volumes = VolumeServiceClient::new(endpoint.connect_lazy());
    let request = v1::ListRemovalsRequest {
        storage: "default".to_owned(),
    };
    Ok(volumes.list_removals(request).await?.into_inner().removals)
}
