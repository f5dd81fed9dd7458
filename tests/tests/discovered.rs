//! Layers that others have frozen, on a real libvirt that others use at the same time: they are listed
//! and deleted like any other, refused with the reason, or only reported.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1::{self, MergeKind};
use livemerge_tests::guest::domain::{DiskSpec, Format, Workload};
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use uuid::Uuid;

const GIB: u64 = 1 << 30;
const POLL: Duration = Duration::from_millis(100);

fn calm() -> Workload {
    Workload {
        slots: 128,
        fill_mib: 4,
        background_kib: 256,
        rate: 50,
    }
}

/// A machine of which the record knows nothing but that it is there. Its disk `vda` is a chain that
/// others have made, with relative names.
async fn scene() -> Result<Scene> {
    let rig = Rig::with_daemon()?;
    rig.create_image("base.qcow2", GIB)?;
    let on = |below: &'static str| ["-F", "qcow2", "-b", below];
    rig.create_image_with("old.qcow2", Format::Qcow2, &on("base.qcow2"), GIB)?;
    let path = rig.create_image_with("now.qcow2", Format::Qcow2, &on("old.qcow2"), GIB)?;
    let disk = DiskSpec {
        target: "vda".to_owned(),
        path,
        format: Format::Qcow2,
    };
    let guest = rig.start(rig.describe_with("vm", vec![disk], calm())?)?;
    Scene::around(rig, guest).await
}

/// Freezes the active layer by virsh, which leaves no metadata behind.
async fn frozen_by_virsh(scene: &Scene, overlay: &str) -> Result<PathBuf> {
    let path = scene.rig.images().join(overlay);
    scene.rig.virsh().snapshot("vm", &[("vda", &path)])?;
    scene.write_more(20).await?;
    Ok(path)
}

