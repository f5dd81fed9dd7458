//! Logical volumes that have no room, or of which a part has gone bad, in the middle of a merge: the
//! guest stands still at worst, no write is lost, and when the fault is over the delete succeeds.

use super::{BUSY, CHUNK, DISK, MIB, SLOW, begin, grown};
use anyhow::{Context as _, Result, ensure};
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::image::GuestImage;
use livemerge_tests::process::run;
use livemerge_tests::scene::Scene;
use livemerge_vhost::VirtualHost;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const FULL: &str =
    "lvm::faults::a_group_is_full_in_mid_merge_and_guest_and_merge_go_on_when_it_is_extended";
const BAD: &str = "lvm::faults::a_part_of_the_kept_volume_goes_bad_in_mid_copy_and_the_merge_fails_and_not_the_guest";
/// The second disk of the virtual host.
const MORE: &str = "/dev/vdb";
const DEVICE: &str = "/machine/peripheral/virtio-disk0/virtio-backend";
/// All that is written here, with room to spare.
const AMPLE: u64 = 128 * MIB;
/// Where nothing else is written, in MiB, and how much.
const WEIGHT_AT: u64 = 256;
const WEIGHT_MIB: u64 = 64;
/// How far the copy comes.
const GOOD: u64 = 16 * MIB;
const SECTOR: u64 = 512;

fn slow() -> v1::MergeOptions {
    v1::MergeOptions {
        direction: v1::MergeDirection::Commit.into(),
        bytes_per_second: MIB as i64,
    }
}

/// Runs a test in a virtual host with disks of these sizes, in MiB.
fn in_a_host(
    test: &str,
    disks_mib: Vec<u64>,
    body: impl Future<Output = Result<()>>,
) -> Result<()> {
    // Built out here, where it stays.
    GuestImage::build()?;
    let host = VirtualHost {
        memory_mib: 2048,
        processors: 2,
        limit: Duration::from_secs(1100),
        disks_mib,
        ..VirtualHost::default()
    };
    if !host.run_this_test(test)? {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(body)
}

#[test]
fn a_group_is_full_in_mid_merge_and_guest_and_merge_go_on_when_it_is_extended() -> Result<()> {
    in_a_host(FULL, vec![1024, 512], the_group_is_full())
}

async fn the_group_is_full() -> Result<()> {
    let (mut scene, group) = begin(CHUNK, BUSY, |services| {
        // The copy stays behind for as long as it is wanted to.
        services.agent.set("merge.stalled_after_ms=3600000");
    })
    .await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    grown(&mut scene).await?;
    let images = scene.images_of(DISK).await?;
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_copying().await?;
    group.fill()?;

    let paused = scene.api.until_vm(vm, v1::VmState::Paused, SLOW).await;
    paused.with_context(|| scene.services.agent.log_text())?;
    println!("the guest stands still in {:?}", group.sizes()?);
    let log = scene.services.agent.log_text();
    assert!(log.contains("no room can be given"), "{log}");
    let open = scene.api.operation(&deletion.id).await?;
    assert_eq!(open.state(), v1::OperationState::Running, "{open:?}");
    assert_eq!(scene.images_of(DISK).await?, images);
    // What it has said by now is read by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let written = scene.guest.acks.count(DISK);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(scene.guest.acks.count(DISK), written, "it does not stand");

    group.extend(MORE)?;
    scene.api.until_vm(vm, v1::VmState::Running, SLOW).await?;
    scene.write_more(20).await?;
    let log = scene.services.agent.log_text();
    assert!(log.contains("it stood still for want of room"), "{log}");
    scene.api.limit(&deletion, 0).await?;
    scene.api.succeeded(&deletion, SLOW).await?;
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    let left = group.sizes()?;
    assert!(left.keys().eq(["base", "rest"]), "{left:?}");
    all_is_there(scene).await
}

#[test]
fn a_part_of_the_kept_volume_goes_bad_in_mid_copy_and_the_merge_fails_and_not_the_guest()
-> Result<()> {
    in_a_host(BAD, vec![1024], a_part_goes_bad())
}

async fn a_part_goes_bad() -> Result<()> {
    let calm = Workload {
        background_kib: 0,
        ..BUSY
    };
    let (mut scene, group) = begin(AMPLE, calm, |_| {}).await?;
    let vm = scene.vm();
    scene.guest.acks.wait_for_fill(DISK, SLOW).await?;
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of(DISK).await?;
    let mut monitor = scene.monitor()?;
    monitor.write_through(DEVICE, WEIGHT_AT, WEIGHT_MIB)?;
    // All slots of the records are in the new layer.
    scene.write_more(BUSY.slots).await?;

    let mapped = Mapped::of(&images[0])?;
    let first_bad = (image_end(&images[0])? + GOOD) / SECTOR;
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_copying().await?;
    mapped.spoil_from(first_bad)?;
    scene.api.limit(&deletion, 0).await?;
    let ended = scene.api.ended(&deletion, SLOW).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(failure.reason, "MERGE_IO_ERROR", "{failure:?}");
    println!("{failure:?}");
    ensure!(mapped.table()?.contains("error"), "it is good again");
    assert!(
        image_end(&images[0])? / SECTOR >= first_bad,
        "the copy has not come so far"
    );
    scene.write_more(100).await?;
    assert_eq!(scene.guest.acks.errors(DISK), 0);
    assert_eq!(scene.images_of(DISK).await?, images);
    assert_eq!(group.sizes()?.len(), 2);
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].id, snapshot);
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);

    mapped.mend()?;
    let again = scene.api.delete(&snapshot).await?;
    scene.api.succeeded(&again, SLOW).await?;
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    let left = group.sizes()?;
    assert!(left.keys().eq(["base"]), "{left:?}");
    all_is_there(scene).await
}

