//! The libvirt adapter on a real libvirt and a real QEMU, without a daemon and without a guest.
//!
//! Each test has a root directory of its own; QEMU only runs its BIOS. Needs libvirt, its QEMU
//! driver, qemu-system-x86_64, qemu-img and qemu-io, and root; and a process for each test, as nextest
//! gives it: libvirt's embedded driver is opened once a process.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

mod death;
mod rig;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use livemerge_host_agent::hypervisor::{
    BlockJobKind, BlockJobOutcome, Fill, Hypervisor, HypervisorError, HypervisorEvent, JobOrder,
    MirrorState, Overlay, VmState,
};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;

use self::rig::{FOUR, PATIENCE, Rig, SLOW, create, measured, run, vda, vm};

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_s_writes_are_limited_and_its_own_limit_comes_back() {
    let rig = Rig::start(&["a"]).await;
    let libvirt = &rig.libvirt;
    assert_eq!(libvirt.write_limit(vm(), &vda()).await.unwrap(), 0);
    for limit in [5 << 20, 1 << 20, 0] {
        libvirt.limit_writes(vm(), &vda(), limit).await.unwrap();
        assert_eq!(libvirt.write_limit(vm(), &vda()).await.unwrap(), limit);
    }
    let none = libvirt.limit_writes(vm(), &"vdz".parse().unwrap(), 1).await;
    assert!(matches!(none, Err(HypervisorError::Refused(_))), "{none:?}");
}

/// The base of a commit is written, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_written_beyond_what_is_watched_is_told_of_once() {
    let mut rig = Rig::start(&["a", "b", "c"]).await;
    let fills = |fill: &Fill| -> Vec<_> {
        let layers = fill.layers.iter();
        let own = layers.filter(|layer| layer.disk == vda());
        own.map(|layer| (layer.locator.to_string(), layer.watched_at))
            .collect()
    };
    let paths = ["c", "b", "a"].map(|name| rig.image(name).to_string());
    let before = rig.libvirt.fill(vm()).await.unwrap();
    let unwatched = paths.clone().map(|path| (path, 0));
    assert_eq!(
        (fills(&before), before.lacks_room),
        (unwatched.to_vec(), vec![])
    );
    let (base, watched) = (rig.image("a"), 1 << 20);
    rig.libvirt
        .watch_fill(vm(), &vda(), &base, watched)
        .await
        .unwrap();
    let now = fills(&rig.libvirt.fill(vm()).await.unwrap());
    assert_eq!(now[2], (paths[2].clone(), watched));
    assert_eq!(now[..2], unwatched[..2]);
    let order = rig.order("a", "b", false);
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.event(|event| *event == HypervisorEvent::Filling { vm: vm() })
        .await;
    rig.told(BlockJobOutcome::Completed).await;
    let after = rig.libvirt.fill(vm()).await.unwrap();
    assert!(
        after.layers.iter().all(|layer| layer.watched_at == 0),
        "{after:?}"
    );
    let none = rig
        .libvirt
        .watch_fill(vm(), &vda(), &rig.image("x"), 1)
        .await;
    assert!(matches!(none, Err(HypervisorError::Refused(_))), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_commit_pivots_while_the_guest_stands_still() {
    let mut rig = Rig::start(&["a", "b"]).await;
    create(rig.dir.path(), "c", Some("b"));
    let overlay = [Overlay {
        disk: vda(),
        locator: rig.image("c"),
    }];
    // The second time it is there already, as after a lost reply.
    for _ in 0..2 {
        let began = Instant::now();
        rig.libvirt.add_overlays(vm(), &overlay).await.unwrap();
        measured("add_overlays", began);
        assert_eq!(
            rig.chain().await,
            ["a", "b", "c"].map(|name| rig.image(name))
        );
    }

    let began = Instant::now();
    let view = rig.libvirt.vm(vm()).await.unwrap();
    measured("vm", began);
    assert_eq!(
        (view.state, view.name.as_str(), view.disks.len()),
        (VmState::Running, "lm", 1)
    );
    assert_eq!(view.disks[0].next_start, Some(rig.image("c")));

    let refused = rig.libvirt.pivot(vm(), &vda()).await;
    assert!(
        matches!(refused, Err(HypervisorError::Refused(_))),
        "{refused:?}"
    );
    let upside_down = rig
        .libvirt
        .start_job(vm(), &rig.order("c", "b", false))
        .await;
    assert!(
        matches!(upside_down, Err(HypervisorError::Refused(_))),
        "{upside_down:?}"
    );

    let began = Instant::now();
    rig.libvirt
        .start_job(vm(), &rig.order("a", "c", true))
        .await
        .unwrap();
    measured("start_job", began);
    rig.told(BlockJobOutcome::Ready).await;
    measured("start_job to ready", began);
    let twice = rig
        .libvirt
        .start_job(vm(), &rig.order("a", "c", true))
        .await;
    assert!(
        matches!(twice, Err(HypervisorError::Refused(_))),
        "{twice:?}"
    );

    for _ in 0..2 {
        let began = Instant::now();
        rig.libvirt.suspend(vm()).await.unwrap();
        measured("suspend", began);
    }
    let view = rig.libvirt.vm(vm()).await.unwrap();
    let mirror = view.disks[0].mirror.clone().unwrap();
    assert_eq!(
        (view.state, mirror.kind, mirror.state),
        (
            VmState::Paused,
            BlockJobKind::ActiveCommit,
            MirrorState::Ready
        )
    );
    assert_eq!(mirror.target, Some(rig.image("a")));
    let began = Instant::now();
    let job = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
    measured("job", began);
    assert_eq!((job.kind, job.cur), (BlockJobKind::ActiveCommit, job.end));

    let began = Instant::now();
    rig.libvirt.pivot(vm(), &vda()).await.unwrap();
    measured("pivot asked for", began);
    rig.told(BlockJobOutcome::Completed).await;
    measured("pivot to event", began);
    rig.settles("pivoted", &["a"]).await;
    measured("pivot to chain", began);
    let view = rig.libvirt.vm(vm()).await.unwrap();
    assert_eq!(
        (
            view.disks[0].next_start.clone(),
            view.disks[0].mirror.clone()
        ),
        (Some(rig.image("a")), None)
    );
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);

    for _ in 0..2 {
        let began = Instant::now();
        rig.libvirt.resume(vm()).await.unwrap();
        measured("resume", began);
    }
    assert_eq!(rig.libvirt.vm(vm()).await.unwrap().state, VmState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_commit_ends_by_itself() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    rig.libvirt
        .start_job(vm(), &rig.order("a", "c", false))
        .await
        .unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("merged", &["a", "d"]).await;
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);
    assert_eq!(rig.backing("d"), Some(rig.dir.path().join("a")));
    rig.reads("d", &FOUR);
}

