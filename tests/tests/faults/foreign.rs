//! What others do with a machine while its disk is merged, by libvirt and behind our back: either
//! libvirt refuses it, or the merge ends with a reason. The chain stays whole.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_tests::scene::{LIMIT, Scene};

use super::{WEIGHT_BYTES, WORKLOAD, assert_nothing_lost, slow};

const DISK: &str = "vda";

/// What libvirt refuses while the disk has a block job: the name of the command, and how it is
/// called after the machine's name.
fn refused(dir: &Path) -> Result<Vec<Vec<String>>> {
    let backup = dir.join("backup.xml");
    let text = format!(
        "<domainbackup><disks><disk name='{DISK}' type='file'><target file='{}'/>\
         <driver type='qcow2'/></disk></disks></domainbackup>",
        dir.join("backup.qcow2").display()
    );
    std::fs::write(&backup, text)?;
    let (overlay, copy) = (dir.join("foreign.qcow2"), dir.join("copy.qcow2"));
    let calls = [
        format!(
            "snapshot-create-as VM --no-metadata --disk-only --diskspec \
             {DISK},snapshot=external,file={}",
            overlay.display()
        ),
        format!("blockresize VM {DISK} 3G"),
        format!("backup-begin VM {}", backup.display()),
        format!("blockcopy VM {DISK} {} --wait", copy.display()),
        format!("blockcommit VM {DISK} --active"),
        format!("blockpull VM {DISK}"),
        // Migration to a file.
        "managedsave VM".to_owned(),
        format!("save VM {}", dir.join("saved").display()),
        format!("detach-disk VM {DISK}"),
    ];
    let words = |call: &String| call.split_whitespace().map(str::to_owned).collect();
    Ok(calls.iter().map(words).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_in_mid_merge_is_refused_or_ends_it_with_a_reason() -> Result<()> {
    let mut scene = Scene::begin_with_daemon(&[DISK], WORKLOAD).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer(DISK, WEIGHT_BYTES).await?;
    let images = scene.images_of(DISK).await?;

    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_copying().await?;
    let dir = scene.rig.path().join("foreign");
    std::fs::create_dir(&dir)?;
    for call in refused(&dir)? {
        let said = foreign(&scene, &call);
        let error = said.err().with_context(|| format!("{call:?} was done"))?;
        eprintln!("{call:?}: {error:#}");
        let open = scene.api.operation(&deletion.id).await?;
        assert_eq!(open.state(), v1::OperationState::Running, "{open:?}");
        assert_eq!(scene.images_of(DISK).await?, images, "{call:?}");
    }
    scene.write_more(20).await?;

    // Called off by hand: the merge has failed, and both volumes are there.
    foreign(
        &scene,
        &["blockjob", "VM", DISK, "--abort"].map(str::to_owned),
    )?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(failure.reason, "MERGE_IO_ERROR", "{failure:?}");
    assert_eq!(scene.images_of(DISK).await?, images);
    assert!(images.iter().all(|image| image.exists()));
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);

    // The guest is stopped and let go by somebody else: the merge goes on.
    let known = scene.merges().await?.len();
    let again = scene.api.delete_with(&snapshot, slow()).await?;
    scene.until_phase(known, v1::MergePhase::Copying).await?;
    foreign(&scene, &["suspend", "VM"].map(str::to_owned))?;
    scene.api.until_vm(vm, v1::VmState::Paused, LIMIT).await?;
    foreign(&scene, &["resume", "VM"].map(str::to_owned))?;
    scene.api.limit(&again, 0).await?;
    scene.api.succeeded(&again, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    assert_eq!(scene.images_of(DISK).await?, images[..1]);
    scene.write_more(20).await?;
    scene.agrees().await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// Calls virsh with the machine's name for `VM`.
fn foreign(scene: &Scene, call: &[String]) -> Result<String> {
    let name = scene.guest.spec.name.as_str();
    let words = call
        .iter()
        .map(|word| if word == "VM" { name } else { word });
    let words: Vec<&str> = words.collect();
    ensure!(words.contains(&name), "no machine is named");
    scene.rig.virsh().call(&words)
}
