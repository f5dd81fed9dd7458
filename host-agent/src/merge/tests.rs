//! Orders: what is checked before one is accepted, and what of it is remembered.

use super::*;
use crate::rig::{Rig, vda};
use livemerge_runtime::ManualClock;
use livemerge_storage::{Locator, VolumeInfo};

struct Host {
    rig: Rig,
    merges: Arc<Merges>,
    clock: Arc<ManualClock>,
    state: tempfile::TempDir,
}

impl Host {
    async fn new() -> Self {
        let (rig, state) = (Rig::new().await, tempfile::tempdir().unwrap());
        let clock = Arc::new(ManualClock::new(samples::now()));
        let merges = open(&rig, state.path(), &clock).await;
        Self {
            rig,
            merges,
            clock,
            state,
        }
    }

    async fn start(&self, order: MergeOrder) -> Result<MergeView, Problem> {
        let started = self.merges.start(vec![order]).await?;
        Ok(started.into_iter().next().expect("one a order"))
    }

    fn journal(&self) -> usize {
        let files = std::fs::read_dir(self.state.path().join("merges"));
        files.unwrap().count()
    }

    /// A base and an overlay on it.
    async fn pair(&self, label: &str) -> [VolumeInfo; 2] {
        let [base, top] = ["base", "top"].map(|layer| format!("{label}-{layer}.qcow2"));
        [
            self.rig.volume(&base, None).await,
            self.rig.volume(&top, Some(&base)).await,
        ]
    }
}

async fn open(rig: &Rig, state: &Path, clock: &Arc<ManualClock>) -> Arc<Merges> {
    let fence = Arc::new(Fence::open(state).unwrap());
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let volumes = Arc::clone(&rig.volumes);
    let dir = state.join("merges");
    let policy = Policy::default();
    let opened = Merges::open(
        &dir,
        rig.hypervisor(),
        volumes,
        fence,
        clock,
        policy,
        Shutdown::new(),
    );
    opened.await.unwrap()
}

fn order(vm: VmId, [base, top]: &[VolumeInfo; 2]) -> MergeOrder {
    let mark = |info: &VolumeInfo| VolumeMark {
        volume: info.volume.clone(),
        identity: info.identity.clone(),
    };
    MergeOrder {
        id: MergeId::from(uuid::Uuid::now_v7()),
        generation: 1,
        vm,
        disk: vda(),
        direction: Direction::Commit,
        kept: mark(base),
        removed: vec![mark(top)],
        together: vec![],
        bytes_per_second: 0,
        spare: None,
    }
}

fn locators(pair: &[VolumeInfo; 2]) -> [Locator; 2] {
    [0, 1].map(|layer: usize| pair[layer].locator.clone())
}

/// A job of libvirt's takes the layers as libvirt spells them.
#[tokio::test]
async fn layers_are_those_of_the_chain_however_it_spells_them() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    let layers = ["a-base.qcow2", "a-top.qcow2"].map(|name| host.rig.alias(name));
    let vm = host.rig.machine(1, &layers);
    let view = host.start(order(vm, &pair)).await.unwrap();
    assert_eq!([view.record.kept, view.record.removed[0].clone()], layers);
    assert_eq!(view.record.kind, MergeKind::ActiveCommit);
}

/// Runs QEMU's image program in the domain.
fn qemu_img(host: &Host, args: &[&str]) {
    let mut command = std::process::Command::new("qemu-img");
    command.current_dir(host.rig.path("").as_path()).args(args);
    assert!(command.status().expect("qemu-img is needed here").success());
}

async fn refused(host: &Host, order: MergeOrder) -> Problem {
    let range = DiskRange {
        disk: order.disk.clone(),
        lowest: order.kept.clone(),
        youngest: order.removed[0].clone(),
        forced: None,
    };
    let volumes = &host.rig.volumes;
    let planned = plan(
        order.vm,
        vec![range],
        &host.rig.host,
        volumes,
        Room::default(),
    )
    .await;
    let planned = planned.unwrap().remove(0);
    assert_ne!(planned.chosen, Some(Direction::Commit), "{planned:?}");
    let of_plan = planned.options[0].blocker.clone().expect("a blocker");
    let of_order = host.start(order).await.unwrap_err();
    assert_eq!(of_order, of_plan, "the plan says what the order would");
    assert_eq!(host.journal(), 0);
    of_order
}

