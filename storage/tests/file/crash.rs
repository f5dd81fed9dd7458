//! A crash after each step of a removal, a creation and a restoration: what a restarted agent
//! finds, and that the same order ends it.

use crate::rig::{Files, LONG, Rig, name, open, order};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{
    FileStore, NewVolume, RemovalOrder, RemovalState, StorageError, VolumeInfo, VolumeStore as _,
};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Where a removal was when everything stopped, in the order of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    DirectoryMade,
    OrderHalfWritten,
    OrderWritten,
    Condemned,
    PurgingHalfWritten,
    PurgingWritten,
    Truncating,
    Truncated,
    Unlinked,
    OrderUnlinked,
    DirectoryRemoved,
}

use Step::*;

const STEPS: [Step; 11] = [
    DirectoryMade,
    OrderHalfWritten,
    OrderWritten,
    Condemned,
    PurgingHalfWritten,
    PurgingWritten,
    Truncating,
    Truncated,
    Unlinked,
    OrderUnlinked,
    DirectoryRemoved,
];

/// A removal of a volume with data, stopped.
struct Stopped {
    rig: Rig,
    volume: VolumeInfo,
    order: RemovalOrder,
}

impl Stopped {
    /// Begins from what the store itself leaves of a volume that is kept, and takes it where the
    /// step would have.
    async fn after(step: Step) -> Self {
        let rig = Rig::new().await;
        let volume = rig.base("v.qcow2").await;
        Files.write(&volume, 0, 1 << 20, 9).await;
        let kept = order(&volume, LONG);
        rig.store.remove(&kept).await.unwrap();
        let stopped = Self {
            rig,
            volume,
            order: RemovalOrder {
                keep_for: Duration::ZERO,
                ..kept
            },
        };
        stopped.set("keep_until", Value::Null);
        let (own, image) = (stopped.own(), stopped.own().join("volume"));
        match step {
            DirectoryMade => stopped.not_condemned(&["order"]),
            OrderHalfWritten => {
                stopped.not_condemned(&["order"]);
                fs::write(own.join("order.new"), "{\"volume").unwrap();
            }
            OrderWritten => stopped.not_condemned(&[]),
            Condemned => {}
            PurgingHalfWritten => fs::write(own.join("order.new"), "{\"volume").unwrap(),
            _ => stopped.set("purging", json!(true)),
        }
        match step {
            Truncating => stopped.cut(70_000),
            Truncated => stopped.cut(0),
            Unlinked => fs::remove_file(&image).unwrap(),
            OrderUnlinked => {
                fs::remove_file(&image).unwrap();
                fs::remove_file(own.join("order")).unwrap();
            }
            DirectoryRemoved => fs::remove_dir_all(&own).unwrap(),
            _ => {}
        }
        stopped
    }

    fn own(&self) -> PathBuf {
        self.rig
            .path(&format!(".livemerge/removals/{}", self.order.id))
    }

    fn set(&self, field: &str, value: Value) {
        let path = self.own().join("order");
        let mut order: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        order[field] = value;
        fs::write(&path, order.to_string()).unwrap();
    }

    fn not_condemned(&self, without: &[&str]) {
        fs::rename(self.own().join("volume"), self.rig.path("v.qcow2")).unwrap();
        for file in without {
            fs::remove_file(self.own().join(file)).unwrap();
        }
    }

    fn cut(&self, bytes: u64) {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.own().join("volume"))
            .unwrap();
        file.set_len(bytes).unwrap();
    }

    /// Whole under its name and not listed, or listed and without a name, or gone.
    async fn assert_one_state(&self, store: &FileStore, step: Step) {
        let listed = store.list_removals().await.unwrap();
        let there = store.stat(&self.order.volume).await;
        if step < Condemned {
            assert_eq!(there.unwrap().identity, self.volume.identity, "{step:?}");
            assert!(Files.reads(&self.volume, 0, 1 << 20, 9).await, "{step:?}");
            assert_eq!(listed, [], "{step:?}");
            return;
        }
        assert!(
            matches!(there, Err(StorageError::NotFound { .. })),
            "{step:?} {there:?}"
        );
        let ids: Vec<_> = listed.iter().map(|removal| removal.id).collect();
        let expected = (step < Unlinked).then_some(self.order.id);
        assert_eq!(ids, Vec::from_iter(expected), "{step:?}");
        let condemned = RemovalState::Condemned { keep_until: None };
        assert!(
            listed.iter().all(|removal| removal.state == condemned),
            "{step:?} {listed:?}"
        );
    }
}

