//! What is left when a QEMU dies, and how it is made whole.

use std::process::Command;
use std::time::{Duration, Instant};

use livemerge_host_agent::hypervisor::{
    BlockJobOutcome, Hypervisor, HypervisorError, HypervisorEvent, JobOrder, Layer, VmState,
};
use livemerge_proto::ids::MergeId;
use livemerge_storage::Format;

use super::rig::{FOUR, PATIENCE, Rig, create, run, vda, vm};

/// A guest that is stopped makes QEMU write out what it has pulled; of a commit it writes all by
/// itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_has_moved_outlives_qemu() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let commit = rig.order("a", "b", false);
    rig.libvirt.start_job(vm(), &commit).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("merged", &["a", "c", "d"]).await;
    rig.kill().await;
    rig.reads("d", &FOUR);
    rig.start_again().await;
    let pull = rig.pull(None, "d");
    rig.libvirt.start_job(vm(), &pull).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["d"]).await;
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.libvirt.resume(vm()).await.unwrap();
    rig.kill().await;
    assert_eq!(rig.backing("d"), None);
    rig.reads("d", &FOUR);
}

/// QEMU dies between the header that tells of the pull's end and what it has in its memory alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_died_with_qemu_is_made_whole() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let (mut lost, whole) = (0, ["a", "b", "c", "d"]);
    for (base, delay) in [None, Some("a")]
        .into_iter()
        .flat_map(|base| [0, 1, 3, 8, 20].map(|delay| (base, delay)))
    {
        let order = rig.pull(base, "d");
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        rig.kill().await;
        let backing = layer(&rig, "c");
        lost += u32::from(!rig.holds("d", &FOUR));
        // The second time it is there already, as after a lost reply.
        for _ in 0..2 {
            rig.restore("d", &backing).await.unwrap();
            assert_eq!(rig.chain().await, whole.map(|name| rig.image(name)));
        }
        rig.reads("d", &FOUR);
        rig.start_again().await;
        rig.settles("started", &whole).await;
        let refused = rig.restore("d", &backing).await;
        assert!(
            matches!(refused, Err(HypervisorError::Refused(_))),
            "{refused:?}"
        );
    }
    assert!(lost > 0, "nothing was ever lost: the test shows nothing");
    eprintln!("lost before it was restored: {lost} of 10");
    let again = rig.pull(None, "d");
    rig.libvirt.start_job(vm(), &again).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["d"]).await;
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.kill().await;
    rig.reads("d", &FOUR);
}

/// Where the machine's definition names the chain, as libvirt has it do for overlays that it adds itself,
/// libvirt takes the merged layers out there, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_libvirt_has_taken_out_of_the_definition_is_put_back() {
    let mut rig = Rig::start(&["a", "b"]).await;
    rig.overlay("c").await;
    rig.overlay("d").await;
    rig.write_chain_down().await;
    rig.kill().await;
    for (image, write) in [("c", "write -P 3 2M 4M"), ("d", "write -P 4 3M 4M")] {
        let image = rig.dir.path().join(image);
        run(Command::new("qemu-io").args(["-c", write]).arg(image));
    }
    // Nothing is written when the definition cannot follow.
    create(rig.dir.path(), "other", None);
    let refused = rig.restore("d", &layer(&rig, "other")).await;
    assert!(
        matches!(refused, Err(HypervisorError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(rig.backing("d"), Some(rig.dir.path().join("c")));
    let (whole, backing) = (["a", "b", "c", "d"], layer(&rig, "c"));
    for (order, left) in [
        (rig.order("b", "c", false), &["a", "b", "d"][..]),
        (rig.order("a", "c", false), &["a", "d"]),
        (rig.pull(Some("b"), "d"), &["a", "b", "d"]),
        (rig.pull(None, "d"), &["d"]),
    ] {
        rig.start_again().await;
        rig.settles("started", &whole).await;
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        rig.kill().await;
        let left: Vec<_> = left.iter().map(|name| rig.image(name)).collect();
        assert_eq!(rig.chain().await, left, "{order:?}");
        // The second time it is there already, as after a lost reply.
        for _ in 0..2 {
            rig.restore("d", &backing).await.unwrap();
            let view = rig.libvirt.vm(vm()).await.unwrap();
            assert_eq!(view.disks[0].astray, [], "{order:?}");
            assert_eq!(rig.chain().await, whole.map(|name| rig.image(name)));
        }
        rig.reads("d", &FOUR);
    }
}

fn layer(rig: &Rig, image: &str) -> Layer {
    Layer {
        locator: rig.image(image),
        format: Some(Format::Qcow2),
    }
}

/// libvirt begins to count its machines anew when it starts: the mark does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_says_what_it_works_for_until_it_ends() {
    let mut rig = Rig::start(&["a", "b", "c"]).await;
    let works_for = async |rig: &Rig| rig.libvirt.vm(vm()).await.unwrap().disks[0].works_for;
    assert_eq!(works_for(&rig).await, None);
    for number in [1, 2] {
        let merge = MergeId::from(uuid::Uuid::from_u128(number));
        let base = (number == 1).then_some("a");
        let order = JobOrder {
            merge: Some(merge),
            ..rig.pull(base, "c")
        };
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        assert_eq!(works_for(&rig).await, Some(merge));
    }
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.kill().await;
    assert_eq!(works_for(&rig).await, None);
    rig.start_again().await;
    assert_eq!(works_for(&rig).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_told_and_seen() {
    let mut rig = Rig::start(&["a", "b"]).await;
    rig.libvirt
        .start_job(vm(), &rig.order("a", "b", true))
        .await
        .unwrap();
    rig.told(BlockJobOutcome::Ready).await;
    run(Command::new("kill").args(["-9", &rig.qemu().to_string()]));
    rig.event(|event| *event == HypervisorEvent::Lifecycle { vm: vm() })
        .await;
    let began = Instant::now();
    while rig.libvirt.vm(vm()).await.unwrap().state != VmState::ShutOff {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let view = rig.libvirt.vm(vm()).await.unwrap();
    assert_eq!(view.disks[0].next_start, Some(rig.image("b")));
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);
    for reply in [
        rig.libvirt.suspend(vm()).await,
        rig.libvirt.pivot(vm(), &vda()).await,
        rig.libvirt
            .start_job(vm(), &rig.order("a", "b", true))
            .await,
    ] {
        assert!(
            matches!(reply, Err(HypervisorError::Refused(_))),
            "{reply:?}"
        );
    }
}
