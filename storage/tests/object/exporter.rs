//! The exporter, as libnbd's and QEMU's programs see it, and as its objects tell.

use crate::client::NbdClient;
use crate::rig::{Daemon, LEASE, Rig, address, closed, name, run, uri};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{
    ExporterPlace, LiveVolumes as _, ObjectVolumes, StorageError, VolumeInfo, VolumeStore as _,
};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

const BLOCK: u64 = 256 << 10;

fn client(volume: &VolumeInfo) -> NbdClient {
    let (export, socket) = address(&volume.locator);
    NbdClient::open(&PathBuf::from(socket), &export).unwrap()
}

async fn active(rig: &Rig, volume: &str) -> VolumeInfo {
    let made = rig.base(volume).await;
    rig.store.activate(&made.volume.name).await.unwrap();
    made
}

async fn blocks(rig: &Rig) -> usize {
    let keys = rig.keys().await;
    keys.iter().filter(|key| key.contains("/b/")).count()
}

/// Different everywhere, so that nothing in the wrong place looks right.
fn pattern(bytes: usize) -> Vec<u8> {
    let words = (0..bytes as u64 / 8).map(|n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_be_bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn libnbd_lists_and_copies() {
    let rig = Rig::memory().await;
    let made = active(&rig, "libnbd").await;
    let (_, socket) = address(&made.locator);
    let list = run(
        "nbdinfo",
        &["--list", "--json", &format!("nbd+unix:///?socket={socket}")],
    )
    .await;
    assert!(list.contains("\"export-name\": \"libnbd\""), "{list}");
    let size = run("nbdinfo", &["--size", &uri(&made)]).await;
    assert_eq!(size.trim().parse(), Ok(client(&made).bytes));
    let dir = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|file| dir.path().join(file).display().to_string());
    std::fs::write(&from, pattern(24 << 20)).unwrap();
    run("nbdcopy", &["--flush", &from, &uri(&made)]).await;
    run("nbdcopy", &[&uri(&made), &to]).await;
    let copied = std::fs::read(&to).unwrap();
    assert!(
        copied[..24 << 20] == pattern(24 << 20),
        "what was copied in comes out"
    );
    assert!(copied[24 << 20..].iter().all(|byte| *byte == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_writes_an_image_and_finds_it_whole() {
    let rig = Rig::memory().await;
    let made = active(&rig, "image").await;
    let commands = [
        "aio_write -P 1 0 1M",
        "aio_write -P 2 1M 1M",
        "aio_write -P 3 3M 64k",
        "aio_flush",
        "discard 0 512k",
        "write -z 1M 256k",
        "write -f -P 4 5M 4k",
    ];
    let mut args = vec!["-f", "qcow2"];
    args.extend(commands.iter().flat_map(|command| ["-c", *command]));
    let at = uri(&made);
    args.push(&at);
    run("qemu-io", &args).await;
    run("qemu-img", &["check", "-f", "qcow2", &at]).await;
    let objects = crate::rig::Objects(rig.store.clone());
    for (from, bytes, byte) in [
        (0, 512 << 10, 0),
        (512 << 10, 512 << 10, 1),
        (1 << 20, 256 << 10, 0),
        ((1 << 20) + (256 << 10), 768 << 10, 2),
        (2 << 20, 1 << 20, 0),
        (3 << 20, 64 << 10, 3),
        (5 << 20, 4096, 4),
    ] {
        assert!(objects.reads(&made, from, bytes, byte).await, "{from}");
    }
    let told = run("qemu-img", &["info", "-f", "qcow2", "--output=json", &at]).await;
    assert!(told.contains("\"virtual-size\": 8388608"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_flushed_or_written_through_is_in_the_store_and_nothing_else_has_to_be() {
    let rig = Rig::memory().await;
    let made = active(&rig, "durable").await;
    let before = blocks(&rig).await;
    let mut writer = client(&made);
    assert_eq!(writer.write(8 << 20, &pattern(4096)).unwrap(), 0);
    assert_eq!(blocks(&rig).await, before, "it is in memory");
    assert_eq!(writer.flush().unwrap(), 0);
    assert_eq!(blocks(&rig).await, before + 1);
    assert_eq!(writer.write_through(16 << 20, &pattern(4096)).unwrap(), 0);
    assert_eq!(blocks(&rig).await, before + 2);
    assert_eq!(writer.read(8 << 20, 4096).unwrap(), pattern(4096));
    // More than is kept in memory.
    for block in 0..200 {
        assert_eq!(
            writer
                .write((20 << 20) + block * BLOCK, &pattern(4096))
                .unwrap(),
            0
        );
    }
    assert!(blocks(&rig).await > before + 50);
    for block in 0..200 {
        assert_eq!(
            writer.read((20 << 20) + block * BLOCK, 4096).unwrap(),
            pattern(4096)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_zeros_has_no_object() {
    let rig = Rig::memory().await;
    let made = active(&rig, "zeros").await;
    let before = blocks(&rig).await;
    let (at, whole) = (8 << 20, u32::try_from(BLOCK).unwrap());
    let mut writer = client(&made);
    writer.write(at, &pattern(8 * BLOCK as usize)).unwrap();
    writer.flush().unwrap();
    assert_eq!(blocks(&rig).await, before + 8);
    assert_eq!(writer.trim(at, 2 * whole).unwrap(), 0);
    assert_eq!(writer.zero(at + 2 * BLOCK, 2 * whole).unwrap(), 0);
    // Blocks that are only touched stay, and read zeros where that was asked.
    assert_eq!(writer.zero(at + 5 * BLOCK - 512, 1024).unwrap(), 0);
    assert_eq!(writer.trim(at + 6 * BLOCK + 512, whole).unwrap(), 0);
    writer.flush().unwrap();
    assert_eq!(blocks(&rig).await, before + 4);
    assert!(
        writer
            .read(at, 4 * whole)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
    let mut expected = pattern(8 * BLOCK as usize).split_off(4 * BLOCK as usize);
    expected[BLOCK as usize - 512..BLOCK as usize + 512].fill(0);
    assert!(writer.read(at + 4 * BLOCK, 4 * whole).unwrap() == expected);
    // Written as zeros, and a long range that holds little.
    writer
        .write(at + 4 * BLOCK, &vec![0; BLOCK as usize])
        .unwrap();
    let rest = u32::try_from(writer.bytes - at - 5 * BLOCK).unwrap();
    assert_eq!(writer.zero(at + 5 * BLOCK, rest).unwrap(), 0);
    writer.flush().unwrap();
    assert_eq!(blocks(&rig).await, before);
    drop(writer);
    closed(&rig.store, &made).await;
    let told = rig.store.stat(&made.volume.name).await.unwrap();
    assert_eq!(told.allocated_bytes, before as u64 * BLOCK);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused_and_the_next_is_served() {
    let rig = Rig::memory().await;
    let made = active(&rig, "senseless").await;
    let mut client = client(&made);
    let end = client.bytes;
    assert_eq!(client.write(end - 512, &[1; 1024]).unwrap(), 28);
    assert_eq!(client.read(end, 1).unwrap_err().raw_os_error(), Some(22));
    assert_eq!(client.trim(u64::MAX, 1024).unwrap(), 22);
    assert_eq!(client.command(99, 0, 0).unwrap(), 22);
    assert_eq!(client.read(0, 4).unwrap(), b"QFI\xfb");
    let (_, socket) = address(&made.locator);
    for said in [
        vec![0; 4096],
        pattern(4096),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It may hang up while it is told.
        let _ = stream.write_all(&said);
    }
    assert_eq!(client.read(0, 4).unwrap(), b"QFI\xfb");
    let unknown = NbdClient::open(socket.as_ref(), "no such volume")
        .err()
        .unwrap();
    assert!(unknown.to_string().contains("does not exist"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_writes_and_readers_need_no_lease() {
    let rig = Rig::memory().await;
    let made = active(&rig, "shared").await;
    let leases = |keys: Vec<String>| keys.iter().filter(|key| key.ends_with("/lease")).count();
    let (mut one, mut other) = (client(&made), client(&made));
    other.read(0, 4096).unwrap();
    assert_eq!(leases(rig.keys().await), 0);
    assert_eq!(one.write(8 << 20, &[7; 512]).unwrap(), 0);
    assert_eq!(leases(rig.keys().await), 1);
    assert_eq!(other.write(8 << 20, &[8; 512]).unwrap(), 1, "not permitted");
    assert_eq!(other.read(8 << 20, 512).unwrap(), [7; 512], "one device");
    drop(one);
    // Free as soon as it has gone.
    let begun = Instant::now();
    while other.write(8 << 20, &[8; 512]).unwrap() != 0 {
        assert!(begun.elapsed() < LEASE * 10);
    }
}

/// Whatever has it open: the exporter's restart is no end of the machine that uses it.
#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_that_is_there_is_adopted() {
    let rig = Rig::memory().await;
    let made = active(&rig, "adopted").await;
    let daemon = Daemon::open(&made).await;
    let again = rig.reopened().await;
    let locator = again.activate(&name("adopted")).await.unwrap();
    assert_eq!(locator, made.locator);
    assert!(again.in_use(&made.volume.name).await.unwrap());
    drop(daemon);
    closed(&again, &made).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exporter_of_other_objects_is_not_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let open = async |objects: &str| {
        let root = dir.path().join(objects);
        std::fs::create_dir_all(&root).unwrap();
        let url = url::Url::from_directory_path(root).unwrap();
        let (id, run) = ("objects".parse().unwrap(), dir.path().join("run"));
        let place = ExporterPlace::Within;
        let store = ObjectVolumes::open(id, url.as_str(), &run, place).await;
        store.unwrap()
    };
    let first = open("a").await;
    first.keep_exporting().await.unwrap();
    open("a").await.keep_exporting().await.unwrap();
    let refused = open("b").await.keep_exporting().await.unwrap_err();
    assert!(matches!(refused, StorageError::Invalid(_)), "{refused:?}");
}