#[tokio::test]
async fn a_removal_that_stopped_anywhere_is_ended_by_the_same_order() {
    for step in STEPS {
        let stopped = Stopped::after(step).await;
        let store = stopped.rig.reopened().await;
        stopped.assert_one_state(&store, step).await;
        let ended = store.remove(&stopped.order).await.unwrap();
        assert_eq!(ended.state, RemovalState::Gone, "{step:?}");
        assert_eq!(
            ended.freed_bytes > 0,
            step < Truncated,
            "{step:?} {ended:?}"
        );
        assert_eq!(stopped.rig.files(), [], "{step:?}");
        let again = store.remove(&stopped.order).await.unwrap();
        assert_eq!(
            (again.state, again.freed_bytes),
            (RemovalState::Gone, 0),
            "{step:?}"
        );
    }
}

#[tokio::test]
async fn the_running_store_resumes_as_a_new_one_does() {
    for step in STEPS {
        let stopped = Stopped::after(step).await;
        let store = &stopped.rig.store;
        stopped.assert_one_state(store, step).await;
        let ended = store.remove(&stopped.order).await.unwrap();
        assert_eq!(ended.state, RemovalState::Gone, "{step:?}");
        assert_eq!(stopped.rig.files(), [], "{step:?}");
    }
}

#[tokio::test]
async fn a_resumed_removal_spares_the_volume_that_has_the_name_by_now() {
    for step in STEPS.into_iter().filter(|step| *step >= Condemned) {
        let stopped = Stopped::after(step).await;
        let store = stopped.rig.reopened().await;
        let new = stopped.rig.base("v.qcow2").await;
        Files.write(&new, 0, 4096, 3).await;
        store.remove(&stopped.order).await.unwrap();
        assert_eq!(
            store.stat(&stopped.order.volume).await.unwrap().identity,
            new.identity
        );
        assert!(Files.reads(&new, 0, 4096, 3).await, "{step:?}");
        assert_eq!(stopped.rig.files().len(), 1, "{step:?}");
    }
}

/// Somebody has put another image in its place between the gate and the rename, and the call that
/// would have looked again was stopped.
#[tokio::test]
async fn a_resumed_removal_frees_only_the_volume_that_it_means() {
    let stopped = Stopped::after(Condemned).await;
    let rig = &stopped.rig;
    let stranger = rig.base("stranger.qcow2").await;
    Files.write(&stranger, 0, 4096, 5).await;
    fs::rename(rig.path("stranger.qcow2"), stopped.own().join("volume")).unwrap();
    let store = rig.reopened().await;
    let answer = store.remove(&stopped.order).await;
    assert!(
        matches!(answer, Err(StorageError::InUse { .. })),
        "{answer:?}"
    );
    let back = store.stat(&stopped.order.volume).await.unwrap();
    assert_eq!(back.identity, stranger.identity);
    assert!(Files.reads(&back, 0, 4096, 5).await);
    let again = store.remove(&stopped.order).await.unwrap();
    assert_eq!(again.state, RemovalState::Gone);
    assert!(Files.reads(&back, 0, 4096, 5).await);
}

