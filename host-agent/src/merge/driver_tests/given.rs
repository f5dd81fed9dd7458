//! Merges in a domain whose volumes have only the room that they are given.

use super::*;
use livemerge_storage::StorageError;
use livemerge_storage::faulty::{Call as Asked, Fault, Moment};
use livemerge_storage::{StorageId, VolumeStore as _};

const KIB: u64 = 1 << 10;
const CHUNK: u64 = 64 * KIB;
/// Enough for whatever is ordered here, beside what is left over.
const MUCH: u64 = 20 << 20;

async fn host(disks: &[&str]) -> Host {
    let host = Host::new(disks).await;
    host.rig.store.seem_given(CHUNK);
    host.rig.store.seem_free(MUCH);
    host
}

fn storage() -> StorageId {
    "default".parse().unwrap()
}

impl Host {
    async fn room(&self, volume: &str) -> u64 {
        let info = self.rig.store.stat(&volume.parse().unwrap()).await;
        info.unwrap().allocated_bytes
    }

    async fn accepted(&self, order: MergeOrder) -> MergeId {
        let id = order.id;
        self.merges.start(vec![order]).await.unwrap();
        id
    }

    /// Calls of this kind will not be answered, the first ones excepted.
    fn lose(&self, call: Asked, skip: usize) {
        let source = std::io::Error::other("injected");
        self.rig.store.inject(Fault {
            call: Some(call),
            skip,
            moment: Moment::Before,
            error: StorageError::Unreachable {
                what: "storage".to_owned(),
                source,
            },
        });
    }
}

#[tokio::test]
async fn room_that_was_given_for_a_merge_that_was_cancelled_is_there_for_the_next_one() {
    let host = host(&["vda"]).await;
    host.rig.write("vda-top.qcow2", 0..512);
    let first = host.accepted(host.commit(&vda(), 0, 2)).await;
    host.job(&vda()).await;
    // Twice what is copied: little is needed, and so is little beside it.
    let given = CHUNK + 1024 * KIB;
    assert_eq!(host.room("vda-base.qcow2").await, given);
    host.merges.cancel(first, GENERATION).await.unwrap();
    assert!(cancelled(&host.ended(first).await));
    host.rig.store.seem_free(0);
    let second = host.accepted(host.commit(&vda(), 0, 2)).await;
    assert_eq!(
        host.merges.promised(&storage()).await,
        0,
        "it has all of it"
    );
    host.copy(&vda()).await;
    assert_eq!(host.room("vda-base.qcow2").await, given);
    host.switch(&vda()).await;
    assert!(merged(&host.ended(second).await));
}

#[tokio::test]
async fn what_was_filled_of_such_room_is_not_unused() {
    let host = host(&["vda"]).await;
    host.rig.write("vda-top.qcow2", 0..256);
    let first = host.accepted(host.commit(&vda(), 0, 2)).await;
    host.job(&vda()).await;
    assert_eq!(host.room("vda-base.qcow2").await, CHUNK + 512 * KIB);
    // As the job leaves it, and the guest writes on.
    host.rig.write("vda-base.qcow2", 0..256);
    host.rig.write("vda-top.qcow2", 256..768);
    host.merges.cancel(first, GENERATION).await.unwrap();
    host.ended(first).await;
    host.lose(Asked::Activate, 0);
    let second = host.accepted(host.commit(&vda(), 0, 2)).await;
    // It needs 512 KiB, with as much to spare, and 256 KiB lie unused: more than it is ever given.
    assert_eq!(host.merges.promised(&storage()).await, 9 * CHUNK);
    host.job(&vda()).await;
    assert_eq!(host.merges.promised(&storage()).await, 0);
    let most = 18 * CHUNK;
    assert_eq!(host.room("vda-base.qcow2").await, most);
    host.merges.cancel(second, GENERATION).await.unwrap();
}

/// A kept volume may be full before it is given more.
#[tokio::test]
async fn a_job_that_failed_where_room_is_given_gets_more_of_it_and_begins_again() {
    let host = host(&["vda"]).await;
    host.rig.write("vda-top.qcow2", 0..256);
    let id = host.accepted(host.commit(&vda(), 0, 2)).await;
    host.job(&vda()).await;
    let first = host.room("vda-base.qcow2").await;
    assert_eq!(first, CHUNK + 512 * KIB);
    host.rig.write("vda-base.qcow2", 0..256);
    host.rig.write("vda-top.qcow2", 256..768);
    host.qemu().fail_job(host.vm, &vda());
    let second = host
        .until(id, |phase| {
            matches!(phase, Phase::Copying { starts: 2, .. })
        })
        .await;
    assert!(!second.ended());
    host.job(&vda()).await;
    let given = host.room("vda-base.qcow2").await;
    // What is left to copy, with as much to spare, less what lies unused.
    assert!(given >= first + 512 * KIB, "{given} after {first}");
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
}

#[tokio::test]
async fn the_promise_of_a_pull_is_kept_once() {
    let host = host(&["vda"]).await;
    host.rig.write("vda-base.qcow2", 0..512);
    let [base, middle, top] = [0, 1, 2].map(|layer| mark(&host.chain_of(&vda())[layer]));
    let pull = MergeOrder {
        direction: Direction::Pull,
        kept: top,
        removed: vec![base, middle],
        ..host.commit(&vda(), 0, 2)
    };
    host.accepted(pull).await;
    host.job(&vda()).await;
    assert_eq!(host.room("vda-top.qcow2").await, CHUNK + 1024 * KIB);
    assert_eq!(host.merges.promised(&storage()).await, 0);
}