async fn all_is_there(mut scene: Scene) -> Result<()> {
    scene.write_more(20).await?;
    scene.agrees().await?;
    assert_eq!(scene.guest.acks.errors(DISK), 0);
    for verdict in scene.verdicts().await? {
        println!("{verdict:?}");
        assert_eq!(verdict.lost, [0; 0]);
        assert_eq!(verdict.found, verdict.acknowledged);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
    Ok(())
}

/// Behind what the image has in its file, in bytes. A machine may run on it.
fn image_end(image: &Path) -> Result<u64> {
    let mut check = Command::new("qemu-img");
    check.args(["check", "-U", "-f", "qcow2", "--output=json"]);
    // What is being written looks as if clusters were leaked.
    let output = check.arg(image).output()?;
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    seen["image-end-offset"].as_u64().context("no end")
}

/// The device of a logical volume, which lies in one piece.
struct Mapped {
    name: String,
    good: String,
}

impl Mapped {
    fn of(device: &Path) -> Result<Self> {
        let mut info = Command::new("dmsetup");
        info.args(["info", "-c", "--noheadings", "-o", "name"]);
        let name = run(info.arg(device))?.trim().to_owned();
        let mut mapped = Self {
            name,
            good: String::new(),
        };
        mapped.good = mapped.table()?.trim().to_owned();
        ensure!(mapped.good.lines().count() == 1, "{}", mapped.good);
        Ok(mapped)
    }

    fn table(&self) -> Result<String> {
        run(Command::new("dmsetup").args(["table", &self.name]))
    }

    /// From this sector on every read and write fails with EIO.
    fn spoil_from(&self, sector: u64) -> Result<()> {
        let words: Vec<&str> = self.good.split(' ').collect();
        let [start, length, below @ ..] = words.as_slice() else {
            anyhow::bail!("no table: {}", self.good)
        };
        let length: u64 = length.parse()?;
        ensure!(*start == "0" && sector < length, "{}", self.good);
        let below = below.join(" ");
        let rest = length - sector;
        self.load(&format!("0 {sector} {below}\n{sector} {rest} error"))
    }

    fn mend(&self) -> Result<()> {
        self.load(&self.good)
    }

    /// What is under way ends first.
    fn load(&self, table: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, format!("{table}\n"))?;
        run(Command::new("dmsetup")
            .args(["load", &self.name])
            .arg(file.path()))?;
        run(Command::new("dmsetup").args(["resume", &self.name])).map(drop)
    }
}
