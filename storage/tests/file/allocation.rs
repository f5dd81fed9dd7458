//! Where the bytes of a chain lie, on images of every kind that QEMU's programs write.

use crate::rig::{Rig, name, run};
use futures::TryStreamExt as _;
use livemerge_storage::{
    ClusterBytes, Content, Extent, Share, StorageError, VolumeStore as _, shares,
};
use std::os::unix::fs::FileExt as _;

const KIB: u64 = 1 << 10;

impl Rig {
    /// An image with options of its own, on another one.
    async fn image(&self, file: &str, kib: u64, options: &str, below: Option<&str>) {
        let format = file.rsplit_once('.').unwrap().1;
        let path = self.path(file).display().to_string();
        if format == "raw" {
            // qemu-img would fill the first block.
            std::fs::File::create(&path)
                .unwrap()
                .set_len(kib * KIB)
                .unwrap();
            return;
        }
        let size = format!("{kib}K");
        let mut args = vec!["create", "-q", "-f", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        if let Some(below) = below {
            args.extend(["-b", below, "-F", below.rsplit_once('.').unwrap().1]);
        }
        args.extend([path.as_str(), &size]);
        run("qemu-img", &args).await;
    }

    async fn io(&self, file: &str, commands: &[&str]) {
        let path = self.path(file).display().to_string();
        let mut args = vec!["-f", file.rsplit_once('.').unwrap().1];
        args.extend(commands.iter().flat_map(|command| ["-c", command]));
        args.push(&path);
        run("qemu-io", &args).await;
    }

    async fn extents(&self, file: &str) -> Result<Vec<Extent>, StorageError> {
        self.store.extents(&name(file)).try_collect().await
    }

    async fn shares(&self, from: &str, kept: &str) -> Vec<Share> {
        let cluster = async |file| self.store.stat(&name(file)).await.unwrap().cluster_bytes;
        let clusters = ClusterBytes {
            from: cluster(from).await,
            kept: cluster(kept).await,
        };
        let [from, kept] = [from, kept].map(|file| self.store.extents(&name(file)));
        shares(from, kept, clusters).await.unwrap()
    }
}

/// In KiB.
fn kib(data: u64, zero: u64, room: u64, new: u64) -> Share {
    Share {
        data_bytes: data * KIB,
        zero_bytes: zero * KIB,
        room_bytes: room * KIB,
        new_bytes: new * KIB,
    }
}

/// Data over data, zeros over data, data over zeros, and compressed data.
#[tokio::test]
async fn every_kind_of_cluster_counts_where_it_is_seen() {
    let rig = Rig::new().await;
    rig.image("base.qcow2", 8192, "", None).await;
    rig.image("mid.qcow2", 8192, "", Some("base.qcow2")).await;
    rig.image("top.qcow2", 8192, "", Some("mid.qcow2")).await;
    rig.io("base.qcow2", &["write -P 1 0 1M", "write -z 4M 64k"])
        .await;
    let mid = [
        "write -P 2 512k 1M",
        "write -z 64k 128k",
        "write -c -P 3 5M 64k",
    ];
    rig.io("mid.qcow2", &mid).await;
    let top = [
        "write -P 4 768k 64k",
        "write -z 1M 64k",
        "write -P 5 64k 64k",
        "discard 6M 64k",
    ];
    rig.io("top.qcow2", &top).await;
    // Above the base: 64 at 64k, the middle's 512k-1536k but for the top's, and what is compressed.
    let wanted = [
        kib(128, 64 + 64, 128, 0),
        kib(1024 - 64 - 64 + 64, 64, 960, 512 - 64 + 64),
        kib(512 - 128, 64, 384, 0),
    ];
    assert_eq!(rig.shares("top.qcow2", "base.qcow2").await, wanted);
    let compressed = rig.shares("mid.qcow2", "mid.qcow2").await;
    assert_eq!(
        compressed[0],
        kib(1024 + 64, 128, 1088, 64),
        "compressed clusters are not written in place"
    );
}

#[tokio::test]
async fn a_part_of_a_cluster_takes_a_whole_one_where_it_is_copied() {
    let rig = Rig::new().await;
    rig.image("base.qcow2", 1024, "", None).await;
    rig.image("top.qcow2", 1024, "extended_l2=on", Some("base.qcow2"))
        .await;
    rig.io("base.qcow2", &["write -P 1 0 64k"]).await;
    let pieces = [
        "write -P 2 2k 2k",
        "write -P 3 130k 2k",
        "write -P 4 160k 2k",
        "write -z 256k 2k",
        "write -P 5 320k 64k",
    ];
    rig.io("top.qcow2", &pieces).await;
    let wanted = [kib(3 * 2 + 64, 2, 3 * 64, 2 * 64), kib(64 - 2, 0, 64, 0)];
    assert_eq!(rig.shares("top.qcow2", "base.qcow2").await, wanted);
}

/// What is said to be needed is what the image grows by.
#[tokio::test]
async fn large_and_small_clusters_need_what_their_images_grow_by() {
    for (options, mib) in [("cluster_size=2M", 8), ("cluster_size=4k", 0)] {
        let rig = Rig::new().await;
        rig.image("base.qcow2", 65536, options, None).await;
        rig.image("top.qcow2", 65536, "", Some("base.qcow2")).await;
        let pieces: Vec<_> = (0..4)
            .map(|n| format!("write -P 1 {}M 64k", n * 16))
            .collect();
        let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
        rig.io("top.qcow2", &pieces).await;
        let shares = rig.shares("top.qcow2", "base.qcow2").await;
        let wanted = if mib > 0 {
            mib * 1024 * KIB
        } else {
            4 * 64 * KIB
        };
        assert_eq!(shares[0].new_bytes, wanted, "{options}");
        let size = || std::fs::metadata(rig.path("base.qcow2")).unwrap().len();
        let before = size();
        let top = rig.path("top.qcow2").display().to_string();
        run("qemu-img", &["commit", "-q", "-d", &top]).await;
        let grown = size() - before;
        assert!(grown >= wanted, "{options}: {grown}");
        // Its tables, and nothing else.
        assert!(grown <= wanted + (4 << 20), "{options}: {grown}");
    }
}

/// A raw base is read as raw, whatever a guest has written to its beginning.
#[tokio::test]
async fn a_raw_base_ends_and_has_holes() {
    let rig = Rig::new().await;
    rig.image("base.raw", 1024, "", None).await;
    rig.image("top.qcow2", 4096, "", Some("base.raw")).await;
    rig.io("base.raw", &["write -P 1 512k 128k"]).await;
    let top = ["write -P 2 576k 128k", "write -P 3 2M 64k"];
    rig.io("top.qcow2", &top).await;
    let wanted = [kib(192, 0, 192, 64 + 64), kib(64, 1024 - 192, 64, 0)];
    assert_eq!(rig.shares("top.qcow2", "base.raw").await, wanted);
    // Behind the end of the base there is nothing to copy.
    let last = rig.extents("top.qcow2").await.unwrap().pop().unwrap();
    assert_eq!((last.depth, last.content), (0, Content::Nothing));

    let other = std::fs::read(rig.path("top.qcow2")).unwrap();
    std::fs::write(rig.path("guest.raw"), &other).unwrap();
    let extents = rig.extents("guest.raw").await.unwrap();
    let seen: u64 = extents.iter().map(|extent| extent.length).sum();
    assert_eq!(seen, other.len() as u64);
}

/// A fragmented image: many extents, none lost.
#[tokio::test]
async fn many_extents_are_all_counted() {
    const PIECES: u64 = 20_000;
    let rig = Rig::new().await;
    rig.image("base.raw", PIECES * 64, "", None).await;
    let base = std::fs::File::options()
        .write(true)
        .open(rig.path("base.raw"));
    let base = base.unwrap();
    for piece in 0..PIECES {
        base.write_all_at(&[1; 4096], piece * 64 * KIB).unwrap();
    }
    assert_eq!(
        rig.extents("base.raw").await.unwrap().len() as u64,
        2 * PIECES
    );
    let wanted = [kib(PIECES * 4, PIECES * 60, PIECES * 64, 0)];
    assert_eq!(rig.shares("base.raw", "base.raw").await, wanted);
}

#[tokio::test]
async fn a_chain_that_cannot_be_read_is_no_answer() {
    let rig = Rig::new().await;
    rig.image("base.qcow2", 1024, "", None).await;
    rig.image("top.qcow2", 1024, "", Some("base.qcow2")).await;
    std::fs::remove_file(rig.path("base.qcow2")).unwrap();
    let broken = rig.extents("top.qcow2").await.unwrap_err();
    assert!(
        matches!(broken, StorageError::Unreachable { .. }),
        "{broken:?}"
    );
    let gone = rig.extents("base.qcow2").await.unwrap_err();
    assert!(matches!(gone, StorageError::NotFound { .. }), "{gone:?}");
}