#[tokio::test]
async fn a_guess_is_given_one_chunk() {
    let host = host(&["vda"]).await;
    // Before the order is accepted both maps are read.
    host.lose(Asked::Extents, 2);
    host.accepted(host.commit(&vda(), 0, 2)).await;
    host.job(&vda()).await;
    assert_eq!(host.rig.store.pending(), 0);
    assert_eq!(host.room("vda-base.qcow2").await, 2 * CHUNK);
}

#[tokio::test]
async fn a_base_that_is_smaller_than_its_overlay_is_given_the_room_of_that() {
    let host = host(&["vda"]).await;
    let top = "vda-top.qcow2";
    let grown = host.rig.store.grow(&top.parse().unwrap(), 2 << 20).await;
    grown.unwrap();
    host.rig.write(top, 1024..2048);
    host.accepted(host.commit(&vda(), 0, 2)).await;
    host.job(&vda()).await;
    assert_eq!(host.room("vda-base.qcow2").await, CHUNK + 2048 * KIB);
}

/// What a merge needs beyond its promise is not taken from what another one was promised.
#[tokio::test]
async fn room_that_was_promised_to_another_merge_is_not_given_away() {
    let host = host(&["vda", "vdb"]).await;
    for top in ["vda-top.qcow2", "vdb-top.qcow2"] {
        host.rig.write(top, 0..256);
    }
    for skip in [0, 1] {
        host.lose(Asked::Activate, skip);
    }
    let ids = host.started(&["vda", "vdb"]).await;
    eventually("both tries", || host.rig.store.pending() == 0).await;
    // Meanwhile the guest has written on, and others have taken room.
    host.rig.write("vda-top.qcow2", 256..512);
    host.rig.store.seem_free(1216 * KIB);
    let ended = host.ended(ids[0]).await;
    assert_eq!(failed_with(&ended), Some(Reason::InsufficientSpace));
    assert!(cancelled(&host.ended(ids[1]).await));
    assert_eq!(host.room("vda-base.qcow2").await, CHUNK);
}

/// Of a chunk the rest is not free either.
#[tokio::test]
async fn a_merge_is_promised_the_chunks_that_it_will_be_given() {
    const LARGE: u64 = 32 << 20;
    let host = host(&["vda", "vdb"]).await;
    host.rig.store.seem_given(LARGE);
    for base in ["vda-base.qcow2", "vdb-base.qcow2"] {
        let grown = host.rig.store.grow(&base.parse().unwrap(), 64 << 20).await;
        grown.unwrap();
    }
    for top in ["vda-top.qcow2", "vdb-top.qcow2"] {
        host.rig.write(top, 0..256);
    }
    // Two would fit, but for the chunks.
    host.rig.store.seem_free(LARGE + (18 << 20));
    let both = host.merges.start(host.group(&["vda", "vdb"])).await;
    assert_eq!(both.unwrap_err().reason, Reason::InsufficientSpace);
    // One alone is given what there is of a chunk.
    host.rig.store.seem_free(18 << 20);
    let one = host.accepted(host.commit(&vda(), 0, 2)).await;
    host.job(&vda()).await;
    assert_eq!(host.room("vda-base.qcow2").await, LARGE + (18 << 20));
    host.merges.cancel(one, GENERATION).await.unwrap();
}

/// Also once it has been accepted: it may be given its room much later.
#[tokio::test]
async fn room_that_was_promised_to_a_merge_of_another_host_is_not_given_away() {
    let host = host(&["vda", "vdb"]).await;
    host.rig.write("vda-top.qcow2", 0..256);
    host.lose(Asked::Activate, 0);
    let theirs = Elsewhere {
        kept: mark(&host.chain_of(&vdb())[0]),
        promise: Promise {
            bytes: 512 * KIB,
            kept_bytes: CHUNK,
            kept_data_bytes: None,
        },
        kept_room_bytes: None,
    };
    let order = host.commit(&vda(), 0, 2);
    let id = order.id;
    let started = host.merges.start_beside(vec![order], 0, vec![theirs]).await;
    started.unwrap();
    eventually("a try", || host.rig.store.pending() == 0).await;
    host.rig.write("vda-top.qcow2", 256..512);
    host.rig.store.seem_free(1216 * KIB);
    let ended = host.ended(id).await;
    assert_eq!(failed_with(&ended), Some(Reason::InsufficientSpace));
    assert_eq!(host.room("vda-base.qcow2").await, CHUNK);
}

/// The guest fills the kept volume of a pull, and takes nothing of the domain by that.
#[tokio::test]
async fn what_a_pull_of_another_host_was_given_is_not_counted_once_more() {
    let host = host(&["vda"]).await;
    let theirs = |kept_room_bytes| Elsewhere {
        kept: mark(&host.chain_of(&vda())[2]),
        promise: Promise {
            bytes: 512 * KIB,
            kept_bytes: u64::MAX,
            kept_data_bytes: None,
        },
        kept_room_bytes,
    };
    let counted = async |kept_room_bytes| {
        let room = Room::beside(vec![], vec![theirs(kept_room_bytes)]);
        room.promised(&storage(), &host.rig.volumes).await
    };
    // As much to spare as it needs.
    assert_eq!(counted(Some(CHUNK)).await, 1024 * KIB);
    assert_eq!(counted(None).await, 512 * KIB);
    let top = "vda-top.qcow2".parse().unwrap();
    for (room, left) in [(CHUNK + 256 * KIB, 768 * KIB), (CHUNK + 1024 * KIB, 0)] {
        host.rig.store.provide(&top, room).await.unwrap();
        assert_eq!(counted(Some(CHUNK)).await, left);
        assert_eq!(counted(None).await, 512 * KIB);
    }
}
