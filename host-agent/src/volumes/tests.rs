//! The gate of removals, whatever the witnesses say: one who says that the volume is needed, or
//! cannot say, is a no.

use super::*;
use crate::domains::RemovalPolicy;
use crate::reaper::reap;
use crate::rig::Rig;
use jiff::Timestamp;
use livemerge_runtime::{Clock, Shutdown, SystemClock};
use livemerge_storage::faulty::{Call, Fault, Moment};
use livemerge_storage::{Removal, RemovalOrder, RemovalState, VolumeStore as _};
use proptest::prelude::*;
use std::time::Duration;
use uuid::Uuid;

/// How a witness speaks of the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Free,
    Needed,
    Nothing,
}

/// Where a machine has the volume, if one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    Nowhere,
    /// It lies in a running machine's chain.
    InTheChain,
    /// Only the next start would open it.
    ByTheDefinition,
    /// In the chain of a machine that is off.
    ByOneThatIsOff,
}

fn any_says() -> impl Strategy<Value = Says> {
    prop_oneof![Just(Says::Free), Just(Says::Needed), Just(Says::Nothing)]
}

fn any_named() -> impl Strategy<Value = Named> {
    prop_oneof![
        2 => Just(Named::Nowhere),
        1 => Just(Named::InTheChain),
        1 => Just(Named::ByTheDefinition),
        1 => Just(Named::ByOneThatIsOff),
    ]
}

/// What each witness says, and whether the order means this volume or an earlier one of its name.
#[derive(Debug, Clone)]
struct Scene {
    machines: Named,
    machines_answer: bool,
    stat_answers: bool,
    headers: Says,
    meant: bool,
}

fn any_scene() -> impl Strategy<Value = Scene> {
    let drawn = (
        any_named(),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.8),
        any_says(),
        prop::bool::weighted(0.8),
    );
    drawn.prop_map(
        |(machines, machines_answer, stat_answers, headers, meant)| Scene {
            machines,
            machines_answer,
            stat_answers,
            headers,
            meant,
        },
    )
}

impl Scene {
    /// Nobody needs the volume, and everybody has said so.
    fn is_free(&self) -> bool {
        let machines = self.machines == Named::Nowhere && self.machines_answer;
        machines && self.stat_answers && self.headers == Says::Free && self.meant
    }