/// A chain whose headers name the layers below by their names alone.
#[tokio::test(flavor = "multi_thread")]
async fn relative_names_stay_and_do_not_grow_over_fifty_merges() {
    let mut rig = Rig::start(&["a"]).await;
    rig.overlay("l0").await;
    for round in 0..50 {
        let (middle, top) = (format!("l{round}"), format!("l{}", round + 1));
        rig.overlay(&top).await;
        let order = rig.order("a", &middle, false);
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        rig.settles("merged", &["a", &top]).await;
        assert_eq!(rig.written(&top).as_deref(), Some("a"), "round {round}");
        fs::remove_file(rig.dir.path().join(middle)).unwrap();
    }
    rig.overlay("top").await;
    let order = rig.pull(Some("a"), "top");
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["a", "top"]).await;
    assert_eq!(rig.written("top").as_deref(), Some("a"));
    rig.reads("top", &[(0, 1)]);
}

/// Names that libvirt would make longer with each merge are written whole instead.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_would_grow_become_absolute_and_stay_so() {
    let mut rig = Rig::start(&["a"]).await;
    rig.overlay_named("l0", "./a").await;
    let whole = rig.dir.path().join("a").display().to_string();
    for round in 0..3 {
        let (middle, top) = (format!("l{round}"), format!("l{}", round + 1));
        rig.overlay_named(&top, &format!("./{middle}")).await;
        let base = rig.chain().await.swap_remove(0);
        let middle = rig.chain().await.swap_remove(1);
        let order = JobOrder {
            base: Some(base),
            top: middle,
            ..rig.order("a", "a", false)
        };
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        let began = Instant::now();
        while rig.chain().await.len() > 2 {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            rig.written(&top).as_deref(),
            Some(whole.as_str()),
            "round {round}"
        );
    }
}

