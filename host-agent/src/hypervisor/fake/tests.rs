//! The fake keeps the promises that tests build on.

use std::time::Duration;

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use proptest::prelude::*;

use super::*;
use crate::hypervisor::{BlockJobKind, Hypervisor, HypervisorEvent, JobOrder, Overlay};

fn image(name: &str) -> Locator {
    Locator::File(format!("/images/{name}").into())
}

fn vda() -> DiskTarget {
    "vda".parse().unwrap()
}

fn vm() -> VmId {
    "11111111-2222-3333-4444-555555555555".parse().unwrap()
}

/// A machine with the chain a <- b <- c.
fn host(pace: Pace) -> FakeHypervisor {
    let host = FakeHypervisor::new(FakeImages::default(), pace);
    host.add_vm(
        vm(),
        "one",
        &[("vda", &[image("a"), image("b"), image("c")])],
    );
    host
}

fn order(base: &str, top: &str, active: bool) -> JobOrder {
    JobOrder {
        disk: vda(),
        kind: kind(active),
        base: Some(image(base)),
        top: image(top),
        bytes_per_second: 0,
        merge: None,
    }
}

fn kind(active: bool) -> BlockJobKind {
    if active {
        BlockJobKind::ActiveCommit
    } else {
        BlockJobKind::Commit
    }
}

async fn chain(host: &FakeHypervisor) -> Vec<Locator> {
    let view = host.vm(vm()).await.unwrap();
    view.disk(&vda())
        .unwrap()
        .chain
        .iter()
        .map(|layer| layer.locator.clone())
        .collect()
}

