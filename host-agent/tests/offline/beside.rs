//! What others do with the machine and its images: starts, readers, overlays, damage.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use livemerge_host_agent::hypervisor::{
    BlockJobKind, BlockJobOutcome, Hypervisor, HypervisorError, JobOrder, Overlay, VmState,
};
use virt::domain::DomainState;

use crate::rig::{PATIENCE, Rig, SLOW, create, refused, vda, vm};

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_started_meanwhile_is_refused_by_the_lock() {
    let mut rig = Rig::new(&["a", "b", "c", "d"]).await;
    let content = rig.content("d");
    for (base, top, after) in [("b", "c", &["a", "b", "d"][..]), ("b", "d", &["a", "b"])] {
        rig.start(base, top, SLOW).await;
        rig.copies().await;
        let error = rig.domain.create().unwrap_err();
        assert!(error.message().contains("lock"), "{error}");
        let view = rig.libvirt.vm(vm()).await.unwrap();
        assert_eq!(view.state, VmState::ShutOff);
        // The job does not mind.
        rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        rig.sees(after).await;
        assert!(rig.content(after.last().unwrap()) == content);
        rig.runs(after).await;
    }
}

/// Whoever comes first, the machine never runs on a layer that its next start would not open.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_started_at_any_moment_runs_on_what_its_definition_names() {
    let mut rig = Rig::new(&["a", "b", "c", "d", "e"]).await;
    let content = rig.content("e");
    let mut chain = vec!["a", "b", "c", "d", "e"];
    while chain.len() > 1 {
        let (base, top) = (chain[chain.len() - 2], chain[chain.len() - 1]);
        rig.start(base, top, 0).await;
        let domain = rig.domain.clone();
        let starts = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            while domain.create().is_err() {
                assert!(began.elapsed() < PATIENCE);
            }
        });
        rig.told(BlockJobOutcome::Completed).await;
        starts.await.unwrap();
        chain.pop();
        let began = Instant::now();
        loop {
            rig.sees(&chain).await;
            if rig.libvirt.vm(vm()).await.unwrap().state == VmState::Running {
                break;
            }
            // libvirt 9.0 may hear of a refused QEMU's end when the next one runs, and ends that.
            assert!(began.elapsed() < PATIENCE);
            let ended = rig.domain.state().unwrap().0.known();
            assert_eq!(ended, Some(DomainState::Shutoff));
            rig.domain.create().unwrap();
        }
        rig.domain.destroy().unwrap();
        rig.sees(&chain).await;
        assert!(rig.content(base) == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_or_does_not_fit_is_refused() {
    let rig = Rig::new(&["a", "b", "c"]).await;
    let start = async |base: &str, top: &str| {
        let order = rig.order(base, top, 0);
        refused(rig.libvirt.start_job(vm(), &order).await)
    };
    assert!(start("c", "b").await.contains("order"));
    assert!(start("second", "c").await.contains("layers"));
    rig.domain.create().unwrap();
    assert!(start("a", "b").await.contains("runs"));
    let pulled = JobOrder {
        kind: BlockJobKind::Commit,
        ..rig.order("a", "b", 0)
    };
    rig.domain.managed_save(0).unwrap();
    assert!(start("a", "b").await.contains("saved state"));
    refused(rig.libvirt.start_job(vm(), &pulled).await);
    rig.domain.managed_save_remove(0).unwrap();
    // Somebody else has it open.
    let mut reader = Command::new("qemu-io");
    reader.arg("-r").arg(rig.path("b"));
    reader.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut reader = reader.spawn().unwrap();
    // It prompts once it has the image open.
    let mut word = [0];
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut word)
        .unwrap();
    let why = start("a", "b").await;
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(why.contains("open"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn overlays_are_put_on_all_disks_at_once_or_on_none() {
    let rig = Rig::new(&["a", "b"]).await;
    let (content, before) = (rig.content("b"), rig.definition());
    create(rig.dir.path(), "c", Some("b"), "16M");
    create(rig.dir.path(), "other", Some("a"), "16M");
    create(rig.dir.path(), "third", Some("second"), "16M");
    let on = |disk: &str, name: &str| Overlay {
        disk: disk.parse().unwrap(),
        locator: rig.image(name),
    };
    let wrong = [on("vdb", "third"), on("vda", "other")];
    let why = refused(rig.libvirt.add_overlays(vm(), &wrong).await);
    assert!(why.contains("vda"), "{why}");
    assert_eq!(rig.definition(), before);

    let right = [on("vdb", "third"), on("vda", "c")];
    // The second time they are there already, as after a lost reply.
    for _ in 0..2 {
        rig.libvirt.add_overlays(vm(), &right).await.unwrap();
        rig.sees(&["a", "b", "c"]).await;
        let view = rig.libvirt.vm(vm()).await.unwrap();
        let second = view.disk(&"vdb".parse().unwrap()).unwrap();
        assert_eq!(second.next_start, Some(rig.image("third")));
        assert_eq!(second.chain[0].locator, rig.image("second"));
    }
    let name = |name: &str| format!("'{}'", rig.path(name).display());
    let expected = before.replace(&name("b"), &name("c"));
    let expected = expected.replace(&name("second"), &name("third"));
    assert_eq!(rig.definition(), expected);
    assert!(rig.content("c") == content);
    rig.runs(&["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_cannot_be_read_is_not_known_and_its_layers_are_needed() {
    let rig = Rig::new(&["a", "b", "c"]).await;
    let disks = async |name: &str| {
        let found = rig.libvirt.references(&[rig.image(name)]).await.unwrap();
        found
            .into_iter()
            .flatten()
            .map(|found| found.disk.to_string())
            .collect::<Vec<_>>()
    };
    for layer in ["a", "b", "c"] {
        assert_eq!(disks(layer).await, ["vda"]);
    }
    assert_eq!(disks("second").await, ["vdb"]);
    fs::rename(rig.path("a"), rig.path("away")).unwrap();
    let unknown = rig.libvirt.vm(vm()).await;
    assert!(
        matches!(unknown, Err(HypervisorError::Unknown(_))),
        "{unknown:?}"
    );
    let listed = rig.libvirt.vms().await.unwrap();
    let targets: Vec<_> = listed[0]
        .disks
        .iter()
        .map(|disk| disk.target.as_str())
        .collect();
    assert_eq!(targets, ["vdb"]);
    assert_eq!(disks("a").await, ["vda"]);
    assert_eq!(disks("away").await, [""; 0]);
    fs::write(rig.path("a"), "half a header").unwrap();
    let unknown = rig.libvirt.references(&[rig.image("second")]).await;
    assert!(
        matches!(unknown, Err(HypervisorError::Unknown(_))),
        "{unknown:?}"
    );
    fs::rename(rig.path("away"), rig.path("a")).unwrap();
    rig.sees(&["a", "b", "c"]).await;
}