    async fn play(&self) -> (bool, Result<Removal, Problem>) {
        let rig = Rig::new().await;
        let base = rig.volume("base.qcow2", None).await;
        let victim = rig.volume("victim.qcow2", Some("base.qcow2")).await;
        let host = &rig.host;
        let (own, below) = (rig.locator("victim.qcow2"), rig.locator("base.qcow2"));
        host.images().create(&below, None);
        host.images().create(&own, Some(&below));
        let vda = crate::rig::vda();
        match self.machines {
            Named::Nowhere => drop(rig.machine(1, &[below])),
            Named::InTheChain => drop(rig.machine(1, &[below, own])),
            Named::ByTheDefinition => {
                let vm = rig.machine(1, &[below]);
                host.set_next_start(vm, &vda, &own);
            }
            Named::ByOneThatIsOff => {
                let vm = rig.machine(1, &[below, own]);
                host.kill_vm(vm);
            }
        }
        if !self.machines_answer {
            let unseen = HypervisorError::Unknown("cannot be seen".to_owned());
            host.fail_next("references", unseen);
        }
        if !self.stat_answers {
            rig.store.lose(Call::Stat, Moment::Before);
        }
        match self.headers {
            Says::Free => {}
            Says::Needed => drop(rig.volume("child.qcow2", Some("victim.qcow2")).await),
            Says::Nothing => rig.store.inject(Fault {
                call: Some(Call::Remove),
                skip: 0,
                moment: Moment::Before,
                error: StorageError::Corrupt {
                    what: "a header".to_owned(),
                    why: "as the test has planned".to_owned(),
                },
            }),
        }
        let identity = if self.meant {
            victim.identity.clone()
        } else {
            base.identity.clone()
        };
        let name = victim.volume.name.clone();
        let order = RemovalOrder::new(Uuid::from_u128(3).into(), name, identity);
        let answer = rig.volumes.remove(&victim.volume.storage, &order).await;
        let there = std::fs::exists(rig.path("victim.qcow2")).unwrap();
        (there, answer)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_is_removed_that_is_in_use_or_cannot_be_seen(scene in any_scene()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (there, answer) = runtime.block_on(scene.play());
        prop_assert_eq!(there, !scene.is_free(), "{:?}", answer);
        // Another volume of that name is left alone, and the one that is meant is gone.
        let heard = scene.stat_answers && scene.headers != Says::Nothing;
        let gone = scene.is_free() || (!scene.meant && heard);
        prop_assert_eq!(answer.is_ok(), gone, "{:?}", answer);
    }
}

/// A machine that was never seen, or whose chain cannot be read, is a no.
#[tokio::test]
async fn machines_that_cannot_all_be_seen_keep_every_volume() {
    let rig = Rig::new().await;
    let victim = rig.volume("victim.qcow2", None).await;
    rig.host.disconnect();
    let (name, identity) = (victim.volume.name.clone(), victim.identity.clone());
    let order = RemovalOrder::new(Uuid::from_u128(3).into(), name, identity);
    let answer = rig.volumes.remove(&victim.volume.storage, &order).await;
    assert_eq!(answer.unwrap_err().reason, Reason::HypervisorUnreachable);
    assert!(rig.store.stat(&victim.volume.name).await.is_ok());
    rig.host.connect();
    let answer = rig.volumes.remove(&victim.volume.storage, &order).await;
    assert!(answer.is_ok());
}

/// A domain that keeps what it removes.
fn keeping(rig: &Rig, keep_for: Duration) -> Volumes {
    let removal = RemovalPolicy {
        keep_for,
        ..RemovalPolicy::default()
    };
    let domain = Domain {
        removal,
        ..Domain::plain(Arc::clone(&rig.store) as _)
    };
    Volumes::new(vec![domain], Arc::new(rig.host.clone()))
}

/// What volumes take counts, whatever the file system has left.
#[tokio::test]
async fn a_quota_leaves_no_more_room_than_it_grants() {
    let rig = Rig::new().await;
    rig.volume("base.qcow2", None).await;
    rig.write("base.qcow2", 0..512);
    let all = rig.volumes.space(rig.store.id()).await.unwrap();
    let taken = rig.store.stat(&"base.qcow2".parse().unwrap()).await;
    let taken = taken.unwrap().allocated_bytes;
    assert!(taken >= 512 << 10);
    for (quota_bytes, free_bytes) in [
        (taken - 1, 0),
        (taken + 4096, 4096),
        (u64::MAX, all.free_bytes),
    ] {
        let domain = Domain {
            quota_bytes: Some(quota_bytes),
            ..Domain::plain(Arc::clone(&rig.store) as _)
        };
        let volumes = Volumes::new(vec![domain], Arc::new(rig.host.clone()));
        let space = volumes.space(rig.store.id()).await.unwrap();
        // Others write to the same file system.
        let off_by = space.free_bytes.abs_diff(free_bytes);
        assert!(off_by == 0 || quota_bytes == u64::MAX, "{space:?}");
        assert_eq!(space.total_bytes, all.total_bytes.min(quota_bytes));
    }
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_is_kept_is_brought_back_and_ends_when_its_time_is_over() {
    let rig = Rig::new().await;
    let victim = rig.volume("victim.qcow2", None).await;
    let storage = &victim.volume.storage;
    let volumes = keeping(&rig, LONG);
    let (name, identity) = (victim.volume.name.clone(), victim.identity.clone());
    let order =
        |id: u128| RemovalOrder::new(Uuid::from_u128(id).into(), name.clone(), identity.clone());
    let until = |removal: &Removal| match removal.state {
        RemovalState::Condemned { keep_until } => keep_until.expect("it is kept"),
        RemovalState::Gone => panic!("it is gone"),
    };
    let first = volumes.remove(storage, &order(1)).await.unwrap();
    let condemned_at = first.condemned_at.expect("it was there");
    assert!(until(&first) > condemned_at);
    assert!(!rig.path("victim.qcow2").exists());
    // Looked at before its time is over nothing happens.
    assert!(reap(storage, &volumes, condemned_at).await);
    let back = volumes.restore(storage, order(1).id).await.unwrap();
    assert_eq!(back.identity, identity);
    let again = volumes.restore(storage, order(1).id).await.unwrap_err();
    assert_eq!(again.reason, Reason::RemovalNotFound);

    let brief = keeping(&rig, Duration::from_millis(100));
    let second = brief.remove(storage, &order(2)).await.unwrap();
    assert!(until(&second) > second.condemned_at.expect("it was there"));
    // The agent's own task ends it, once its time is over by the clock.
    let (brief, shutdown) = (Arc::new(brief), Shutdown::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    crate::reaper::start(&brief, &clock, &shutdown, Duration::from_millis(20));
    let ended = async {
        while !brief.removals(storage).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended)
        .await
        .expect("it ends");
    shutdown.cancel();
    let late = brief.restore(storage, order(2).id).await.unwrap_err();
    assert_eq!(late.reason, Reason::RemovalNotFound);
    assert_eq!(rig.store.list_removals().await.unwrap(), []);
}

#[tokio::test]
async fn a_restoration_that_meets_another_call_may_be_tried_again() {
    let rig = Rig::new().await;
    let victim = rig.volume("victim.qcow2", None).await;
    let volumes = keeping(&rig, LONG);
    let (name, identity) = (victim.volume.name.clone(), victim.identity.clone());
    let order = RemovalOrder::new(Uuid::from_u128(1).into(), name, identity);
    let storage = &victim.volume.storage;
    volumes.remove(storage, &order).await.unwrap();
    rig.store.inject(Fault {
        call: Some(Call::Restore),
        skip: 0,
        moment: Moment::Before,
        error: StorageError::Busy {
            what: format!("removal {}", order.id),
        },
    });
    let met = volumes.restore(storage, order.id).await.unwrap_err();
    assert_eq!(met.reason, Reason::StorageUnreachable);
    let back = volumes.restore(storage, order.id).await.unwrap();
    assert_eq!(back.identity, victim.identity);
}

#[tokio::test]
async fn what_is_kept_no_longer_is_not_brought_back() {
    let rig = Rig::new().await;
    let victim = rig.volume("victim.qcow2", None).await;
    let brief = keeping(&rig, Duration::from_millis(50));
    let (name, identity) = (victim.volume.name.clone(), victim.identity.clone());
    let order = RemovalOrder::new(Uuid::from_u128(1).into(), name, identity);
    let storage = &victim.volume.storage;
    brief.remove(storage, &order).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = brief.restore(storage, order.id).await.unwrap_err();
    assert_eq!(refused.reason, Reason::RemovalNotKept);
    // Until it succeeds the next look comes later each time.
    for call in [Call::ListRemovals, Call::Remove] {
        rig.store.lose(call, Moment::Before);
        assert!(!reap(storage, &brief, Timestamp::MAX).await, "{call:?}");
    }
    assert!(reap(storage, &brief, Timestamp::MAX).await);
    assert_eq!(brief.removals(storage).await.unwrap(), []);
}