fn outcomes(events: &mut broadcast::Receiver<HypervisorEvent>) -> Vec<BlockJobOutcome> {
    std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match event {
            HypervisorEvent::BlockJob { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn an_intermediate_commit_moves_data_and_ends_by_itself() {
    let host = host(Pace::Manual);
    host.images().write(&image("a"), 1, 10);
    host.images().write(&image("b"), 1, 11);
    host.images().write(&image("b"), 2, 12);
    let mut events = host.events();
    host.start_job(vm(), &order("a", "b", false)).await.unwrap();
    host.advance(vm(), &vda(), 1);
    let progress = host.job(vm(), &vda()).await.unwrap().unwrap();
    assert_eq!(
        (progress.kind, progress.cur, progress.end),
        (BlockJobKind::Commit, 1, 2)
    );
    host.guest_write(vm(), &vda(), 2, 99);
    host.advance(vm(), &vda(), 1);
    assert_eq!(outcomes(&mut events), [BlockJobOutcome::Completed]);
    assert_eq!(host.job(vm(), &vda()).await.unwrap(), None);
    assert_eq!(chain(&host).await, [image("a"), image("c")]);
    assert_eq!(host.images().backing(&image("c")), Some(image("a")));
    assert_eq!(host.images().read(&image("a"), 2), Some(12));
    assert_eq!(host.guest_read(vm(), &vda(), 1), Some(11));
    assert_eq!(host.guest_read(vm(), &vda(), 2), Some(99));
}

#[tokio::test]
async fn an_active_commit_waits_for_the_pivot() {
    let host = host(Pace::Manual);
    host.guest_write(vm(), &vda(), 1, 5);
    let mut events = host.events();
    host.start_job(vm(), &order("b", "c", true)).await.unwrap();
    assert!(matches!(
        host.pivot(vm(), &vda()).await,
        Err(HypervisorError::Refused(_))
    ));
    host.advance(vm(), &vda(), usize::MAX);
    assert_eq!(outcomes(&mut events), [BlockJobOutcome::Ready]);
    // A write in flight: the base lags behind.
    host.guest_write(vm(), &vda(), 2, 6);
    let progress = host.job(vm(), &vda()).await.unwrap().unwrap();
    assert_eq!((progress.cur, progress.end), (1, 2));
    host.suspend(vm()).await.unwrap();
    assert!(!host.guest_write(vm(), &vda(), 3, 7));
    host.pivot(vm(), &vda()).await.unwrap();
    assert!(host.switch(vm(), &vda()));
    assert_eq!(chain(&host).await, [image("a"), image("b"), image("c")]);
    host.notice(vm(), &vda());
    host.resume(vm()).await.unwrap();
    assert_eq!(outcomes(&mut events), [BlockJobOutcome::Completed]);
    assert_eq!(chain(&host).await, [image("a"), image("b")]);
    assert_eq!(host.images().read(&image("b"), 2), Some(6));
}

#[tokio::test]
async fn a_death_in_the_pivot_window_leaves_the_last_writes_in_one_image_only() {
    let host = host(Pace::Manual);
    host.start_job(vm(), &order("b", "c", true)).await.unwrap();
    host.advance(vm(), &vda(), usize::MAX);
    host.pivot(vm(), &vda()).await.unwrap();
    host.guest_write(vm(), &vda(), 1, 1);
    assert!(host.switch(vm(), &vda()));
    assert!(host.guest_write(vm(), &vda(), 1, 2));
    host.kill_vm(vm());
    assert_eq!(host.guest_read(vm(), &vda(), 1), None);
    // The definition still names the overlay, which never saw the second write.
    assert_eq!(chain(&host).await, ["a", "b", "c"].map(image));
    host.start_vm(vm()).unwrap();
    assert_eq!(host.guest_read(vm(), &vda(), 1), Some(1));
    assert_eq!(host.images().read(&image("b"), 1), Some(2));
}

fn offline(base: &str, top: &str) -> JobOrder {
    JobOrder {
        kind: BlockJobKind::Offline,
        ..order(base, top, false)
    }
}

#[tokio::test]
async fn a_machine_that_is_shut_off_is_merged_under_locks() {
    let host = host(Pace::Manual);
    let running = host.start_job(vm(), &offline("a", "b")).await;
    assert!(matches!(running, Err(HypervisorError::Refused(_))));
    host.guest_write(vm(), &vda(), 1, 1);
    host.kill_vm(vm());
    let live = host.start_job(vm(), &order("a", "b", false)).await;
    assert!(matches!(live, Err(HypervisorError::Refused(_))));
    let mut events = host.events();
    // Under an overlay, whose header follows; then the top, which the definition follows.
    for (base, top, after) in [("a", "b", &["a", "c"][..]), ("a", "c", &["a"])] {
        host.start_job(vm(), &offline(base, top)).await.unwrap();
        let job = host.job(vm(), &vda()).await.unwrap().unwrap();
        assert_eq!(job.kind, BlockJobKind::Offline);
        assert!(host.start_vm(vm()).is_err());
        host.lose_offline_jobs();
        assert_eq!(host.job(vm(), &vda()).await.unwrap(), None);
        host.start_job(vm(), &offline(base, top)).await.unwrap();
        host.advance(vm(), &vda(), usize::MAX);
        let after: Vec<_> = after.iter().map(|name| image(name)).collect();
        assert_eq!(chain(&host).await, after);
        assert_eq!(outcomes(&mut events), [BlockJobOutcome::Completed]);
    }
    assert_eq!(host.images().read(&image("a"), 1), Some(1));
    host.start_vm(vm()).unwrap();
    assert_eq!(host.guest_read(vm(), &vda(), 1), Some(1));
}

#[tokio::test]
async fn a_broken_chain_is_not_known_and_not_listed() {
    let host = host(Pace::Manual);
    host.kill_vm(vm());
    assert_eq!(chain(&host).await, ["a", "b", "c"].map(image));
    host.images().remove(&image("a"));
    let unknown = host.vm(vm()).await;
    assert!(matches!(unknown, Err(HypervisorError::Unknown(_))));
    assert_eq!(host.vms().await.unwrap()[0].disks, []);
}

#[tokio::test]
async fn faults_come_as_planned() {
    let host = host(Pace::Manual);
    host.fail_next("suspend", HypervisorError::Refused("no".to_owned()));
    host.lose_reply("suspend");
    assert!(matches!(
        host.suspend(vm()).await,
        Err(HypervisorError::Refused(_))
    ));
    assert_eq!(host.vm(vm()).await.unwrap().state, VmState::Running);
    assert!(matches!(
        host.suspend(vm()).await,
        Err(HypervisorError::Unknown(_))
    ));
    assert_eq!(host.vm(vm()).await.unwrap().state, VmState::Paused);
    let mutations: Vec<_> = host.calls().into_iter().filter(Call::mutates).collect();
    assert_eq!(mutations, [Call::Suspend(vm()), Call::Suspend(vm())]);
}

#[tokio::test]
async fn without_a_connection_nothing_is_known_and_jobs_go_on() {
    let host = host(Pace::Manual);
    host.start_job(vm(), &order("a", "b", false)).await.unwrap();
    let mut events = host.events();
    host.disconnect();
    assert!(!host.connected());
    assert!(matches!(
        host.vm(vm()).await,
        Err(HypervisorError::Unknown(_))
    ));
    host.advance(vm(), &vda(), 1);
    host.connect();
    assert_eq!(events.try_recv().unwrap(), HypervisorEvent::Disconnected);
    assert_eq!(events.try_recv().unwrap(), HypervisorEvent::Connected);
    assert!(events.try_recv().is_err(), "the job's event is lost");
    assert_eq!(chain(&host).await, [image("a"), image("c")]);
}

#[tokio::test]
async fn overlays_are_put_on_all_or_none_and_once() {
    let host = host(Pace::Manual);
    let overlay = |name| Overlay {
        disk: vda(),
        locator: image(name),
    };
    host.images().create(&image("d"), Some(&image("c")));
    let wrong = [
        overlay("d"),
        Overlay {
            disk: "vdb".parse().unwrap(),
            locator: image("e"),
        },
    ];
    assert!(matches!(
        host.add_overlays(vm(), &wrong).await,
        Err(HypervisorError::NotFound(_))
    ));
    assert_eq!(chain(&host).await.len(), 3);
    for _ in 0..2 {
        host.add_overlays(vm(), &[overlay("d")]).await.unwrap();
        assert_eq!(chain(&host).await, ["a", "b", "c", "d"].map(image));
    }
    let named = host.references(&[image("a"), image("x")]).await.unwrap();
    assert_eq!(named.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
}

#[tokio::test]
async fn at_its_own_pace_a_job_needs_nobody() {
    let host = host(Pace::Every(Duration::from_millis(5)));
    host.guest_write(vm(), &vda(), 1, 1);
    let mut events = host.events();
    let event = |outcome| HypervisorEvent::BlockJob {
        vm: vm(),
        disk: vda(),
        outcome,
    };
    host.start_job(vm(), &order("b", "c", true)).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), event(BlockJobOutcome::Ready));
    host.pivot(vm(), &vda()).await.unwrap();
    assert_eq!(
        events.recv().await.unwrap(),
        event(BlockJobOutcome::Completed)
    );
    assert_eq!(chain(&host).await, [image("a"), image("b")]);
}

/// What may happen to a disk between two writes.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Write(u64),
    Copy(usize),
    Start(BlockJobKind),
    Pivot,
    Switch,
    Notice,
    Cancel,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0_u64..6).prop_map(Happening::Write),
        3 => (0_usize..4).prop_map(Happening::Copy),
        2 => proptest::sample::select(vec![
            BlockJobKind::ActiveCommit,
            BlockJobKind::Commit,
            BlockJobKind::Pull,
        ])
        .prop_map(Happening::Start),
        2 => Just(Happening::Pivot),
        2 => Just(Happening::Switch),
        2 => Just(Happening::Notice),
        1 => Just(Happening::Cancel),
    ]
}

