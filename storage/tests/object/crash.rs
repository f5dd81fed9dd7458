//! An exporter that is killed at any moment: what it has answered for is there when the next one
//! serves, each block whole. A client that connects again does not know that there is another one.

use crate::client::NbdClient;
use crate::rig::{LEASE, name};
use livemerge_storage::{
    Exporter, ExporterPlace, NewVolume, ObjectVolumes, StorageId, VolumeStore as _,
};
use std::env;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const ROLE: &str = "LIVEMERGE_TEST_EXPORTER";
const TEST: &str = "crash::a_killed_exporter_has_done_what_it_said";
const BLOCK: usize = 256 << 10;
/// Within the device, behind the image's own.
const AT: u64 = 8 << 20;
const BLOCKS: u64 = 12;
const ROUNDS: u64 = 5;

fn id() -> StorageId {
    "objects".parse().unwrap()
}

fn url(root: &Path) -> String {
    let objects = url::Url::from_directory_path(root.join("objects"));
    objects.unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_exporter_has_done_what_it_said() {
    if let Some(root) = env::var_os(ROLE) {
        return export_until_killed(Path::new(&root)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("objects")).unwrap();
    let run = dir.path().join("run");
    let store = ObjectVolumes::open(id(), &url(dir.path()), &run, ExporterPlace::Within).await;
    let new = NewVolume {
        name: name("cut"),
        virtual_bytes: 8 << 20,
        parent: None,
    };
    store.unwrap().create(&new).await.unwrap();
    let root = dir.path().to_owned();
    tokio::task::spawn_blocking(move || cut_again_and_again(&root))
        .await
        .unwrap();
}

fn cut_again_and_again(root: &Path) {
    // What each block holds.
    let mut flushed = vec![0_u8; BLOCKS as usize];
    for round in 0..ROUNDS {
        let exporter = Started::new(root);
        let mut client = exporter.client();
        // The last one answered for, and one that was under way.
        let mut later: Vec<Vec<u8>> = flushed.iter().map(|byte| vec![*byte]).collect();
        for (block, may) in later.iter().enumerate() {
            is_whole(&mut client, block as u64, may);
        }
        let (begun, mut byte) = (Instant::now(), 0_u8);
        let until = Duration::from_millis(150 + round * 83);
        let mut write = 0_u64;
        while begun.elapsed() < until {
            byte = byte % 250 + 1;
            let block = write * 5 % BLOCKS;
            assert_eq!(
                client
                    .write(AT + block * BLOCK as u64, &[byte; BLOCK])
                    .unwrap(),
                0
            );
            later[block as usize] = vec![byte];
            write += 1;
            if write.is_multiple_of(7) {
                assert_eq!(client.flush().unwrap(), 0);
            }
        }
        assert!(write > 0);
        exporter.kill();
        if round % 2 == 1 {
            // About when it puts what is left.
            let until = LEASE + Duration::from_millis(round * 50);
            Started::new(root).killed_after(until);
        }
        let next = Started::new(root);
        let mut client = next.client();
        for (block, may) in later.iter().enumerate() {
            flushed[block] = is_whole(&mut client, block as u64, may);
        }
        next.kill();
    }
}

/// The byte that the whole block holds, one of those that it may.
fn is_whole(client: &mut NbdClient, block: u64, may: &[u8]) -> u8 {
    let at = AT + block * BLOCK as u64;
    let data = client.read(at, u32::try_from(BLOCK).unwrap()).unwrap();
    assert!(
        data.iter().all(|byte| *byte == data[0]),
        "block {block} is torn"
    );
    assert!(
        may.contains(&data[0]),
        "block {block}: {} is none of {may:?}",
        data[0]
    );
    data[0]
}

async fn export_until_killed(root: &Path) {
    let run = root.join("run");
    let exporter = Exporter::open_with_lease(id(), &url(root), &run, LEASE).await;
    exporter.unwrap().serve(CancellationToken::new()).await;
}

/// This test program once more, as an exporter.
struct Started {
    child: Child,
    socket: std::path::PathBuf,
}

impl Started {
    fn new(root: &Path) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(ROLE, root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self {
            child: child.unwrap(),
            socket: root.join("run/nbd.sock"),
        }
    }

    fn client(&self) -> NbdClient {
        let begun = Instant::now();
        loop {
            match NbdClient::open(&self.socket, "cut") {
                Ok(client) => return client,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Killed while a client waits for it.
    fn killed_after(self, time: Duration) {
        let (socket, begun) = (self.socket.clone(), Instant::now());
        let client = std::thread::spawn(move || {
            while begun.elapsed() < time && NbdClient::open(&socket, "cut").is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        std::thread::sleep(time);
        self.kill();
        client.join().unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