/// Waits until the machine's snapshots are of these volumes, oldest first.
async fn until_listed(scene: &mut Scene, volumes: &[&str]) -> Result<Vec<v1::Snapshot>> {
    let vm = scene.vm();
    let look = async {
        loop {
            let listed = scene.api.list(vm).await?;
            if listed.iter().map(volume).collect::<BTreeSet<_>>()
                == volumes.iter().copied().collect()
            {
                return Ok(listed);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let listed: Result<Vec<_>> = tokio::time::timeout(LIMIT, look)
        .await
        .with_context(|| format!("the snapshots are not those of {volumes:?}"))?;
    let mut listed = listed?;
    let place = |snapshot: &v1::Snapshot| volumes.iter().position(|it| *it == volume(snapshot));
    listed.sort_by_key(place);
    Ok(listed)
}

fn volume(snapshot: &v1::Snapshot) -> &str {
    let volume = snapshot.disks.first().and_then(|disk| disk.volume.as_ref());
    volume.map_or("", |volume| &volume.name)
}

/// All files of the domain.
fn files(scene: &Scene) -> Result<BTreeSet<PathBuf>> {
    let files = fs::read_dir(scene.rig.images())?;
    Ok(files
        .map(|file| file.map(|file| file.path()))
        .collect::<Result<_, _>>()?)
}

fn refusal(status: tonic::Status) -> Problem {
    Problem::try_from(status).expect("an error with a reason")
}

fn assert_nothing_lost(verdicts: &[livemerge_tests::guest::oracle::Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0], "{verdict:?}");
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_frozen_is_listed_and_deleted_like_any_other() -> Result<()> {
    let mut scene = scene().await?;
    let vm = scene.vm();
    until_listed(&mut scene, &["base.qcow2", "old.qcow2"]).await?;
    let first = frozen_by_virsh(&scene, "first.qcow2").await?;
    // Somebody's own commit is given up: the chain is as before, and its layers stay.
    let virsh = scene.rig.virsh();
    virsh.call(&[
        "blockcommit",
        "vm",
        "vda",
        "--active",
        "--shallow",
        "--wait",
    ])?;
    virsh.call(&["blockjob", "vm", "vda", "--abort"])?;
    let second = frozen_by_virsh(&scene, "second.qcow2").await?;
    let orphan = scene.rig.create_image_with(
        "orphan.qcow2",
        Format::Qcow2,
        &["-F", "qcow2", "-b", "gone.qcow2", "-u"],
        GIB,
    )?;

    let all = ["base.qcow2", "old.qcow2", "now.qcow2", "first.qcow2"];
    let listed = until_listed(&mut scene, &all).await?;
    for snapshot in &listed {
        assert_eq!(snapshot.origin(), v1::SnapshotOrigin::Discovered);
        assert_eq!(snapshot.state(), v1::SnapshotState::Ready);
    }
    let images = scene.images_of("vda").await?;
    assert_eq!(images[3..], [first.clone(), second.clone()]);

    // Below the layer above it, whose relative name of it stays one.
    let deletion = scene.api.delete(&listed[0].id).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), MergeKind::IntermediateCommit);
    assert!(!images[1].exists());
    let header = livemerge_storage::ImageHead::read(&images[2], None)?;
    assert_eq!(header.backing.as_deref(), Some("base.qcow2"));

    // The layer that the guest writes goes, too.
    let deletion = scene.api.delete(&listed[3].id).await?;
    let done = scene.api.succeeded(&deletion, LIMIT).await?;
    assert_eq!(done.disks[0].kind(), MergeKind::ActiveCommit);
    assert!(!second.exists());
    let left = [images[0].clone(), images[2].clone(), first];
    assert_eq!(scene.images_of("vda").await?, left);
    until_listed(&mut scene, &["base.qcow2", "now.qcow2"]).await?;

    // What nothing refers to is told, and left alone.
    let doctor = scene
        .api
        .inventory
        .check_consistency(v1::CheckConsistencyRequest::default());
    let findings = doctor.await?.into_inner().findings;
    let leaked: Vec<_> = findings
        .iter()
        .filter(|finding| finding.kind() == v1::FindingKind::LeakedVolume)
        .collect();
    assert_eq!(leaked.len(), 1, "{findings:?}");
    assert!(leaked[0].message.contains("orphan.qcow2"), "{leaked:?}");
    assert_eq!(leaked[0].repair(), v1::Repair::Unspecified, "{leaked:?}");
    assert!(orphan.exists());

    // virsh itself ends one: it is listed no longer.
    scene.rig.virsh().commit_and_pivot("vm", "vda")?;
    until_listed(&mut scene, &["base.qcow2"]).await?;
    let log = scene.api.log(vm).await?;
    let count = |kind| log.iter().filter(|event| event.r#type() == kind).count();
    assert_eq!(count(v1::EventType::SnapshotDiscovered), 4);
    assert_eq!(count(v1::EventType::SnapshotVanished), 1);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// Everything that refuses a delete or a snapshot says why, and leaves things as they are.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_merged_is_refused_with_the_reason_and_without_a_trace() -> Result<()> {
    let mut scene = scene().await?;
    let vm = scene.vm();

    // Dirty bitmaps in the layer that would leave.
    let marked = scene.rig.create_image_with(
        "marked.qcow2",
        Format::Qcow2,
        &["-F", "qcow2", "-b", "now.qcow2"],
        GIB,
    )?;
    for bitmap in ["nightly", "weekly"] {
        let mut command = std::process::Command::new("qemu-img");
        command.args(["bitmap", "--add"]).arg(&marked).arg(bitmap);
        livemerge_tests::process::run(&mut command)?;
    }
    let spec = format!("vda,snapshot=external,file={}", marked.display());
    let reuse = [
        "snapshot-create-as",
        "vm",
        "--no-metadata",
        "--disk-only",
        "--reuse-external",
        "--diskspec",
        &spec,
    ];
    scene.rig.virsh().call(&reuse)?;
    frozen_by_virsh(&scene, "top.qcow2").await?;
    let all = ["base.qcow2", "old.qcow2", "now.qcow2", "marked.qcow2"];
    let listed = until_listed(&mut scene, &all).await?;
    let before = (scene.images_of("vda").await?, files(&scene)?);

    let bitmaps = refusal(scene.api.delete(&listed[2].id).await.unwrap_err());
    assert_eq!(bitmaps.reason, Reason::StrategyUnsupported);
    assert!(bitmaps.message.contains("nightly, weekly"), "{bitmaps}");
    let again = scene.api.list(vm).await?;
    assert!(
        again
            .iter()
            .all(|it| it.state() == v1::SnapshotState::Ready),
        "{again:?}"
    );
    assert_eq!((scene.images_of("vda").await?, files(&scene)?), before);
    assert_eq!(scene.merges().await?, []);

    // Somebody else's chain on a layer that would be written.
    let clone = scene.rig.create_image_with(
        "clone.qcow2",
        Format::Qcow2,
        &["-F", "qcow2", "-b", "base.qcow2"],
        GIB,
    )?;
    let shared = refusal(scene.api.delete(&listed[0].id).await.unwrap_err());
    assert_eq!(shared.reason, Reason::SnapshotSharedBase);
    assert!(shared.message.contains("clone.qcow2"), "{shared}");
    fs::remove_file(clone)?;

    // A snapshot of which libvirt keeps a record of its own.
    let kept = scene.rig.images().join("kept.qcow2");
    let spec = format!("vda,snapshot=external,file={}", kept.display());
    let keep = [
        "snapshot-create-as",
        "vm",
        "before",
        "--disk-only",
        "--diskspec",
        &spec,
    ];
    scene.rig.virsh().call(&keep)?;
    let all = [&all[..], &["top.qcow2"]].concat();
    let listed = until_listed(&mut scene, &all).await?;
    let before = (scene.images_of("vda").await?, files(&scene)?);
    let of_libvirt = refusal(scene.api.delete(&listed[0].id).await.unwrap_err());
    assert_eq!(of_libvirt.reason, Reason::StrategyUnsupported);
    assert_eq!(of_libvirt.metadata["libvirt_snapshots"], "before");
    assert_eq!((scene.images_of("vda").await?, files(&scene)?), before);
    assert_eq!(scene.merges().await?, []);
    let names = scene.rig.virsh().call(&["snapshot-list", "vm", "--name"])?;
    assert_eq!(names.trim(), "before");
    // As it says: without the metadata it goes.
    scene
        .rig
        .virsh()
        .call(&["snapshot-delete", "vm", "before", "--metadata"])?;
    let deletion = scene.api.delete(&listed[0].id).await?;
    scene.api.succeeded(&deletion, LIMIT).await?;

    // Disks of which no snapshot can be taken.
    for (name, disk, why) in others(&scene)? {
        let id = define(&scene, name, &disk)?;
        scene.api.until_vm(id, v1::VmState::ShutOff, LIMIT).await?;
        let before = files(&scene)?;
        let creation = scene.api.create(id, "s").await;
        let refused = match creation {
            Err(status) => refusal(status).message,
            Ok(operation) => {
                let ended = scene.api.ended(&operation, LIMIT).await?;
                let failure = ended.failure.unwrap_or_default();
                assert_eq!(
                    failure.reason, "STRATEGY_UNSUPPORTED",
                    "{name}: {failure:?}"
                );
                failure.message
            }
        };
        assert!(refused.contains(why), "{name}: {refused}");
        assert_eq!(scene.api.list(id).await?, [], "{name}");
        assert_eq!(files(&scene)?, before, "{name}");
    }
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// Machines that are off: name, their second disk, what is said of it.
fn others(scene: &Scene) -> Result<Vec<(&'static str, String, &'static str)>> {
    let secret = [
        "--object",
        "secret,id=s,data=abc",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ];
    let luks = scene
        .rig
        .create_image_with("luks.qcow2", Format::Qcow2, &secret, 16 << 20)?;
    let on_luks = ["-u", "-F", "qcow2", "-b", "luks.qcow2"];
    let on_luks =
        scene
            .rig
            .create_image_with("on-luks.qcow2", Format::Qcow2, &on_luks, 16 << 20)?;
    let file = |path: &PathBuf, inside: &str| {
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
             <source file='{}'>{inside}</source><target dev='vdb' bus='virtio'/></disk>",
            path.display()
        )
    };
    let network = "<disk type='network' device='disk'><driver name='qemu' type='raw'/>\
        <source protocol='http' name='/x'><host name='localhost' port='80'/></source>\
        <target dev='vdb' bus='virtio'/></disk>";
    let secret = Uuid::new_v4();
    let said = format!(
        "<encryption format='luks'><secret type='passphrase' uuid='{secret}'/></encryption>"
    );
    Ok(vec![
        ("luks", file(&luks, ""), "luks.qcow2, which is encrypted"),
        (
            "on-luks",
            file(&on_luks, ""),
            "luks.qcow2, which is encrypted",
        ),
        ("said", file(&luks, &said), "luks.qcow2, which is encrypted"),
        ("network", network.to_owned(), "of the kind http"),
    ])
}

/// Defines a machine with a plain disk and this one, which is not started.
fn define(scene: &Scene, name: &str, disk: &str) -> Result<Uuid> {
    let (id, plain) = (
        Uuid::new_v4(),
        scene
            .rig
            .create_image(&format!("{name}-vda.qcow2"), 1 << 20)?,
    );
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>\
         <target dev='vda' bus='virtio'/></disk>{disk}</devices></domain>",
        plain.display()
    );
    let path = scene.rig.path().join(format!("{name}.xml"));
    fs::write(&path, xml)?;
    let path = path.to_str().context("a path in UTF-8")?;
    scene.rig.virsh().call(&["define", path])?;
    Ok(id)
}