#[tokio::test]
async fn what_was_being_freed_or_kept_too_long_is_not_restored() {
    for step in [Condemned, PurgingWritten, Truncating] {
        let stopped = Stopped::after(step).await;
        stopped.set("keep_until", json!("2001-01-01T00:00:00Z"));
        let store = stopped.rig.reopened().await;
        let answer = store.restore(stopped.order.id).await;
        assert!(
            matches!(answer, Err(StorageError::NotKept { .. })),
            "{step:?} {answer:?}"
        );
        assert_eq!(
            store.remove(&stopped.order).await.unwrap().state,
            RemovalState::Gone
        );
    }
    let stopped = Stopped::after(PurgingWritten).await;
    stopped.set("keep_until", json!("2999-01-01T00:00:00Z"));
    let answer = stopped.rig.store.restore(stopped.order.id).await;
    assert!(
        matches!(answer, Err(StorageError::NotKept { .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_restoration_that_stopped_before_it_forgot_the_order_is_whole() {
    let stopped = Stopped::after(OrderWritten).await;
    stopped.set("keep_until", json!("2999-01-01T00:00:00Z"));
    let store = stopped.rig.reopened().await;
    let answer = store.restore(stopped.order.id).await;
    assert!(
        matches!(answer, Err(StorageError::NotFound { .. })),
        "{answer:?}"
    );
    assert_eq!(
        store.stat(&stopped.order.volume).await.unwrap().identity,
        stopped.volume.identity
    );
    assert!(!stopped.own().exists());
}

#[tokio::test]
async fn a_condemned_volume_without_a_readable_order_is_never_passed_over() {
    for text in [None, Some("{\"volume")] {
        let stopped = Stopped::after(Condemned).await;
        match text {
            Some(text) => fs::write(stopped.own().join("order"), text).unwrap(),
            None => fs::remove_file(stopped.own().join("order")).unwrap(),
        }
        let store = stopped.rig.reopened().await;
        let other = stopped.rig.base("other.qcow2").await;
        let answers = [
            store.list_removals().await.map(drop),
            store.remove(&stopped.order).await.map(drop),
            store.restore(stopped.order.id).await.map(drop),
        ];
        for answer in answers {
            assert!(
                matches!(answer, Err(StorageError::Corrupt { .. })),
                "{answer:?}"
            );
        }
        // What it was built on cannot be told, so it may be any other.
        let refused = store.remove(&order(&other, Duration::ZERO)).await;
        assert!(
            matches!(refused, Err(StorageError::Unreachable { .. })),
            "{refused:?}"
        );
        assert!(stopped.own().join("volume").exists());
        store.stat(&name("other.qcow2")).await.unwrap();
    }
}

#[tokio::test]
async fn opening_sweeps_what_nobody_will_ask_for_and_only_that() {
    let stopped = Stopped::after(Condemned).await;
    let rig = &stopped.rig;
    let kept = rig.files();
    let empty = rig.path(".livemerge/removals/6f6f4b66-7a0f-4a8c-9d0e-1d7c7c5b4a01");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("order"), "{}").unwrap();
    fs::write(rig.path(".livemerge/new/half.qcow2"), "QFI").unwrap();
    fs::write(rig.path("half.qcow2.tmp"), "foreign").unwrap();
    rig.reopened().await;
    assert!(!empty.exists());
    let mut expected = kept;
    expected.push((rig.path("half.qcow2.tmp"), b"foreign".to_vec()));
    expected.sort();
    assert_eq!(rig.files(), expected);
}

#[tokio::test]
async fn a_sweep_waits_for_nobody_and_spares_who_creates() {
    let rig = Rig::new().await;
    let half = rig.path(".livemerge/new/half.qcow2");
    fs::write(&half, "QFI").unwrap();
    // As another agent holds it while it makes a volume.
    let creating = fs::File::open(rig.path(".livemerge/creating.lock"));
    let creating = creating.expect("opening a domain makes its locks");
    creating.lock_shared().unwrap();
    open(&rig.root()).await.unwrap();
    assert!(half.exists());
    drop(creating);
    open(&rig.root()).await.unwrap();
    assert!(!half.exists());
}

#[tokio::test]
async fn a_creation_that_is_refused_leaves_nothing() {
    let rig = Rig::new().await;
    let below = rig.base("below.qcow2").await;
    let before = rig.files();
    let new = NewVolume {
        name: name("v.qcow2"),
        virtual_bytes: 513,
        parent: None,
    };
    rig.store.create(&new).await.unwrap_err();
    let itself = NewVolume {
        name: name("below.qcow2"),
        virtual_bytes: 1 << 20,
        parent: below.parent,
    };
    rig.store.create(&itself).await.unwrap_err();
    assert_eq!(rig.files(), before);
}
