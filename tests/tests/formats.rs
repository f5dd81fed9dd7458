//! Images of every kind that a chain can begin with, under a guest that writes on all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use livemerge_proto::v1::{self, MergeKind};
use livemerge_tests::guest::domain::{DiskSpec, Format, Workload};
use livemerge_tests::process::run;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use serde_json::Value;

const GIB: u64 = 1 << 30;

/// A disk that begins with an image of its own kind.
struct Row {
    disk: &'static str,
    base: &'static str,
    format: Format,
    options: &'static [&'static str],
    /// So large the disk becomes after its first snapshot, in bytes.
    grows_to: Option<u64>,
    /// What `qemu-img info` says of the base, before and after.
    stays: &'static [(&'static str, &'static str)],
}

const PLAIN: Row = Row {
    disk: "",
    base: "",
    format: Format::Qcow2,
    options: &[],
    grows_to: None,
    stays: &[],
};

const ROWS: [Row; 7] = [
    Row {
        disk: "vda",
        base: "raw.raw",
        format: Format::Raw,
        stays: &[("/format", "\"raw\"")],
        ..PLAIN
    },
    Row {
        disk: "vdb",
        base: "grown.qcow2",
        grows_to: Some(2 * GIB),
        ..PLAIN
    },
    Row {
        disk: "vdc",
        base: "small.qcow2",
        options: &["-o", "cluster_size=4k"],
        stays: &[("/cluster-size", "4096")],
        ..PLAIN
    },
    Row {
        disk: "vdd",
        base: "large.qcow2",
        options: &["-o", "cluster_size=2M"],
        stays: &[("/cluster-size", "2097152")],
        ..PLAIN
    },
    Row {
        disk: "vde",
        base: "old.qcow2",
        options: &["-o", "compat=0.10"],
        stays: &[("/format-specific/data/compat", "\"0.10\"")],
        ..PLAIN
    },
    Row {
        disk: "vdf",
        base: "extended.qcow2",
        options: &["-o", "extended_l2=on,cluster_size=128k"],
        stays: &[("/format-specific/data/extended-l2", "true")],
        ..PLAIN
    },
    Row {
        disk: "vdg",
        base: "grown.raw",
        format: Format::Raw,
        grows_to: Some(2 * GIB),
        stays: &[("/format", "\"raw\"")],
        ..PLAIN
    },
];

fn workload() -> Workload {
    Workload {
        slots: 64,
        fill_mib: 4,
        background_kib: 256,
        rate: 50,
    }
}

/// What `qemu-img` says of an image that may be open.
fn info(image: &Path) -> Result<Value> {
    let said = run(Command::new("qemu-img")
        .args(["info", "-U", "--output=json"])
        .arg(image))?;
    Ok(serde_json::from_str(&said)?)
}

fn stays_as_it_was(row: &Row, base: &Path) -> Result<()> {
    let info = info(base)?;
    for (at, wanted) in row.stays {
        let said = info.pointer(at).map(Value::to_string);
        assert_eq!(said.as_deref(), Some(*wanted), "{}: {at}", row.disk);
    }
    Ok(())
}

async fn images(scene: &mut Scene) -> Result<BTreeMap<&'static str, Vec<PathBuf>>> {
    let mut images = BTreeMap::new();
    for row in &ROWS {
        images.insert(row.disk, scene.images_of(row.disk).await?);
    }
    Ok(images)
}

fn kinds(operation: &v1::Operation) -> Vec<MergeKind> {
    operation.disks.iter().map(v1::DiskProgress::kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bases_of_every_kind_take_the_data_of_the_layers_above_them() -> Result<()> {
    let rig = Rig::with_daemon()?;
    let disk = |row: &Row| -> Result<DiskSpec> {
        Ok(DiskSpec {
            target: row.disk.to_owned(),
            path: rig.create_image_with(row.base, row.format, row.options, GIB)?,
            format: row.format,
        })
    };
    let disks = ROWS.iter().map(disk).collect::<Result<_>>()?;
    let guest = rig.start(rig.describe_with("vm", disks, workload())?)?;
    let mut scene = Scene::around(rig, guest).await?;

    let first = scene.snapshot("first").await?;
    for row in &ROWS {
        if let Some(bytes) = row.grows_to {
            let size = format!("{bytes}B");
            scene
                .rig
                .virsh()
                .call(&["blockresize", "vm", row.disk, &size])?;
        }
    }
    scene.write_more(5).await?;
    let second = scene.snapshot("second").await?;
    let before = images(&mut scene).await?;

    // Below the layer that the guest writes: its header names the base, and the base's format.
    let deletion = scene.api.delete(&first).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(kinds(&done), [MergeKind::IntermediateCommit; ROWS.len()]);
    let now = images(&mut scene).await?;
    for row in &ROWS {
        let (before, now) = (&before[row.disk], &now[row.disk]);
        assert_eq!(now, &[before[0].clone(), before[2].clone()], "{}", row.disk);
        assert!(!before[1].exists(), "{}", row.disk);
        let above = info(&now[1])?;
        let format = above["backing-filename-format"].as_str();
        assert_eq!(format, Some(row.format.name()), "{}", row.disk);
    }
    scene.write_more(5).await?;

    // The guest goes over to the bases, each of them opened as what it is.
    let deletion = scene.api.delete(&second).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(kinds(&done), [MergeKind::ActiveCommit; ROWS.len()]);
    let now = images(&mut scene).await?;
    let next = scene.rig.virsh().call(&["dumpxml", "--inactive", "vm"])?;
    for row in &ROWS {
        assert_eq!(now[row.disk], before[row.disk][..1], "{}", row.disk);
        assert!(!before[row.disk][2].exists(), "{}", row.disk);
        let base = &before[row.disk][0];
        stays_as_it_was(row, base)?;
        let size = info(base)?["virtual-size"].as_u64();
        assert_eq!(size, Some(row.grows_to.unwrap_or(GIB)), "{}", row.disk);
        let started_with = next_disk(&next, base)?;
        let format = format!("type='{}'", row.format.name());
        assert!(started_with.contains(&format), "{started_with}");
    }
    assert_eq!(scene.api.list(scene.vm()).await?, []);
    scene.write_more(5).await?;

    // What the definition names is what there is, and it is whole.
    scene.rig.virsh().power_off("vm")?;
    for row in ROWS.iter().filter(|row| row.format == Format::Qcow2) {
        run(Command::new("qemu-img")
            .args(["check", "-q"])
            .arg(&before[row.disk][0]))
        .context(row.disk)?;
    }
    scene.restart_guest().await?;
    for verdict in scene.verdicts().await? {
        assert_eq!(verdict.lost, [0; 0], "{verdict:?}");
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
    Ok(())
}

/// The element of a disk in a definition, by its image.
fn next_disk<'a>(definition: &'a str, image: &Path) -> Result<&'a str> {
    let source = format!("'{}'", image.display());
    let mut disks = definition.split("<disk ").skip(1);
    disks
        .find(|disk| disk.contains(&source))
        .with_context(|| format!("no disk starts from {}", image.display()))
}