#[tokio::test]
async fn an_encrypted_layer_is_neither_planned_nor_merged() {
    for (which, name) in ["a-base.qcow2", "a-top.qcow2"].into_iter().enumerate() {
        let host = Host::new().await;
        let mut pair = host.pair("a").await;
        let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
        let secret = [
            "create",
            "-q",
            "-f",
            "qcow2",
            "--object",
            "secret,id=s,data=abc",
            "-o",
            luks,
        ];
        let on_base = [
            "-u",
            "-F",
            "qcow2",
            "-b",
            pair[0].locator.to_string().leak() as &str,
        ];
        let below: &[&str] = if which == 1 { &on_base } else { &[] };
        std::fs::remove_file(host.rig.path(name)).unwrap();
        qemu_img(&host, &[&secret[..], below, &[name, "1M"]].concat());
        pair[which] = host.rig.volumes.stat(&pair[which].volume).await.unwrap();
        let vm = host.rig.machine(1, &locators(&pair));
        let refused = refused(&host, order(vm, &pair)).await;
        assert_eq!(refused.reason, Reason::StrategyUnsupported);
        let said = format!("default/{name} is encrypted");
        assert!(refused.message.contains(&said), "{refused}");
    }
}

#[tokio::test]
async fn a_volume_with_dirty_bitmaps_does_not_leave_and_one_that_stays_may_have_them() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    for bitmap in ["nightly", "weekly"] {
        qemu_img(&host, &["bitmap", "--add", "a-top.qcow2", bitmap]);
    }
    let vm = host.rig.machine(1, &locators(&pair));
    let refused = refused(&host, order(vm, &pair)).await;
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    assert_eq!(refused.metadata["bitmaps"], "nightly, weekly");
    for bitmap in ["nightly", "weekly"] {
        qemu_img(&host, &["bitmap", "--remove", "a-top.qcow2", bitmap]);
    }
    qemu_img(&host, &["bitmap", "--add", "a-base.qcow2", "nightly"]);
    host.start(order(vm, &pair)).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_cannot_be_merged_is_refused_with_its_reason() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    let vm = host.rig.machine(1, &locators(&pair));
    let vdb = "vdb".parse::<livemerge_proto::ids::DiskTarget>().unwrap();
    let other = crate::hypervisor::UnsupportedDisk {
        target: vdb.clone(),
        why: "has a layer of the kind rbd".to_owned(),
        layers: vec![],
    };
    host.rig.host.set_unsupported(vm, vec![other.clone()]);
    let order = MergeOrder {
        disk: vdb.clone(),
        ..order(vm, &pair)
    };
    let refused = refused(&host, order).await;
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    assert!(refused.message.ends_with(&other.why), "{refused}");
    // It is told beside the chains.
    let read = crate::chains::read(vm, None, &host.rig.host, &host.rig.volumes).await;
    let read = read.unwrap();
    assert_eq!(
        (read.chains.len(), read.unsupported),
        (1, vec![other.clone()])
    );
    let alone = crate::chains::read(vm, Some(&vdb), &host.rig.host, &host.rig.volumes).await;
    assert_eq!(alone.unwrap().unsupported, [other]);
}

#[tokio::test]
async fn a_base_that_a_header_names_in_another_spelling_is_not_written() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    let vm = host.rig.machine(1, &locators(&pair));
    let alias = host.rig.alias("a-base.qcow2").to_string();
    host.rig.foreign("clone.qcow2", &alias);
    let refused = host.start(order(vm, &pair)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::SnapshotSharedBase);
    assert_eq!(host.journal(), 0);
}

#[tokio::test]
async fn an_image_that_cannot_be_read_lets_an_order_wait() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    let vm = host.rig.machine(1, &locators(&pair));
    std::fs::write(host.rig.path("half"), b"QFI\xfb\0\0\0\x03").unwrap();
    let waits = host.start(order(vm, &pair)).await.unwrap_err();
    assert_eq!(waits.reason, Reason::StorageUnreachable);
    assert!(waits.message.contains("half"), "{}", waits.message);
}