/// QEMU keeps the bitmaps of the volume that it writes: what a commit brings down counts as changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_bitmaps_of_the_kept_volume_know_what_was_committed() {
    let mut rig = Rig::with(&["a", "b"], 4, &|dir| {
        let mut add = Command::new("qemu-img");
        add.args(["bitmap", "--add", "-g", "1M"]);
        run(add.arg(dir.join("a")).arg("nightly"));
    })
    .await;
    rig.commits("a", "b", &["a"]).await;
    // QEMU writes them out when it is asked to end.
    let domain = rig.domain.clone();
    let ended = tokio::task::spawn_blocking(move || domain.destroy());
    ended.await.unwrap().unwrap();
    // What `b` held.
    assert_eq!(rig.marked("a", "nightly"), 4 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_leaves_its_base_below() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let into_the_middle = rig.libvirt.start_job(vm(), &rig.pull(Some("a"), "c")).await;
    assert!(
        matches!(into_the_middle, Err(HypervisorError::Refused(_))),
        "{into_the_middle:?}"
    );
    let order = rig.pull(Some("a"), "d");
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["a", "d"]).await;
    rig.is_idle().await;
    let view = rig.libvirt.vm(vm()).await.unwrap();
    assert_eq!(view.disks[0].next_start, Some(rig.image("d")));
    assert_eq!(rig.backing("d"), Some(rig.dir.path().join("a")));
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.reads("d", &FOUR);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_everything_leaves_nothing_below() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let order = rig.pull(None, "d");
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["d"]).await;
    rig.is_idle().await;
    assert_eq!(rig.backing("d"), None);
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.reads("d", &FOUR);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_commit_is_given_up_while_it_copies_and_when_it_is_ready() {
    let mut rig = Rig::holding(&["a", "b", "c"], 64).await;
    let (order, chain) = (rig.order("a", "c", true), &["a", "b", "c"]);
    let slow = JobOrder {
        bytes_per_second: SLOW,
        ..order.clone()
    };
    rig.libvirt.start_job(vm(), &slow).await.unwrap();
    let view = rig.libvirt.vm(vm()).await.unwrap();
    let mirror = view.disks[0].mirror.clone().unwrap();
    assert_eq!(mirror.state, MirrorState::Copying);
    rig.abort(chain).await;
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Ready).await;
    rig.abort(chain).await;
    rig.reads("c", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
    rig.commits("a", "c", &["a"]).await;
    rig.reads("a", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_by_itself_is_given_up_while_it_copies() {
    let mut rig = Rig::holding(&["a", "b", "c"], 64).await;
    let chain = &["a", "b", "c"];
    for order in [
        rig.order("a", "b", false),
        rig.pull(Some("a"), "c"),
        rig.pull(None, "c"),
    ] {
        let kind = order.kind;
        let slow = JobOrder {
            bytes_per_second: SLOW,
            ..order
        };
        rig.libvirt.start_job(vm(), &slow).await.unwrap();
        let job = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
        assert_eq!(job.kind, kind);
        rig.abort(chain).await;
        rig.reads("c", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
    }
    rig.libvirt
        .start_job(vm(), &rig.order("a", "b", false))
        .await
        .unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("merged", &["a", "c"]).await;
    rig.commits("a", "c", &["a"]).await;
    rig.reads("a", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
}

/// 64 MiB at 1 MiB a second take a minute: what is not lifted is not done in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_made_slow_and_fast() {
    let mut rig = Rig::holding(&["a", "b"], 64).await;
    let none = rig.libvirt.set_speed(vm(), &vda(), SLOW).await;
    assert!(matches!(none, Err(HypervisorError::Refused(_))), "{none:?}");
    let order = JobOrder {
        bytes_per_second: SLOW,
        ..rig.order("a", "b", true)
    };
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    let slow = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
    assert!(slow.cur < slow.end || slow.end == 0, "{slow:?}");
    rig.libvirt.set_speed(vm(), &vda(), 2 * SLOW).await.unwrap();
    let slow = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
    assert!(slow.cur < slow.end || slow.end == 0, "{slow:?}");
    let began = Instant::now();
    rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
    rig.told(BlockJobOutcome::Ready).await;
    measured("unlimited to ready", began);
    rig.abort(&["a", "b"]).await;
    // At a byte a second it would never end.
    let slow = JobOrder {
        bytes_per_second: 1,
        ..rig.pull(None, "b")
    };
    rig.libvirt.start_job(vm(), &slow).await.unwrap();
    rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_references_are_complete() {
    let rig = Rig::start(&["a", "b"]).await;
    let nobody: VmId = "11111111-2222-3333-4444-000000000000".parse().unwrap();
    let no_disk: DiskTarget = "vdz".parse().unwrap();
    assert!(matches!(
        rig.libvirt.vm(nobody).await,
        Err(HypervisorError::NotFound(_))
    ));
    assert!(matches!(
        rig.libvirt.suspend(nobody).await,
        Err(HypervisorError::NotFound(_))
    ));
    assert!(matches!(
        rig.libvirt.job(vm(), &no_disk).await,
        Err(HypervisorError::NotFound(_))
    ));
    assert_eq!(
        rig.libvirt.vms().await.unwrap(),
        [rig.libvirt.vm(vm()).await.unwrap()]
    );

    let link = rig.dir.path().join("another-name");
    std::os::unix::fs::symlink(rig.dir.path().join("a"), &link).unwrap();
    let named = [rig.image("a"), rig.image("b"), Locator::File(link)];
    for references in rig.libvirt.references(&named).await.unwrap() {
        let named: Vec<_> = references
            .iter()
            .map(|found| (found.vm, found.disk.clone()))
            .collect();
        assert_eq!(named, [(vm(), vda())]);
    }
    create(rig.dir.path(), "c", None);
    let unnamed = [
        rig.image("c"),
        rig.image("missing"),
        Locator::Block(PathBuf::from("/dev/null")),
    ];
    let references = rig.libvirt.references(&unnamed).await.unwrap();
    assert_eq!(references, [const { vec![] }; 3]);
}