async fn happen(host: &FakeHypervisor, what: Happening, value: u64) {
    let (vm, vda) = (vm(), vda());
    match what {
        Happening::Write(block) => assert!(host.guest_write(vm, &vda, block, value)),
        Happening::Copy(blocks) => host.advance(vm, &vda, blocks),
        Happening::Start(kind) => {
            let chain = chain(host).await;
            let [.., base, top] = chain.as_slice() else {
                return;
            };
            let (kind, base, top) = match (kind, chain.as_slice()) {
                (BlockJobKind::Commit, [base, top, _, ..]) => (kind, Some(base), top),
                (BlockJobKind::Pull, [below, _, _]) => (kind, Some(below), top),
                (BlockJobKind::Pull, _) => (kind, None, top),
                _ => (BlockJobKind::ActiveCommit, Some(base), top),
            };
            let order = JobOrder {
                disk: vda,
                kind,
                base: base.cloned(),
                top: top.clone(),
                bytes_per_second: 0,
                merge: None,
            };
            let _ = host.start_job(vm, &order).await;
        }
        Happening::Pivot => drop(host.pivot(vm, &vda).await),
        Happening::Switch => drop(host.switch(vm, &vda)),
        Happening::Notice => host.notice(vm, &vda),
        Happening::Cancel => host.cancel_job(vm, &vda),
    }
}

proptest! {
    /// Whatever jobs do, the guest reads what it wrote.
    #[test]
    fn the_guest_reads_its_own_writes(run in prop::collection::vec(happening(), 0..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let host = host(Pace::Manual);
            let mut written = BTreeMap::new();
            for (value, what) in (1..).zip(run) {
                happen(&host, what, value).await;
                if let Happening::Write(block) = what {
                    written.insert(block, value);
                }
                for (block, value) in &written {
                    assert_eq!(host.guest_read(vm(), &vda(), *block), Some(*value));
                }
            }
        });
    }
}