#[tokio::test]
async fn an_order_waits_for_those_of_its_own_machine_alone() {
    let host = Host::new().await;
    let (one, other) = (host.pair("a").await, host.pair("b").await);
    let vms = [
        host.rig.machine(1, &locators(&one)),
        host.rig.machine(2, &locators(&other)),
    ];
    // As an order does whose storage does not answer.
    let hanging = host.merges.accepting.1.of(vms[0]).lock_owned().await;
    host.start(order(vms[1], &other)).await.unwrap();
    let mut waiting = std::pin::pin!(host.start(order(vms[0], &one)));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(hanging);
    waiting.await.unwrap();
}

#[tokio::test]
async fn an_id_is_one_merge_s_also_when_two_machines_are_ordered_at_once() {
    let host = Host::new().await;
    let (one, other) = (host.pair("a").await, host.pair("b").await);
    let first = order(host.rig.machine(1, &locators(&one)), &one);
    let second = MergeOrder {
        id: first.id,
        ..order(host.rig.machine(2, &locators(&other)), &other)
    };
    let both = [first, second].map(|order| host.start(order));
    let answers = futures::future::join_all(both).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (1, 1));
    let refused = refused.into_iter().find_map(Result::err).unwrap();
    assert_eq!(refused.reason, Reason::MergeIdConflict);
}

/// Without a restart, and not the one that is open.
#[tokio::test]
async fn ended_merges_are_forgotten_when_they_are_old() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    let mut board = host.merges.watch();
    let mut ended = async |number: u128| {
        let vm = host.rig.machine(number, &locators(&pair));
        let id = host.start(order(vm, &pair)).await.unwrap().record.order.id;
        host.rig.host.kill_vm(vm);
        let is = |views: &Views| views.get(&id).is_some_and(|view| view.record.phase.ended());
        board.wait_for(is).await.unwrap();
        host.rig.host.remove_vm(vm);
        id
    };
    let first = ended(1).await;
    let day = jiff::SignedDuration::from_hours(24);
    host.clock.advance(day * 6);
    let second = ended(2).await;
    assert!(host.merges.get(first).is_some());
    host.clock.advance(day * 2);
    let third = ended(3).await;
    host.merges.stopped().await;
    assert!(host.merges.get(first).is_none());
    assert!(host.merges.get(second).is_some() && host.merges.get(third).is_some());
    assert_eq!(host.journal(), 2);
}

/// What the checks would find says nothing of a merge that may have been done.
#[tokio::test]
async fn a_merge_whose_journal_is_damaged_is_not_refused_as_one_that_never_began() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    let order = order(host.rig.machine(1, &locators(&pair)), &pair);
    let dir = host.state.path().join("merges");
    std::fs::write(dir.join(format!("{}.corrupt", order.id)), "no record").unwrap();
    let refused = host.start(order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::MergeIdConflict);
    assert_eq!(host.journal(), 1, "nothing was accepted");
}

/// What one merge was promised, another one of another machine is not.
#[tokio::test]
async fn room_is_promised_once() {
    const KIB: u64 = 1 << 10;
    /// Enough for each of them alone, beside what is left over.
    const FREE: u64 = (16 << 20) + 800 * KIB;
    let host = Host::new().await;
    let mut orders = Vec::new();
    for (number, label) in [(1, "a"), (2, "b")] {
        let pair = host.pair(label).await;
        let top = format!("{label}-top.qcow2");
        let image = host.rig.path(&top);
        let write = format!("write -P 7 0 {}", 512 * KIB);
        let mut qemu_io = std::process::Command::new("qemu-io");
        qemu_io.args(["-f", "qcow2", "-c", &write]).arg(image);
        assert!(qemu_io.status().expect("qemu-io is needed here").success());
        let vm = host.rig.machine(number, &locators(&pair));
        orders.push(order(vm, &pair));
    }
    host.rig.store.seem_free(FREE);
    let [first, second] = <[MergeOrder; 2]>::try_from(orders).expect("two");
    let plan = |order: &MergeOrder| {
        let range = DiskRange {
            disk: order.disk.clone(),
            lowest: order.kept.clone(),
            youngest: order.removed[0].clone(),
            forced: None,
        };
        host.merges.plan(order.vm, vec![range], vec![])
    };
    let free = |plans: &[DiskPlan]| plans[0].options[0].free_bytes;
    assert_eq!(free(&plan(&second).await.unwrap()), FREE);
    host.start(first.clone()).await.unwrap();
    let planned = plan(&second).await.unwrap();
    assert!(free(&planned) <= FREE - 512 * KIB, "{planned:?}");
    let refused = host.start(second.clone()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::InsufficientSpace);
    // Repeating the first one takes nothing, and what it does not need any more is free again.
    host.start(first.clone()).await.unwrap();
    host.merges.cancel(first.id, 1).await.unwrap();
    while !host.merges.get(first.id).unwrap().record.phase.ended() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.start(second).await.unwrap();
}

/// A domain that hangs while room is promised in it holds up no other.
#[tokio::test]
async fn room_is_promised_in_each_domain_by_itself() {
    let host = Host::new().await;
    let pair = host.pair("a").await;
    let order = order(host.rig.machine(1, &locators(&pair)), &pair);
    let hangs = |storage: &str| {
        host.merges
            .promising
            .of(storage.parse().unwrap())
            .lock_owned()
    };
    let _other = hangs("other").await;
    let own = hangs("default").await;
    let mut waiting = std::pin::pin!(host.start(order.clone()));
    let late = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(late.is_err());
    drop(own);
    waiting.await.unwrap();
}

/// What is not free for a merge of another host is not free for one of this host; but only in the same
/// domain, not in another one of its name.
#[tokio::test]
async fn room_that_was_promised_elsewhere_is_not_free() {
    const FREE: u64 = 64 << 20;
    const PROMISED: u64 = 5 << 20;
    let host = Host::new().await;
    let (theirs, ours) = (host.pair("a").await, host.pair("b").await);
    host.rig.write("b-top.qcow2", 0..512);
    let order = order(host.rig.machine(1, &locators(&ours)), &ours);
    host.rig.store.seem_free(FREE);
    let mark = |volume: &VolumeInfo, identity: &VolumeInfo| VolumeMark {
        volume: volume.volume.clone(),
        identity: identity.identity.clone(),
    };
    let mut nowhere = mark(&theirs[0], &theirs[0]);
    nowhere.volume.name = "not-here.qcow2".parse().unwrap();
    let has = theirs[0].allocated_bytes;
    let promise = |kept_bytes| Promise {
        bytes: PROMISED,
        kept_bytes,
        kept_data_bytes: None,
    };
    for (kept, promise, free) in [
        (
            mark(&theirs[0], &theirs[0]),
            promise(u64::MAX),
            FREE - PROMISED,
        ),
        (mark(&theirs[0], &theirs[0]), promise(has), FREE - PROMISED),
        (
            mark(&theirs[0], &theirs[0]),
            promise(has - 4096),
            FREE - PROMISED + 4096,
        ),
        (mark(&theirs[0], &ours[0]), promise(has), FREE),
        (nowhere, promise(has), FREE),
    ] {
        let range = DiskRange {
            disk: order.disk.clone(),
            lowest: order.kept.clone(),
            youngest: order.removed[0].clone(),
            forced: None,
        };
        let elsewhere = vec![Elsewhere {
            kept,
            promise,
            kept_room_bytes: None,
        }];
        let planned = host.merges.plan(order.vm, vec![range], elsewhere.clone());
        let planned = planned.await.unwrap();
        assert_eq!(planned[0].options[0].free_bytes, free, "{elsewhere:?}");
    }
    let all = vec![Elsewhere {
        kept: mark(&theirs[0], &theirs[0]),
        promise: Promise {
            bytes: FREE,
            kept_bytes: has,
            kept_data_bytes: None,
        },
        kept_room_bytes: None,
    }];
    let refused = host.merges.start_beside(vec![order], u64::MAX, all).await;
    assert_eq!(refused.unwrap_err().reason, Reason::InsufficientSpace);
}
