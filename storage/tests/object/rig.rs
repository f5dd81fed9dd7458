//! A domain on objects, and QEMU's programs that work on its exports.
//!
//! A program that is missing fails the test: nothing is skipped.

use livemerge_storage::conformance::{Fixture, Opened};
use livemerge_storage::{
    LiveVolumes as _, Locator, NbdAddress, NbdServer, NewVolume, ObjectVolumes, RemovalId,
    RemovalOrder, StorageError, VolumeInfo, VolumeName, VolumeStore as _,
};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

pub(crate) const SIZE: u64 = 8 << 20;
pub(crate) const LONG: Duration = Duration::from_secs(24 * 3600);
/// Long enough for a busy machine, short enough to be waited for.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// A domain of its own.
pub(crate) struct Rig {
    pub(crate) store: ObjectVolumes,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) dir: TempDir,
}

impl Rig {
    pub(crate) async fn memory() -> Self {
        Self::over(Arc::new(InMemory::new())).await
    }

    /// Over objects that somebody looks at, or that fail.
    pub(crate) async fn over(objects: Arc<dyn ObjectStore>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(Arc::clone(&objects), &dir).await.unwrap();
        Self {
            store,
            objects,
            dir,
        }
    }

    /// What a restarted agent opens.
    pub(crate) async fn reopened(&self) -> ObjectVolumes {
        open(Arc::clone(&self.objects), &self.dir).await.unwrap()
    }

    pub(crate) async fn base(&self, volume: &str) -> VolumeInfo {
        let new = NewVolume {
            name: name(volume),
            virtual_bytes: SIZE,
            parent: None,
        };
        self.store.create(&new).await.unwrap()
    }

    /// All keys below the domain's prefix.
    pub(crate) async fn keys(&self) -> Vec<String> {
        keys(&self.objects).await
    }

    /// Nothing is left but what says that this is a domain and which names there are, as soon as
    /// the calls that nobody waits for have cleaned up.
    pub(crate) async fn assert_empty(&self) {
        let begun = Instant::now();
        loop {
            let mut left = self.keys().await;
            left.retain(|key| key != "d/domain" && !key.starts_with("d/names/"));
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{left:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(crate) async fn keys(objects: &Arc<dyn ObjectStore>) -> Vec<String> {
    use futures::TryStreamExt as _;
    let listed = objects.list(None).map_ok(|meta| meta.location.to_string());
    let mut keys: Vec<_> = listed.try_collect().await.unwrap();
    keys.sort();
    keys
}

pub(crate) async fn open(
    objects: Arc<dyn ObjectStore>,
    dir: &TempDir,
) -> Result<ObjectVolumes, StorageError> {
    let id = "objects".parse().unwrap();
    ObjectVolumes::over_store(id, objects, "d", dir.path(), LEASE).await
}

pub(crate) fn name(name: &str) -> VolumeName {
    name.parse().unwrap()
}

pub(crate) fn order(volume: &VolumeInfo, keep_for: Duration) -> RemovalOrder {
    let (name, identity) = (volume.volume.name.clone(), volume.identity.clone());
    RemovalOrder {
        keep_for,
        ..RemovalOrder::new(RemovalId::from(Uuid::new_v4()), name, identity)
    }
}

/// Runs a program to its end and gives what it prints.
pub(crate) async fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await;
    let output = output.unwrap_or_else(|error| panic!("{program} is needed here: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{text}{errors}",
        output.status
    );
    text
}

/// A client that has ended has its volume open until the exporter has noticed, and written back.
pub(crate) async fn closed(store: &ObjectVolumes, volume: &VolumeInfo) {
    let begun = Instant::now();
    while store.in_use(&volume.volume.name).await.unwrap() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "it stays in use"
        );
    }
}

pub(crate) fn uri(volume: &VolumeInfo) -> String {
    volume.locator.to_string()
}

/// The object back end's side of the conformance suite.
pub(crate) struct Objects(pub(crate) ObjectVolumes);

#[async_trait::async_trait]
impl Fixture for Objects {
    async fn open(&self, volume: &VolumeInfo) -> Box<dyn Opened> {
        self.0.activate(&volume.volume.name).await.unwrap();
        let mut chain = vec![volume.clone()];
        while let Some(parent) = &chain[chain.len() - 1].parent {
            let name = self.0.resolve(&parent.locator).unwrap();
            chain.push(self.0.stat(&name).await.unwrap());
        }
        Box::new(Machine {
            daemon: Daemon::open(volume).await,
            chain,
            store: self.0.clone(),
        })
    }

    async fn write(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8) {
        self.0.activate(&volume.volume.name).await.unwrap();
        let command = format!("write -P {byte} {at} {bytes}");
        run("qemu-io", &["-f", "qcow2", "-c", &command, &uri(volume)]).await;
        closed(&self.0, volume).await;
    }

    async fn reads(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8) -> bool {
        self.0.activate(&volume.volume.name).await.unwrap();
        let command = format!("read -P {byte} {at} {bytes}");
        let mut reader = Command::new("qemu-io");
        reader
            .args(["-r", "-f", "qcow2", "-c", &command, &uri(volume)])
            .stdin(Stdio::null());
        let output = reader.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (read, differs) = (
            format!("read {bytes}/{bytes} bytes"),
            "Pattern verification failed",
        );
        assert!(
            text.contains(&read),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        closed(&self.0, volume).await;
        !text.contains(differs)
    }
}

/// A machine that has a chain open.
struct Machine {
    daemon: Daemon,
    chain: Vec<VolumeInfo>,
    store: ObjectVolumes,
}

#[async_trait::async_trait]
impl Opened for Machine {
    async fn close(mut self: Box<Self>) {
        self.daemon.child.kill().await.unwrap();
        for volume in &self.chain {
            closed(&self.store, volume).await;
        }
    }
}

/// A storage daemon that has a volume open for writing, and its parents for reading, as a
/// machine's QEMU has.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    _dir: TempDir,
}

impl Daemon {
    pub(crate) async fn open(volume: &VolumeInfo) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (pid, socket) = (dir.path().join("pid"), dir.path().join("socket"));
        let (export, server) = address(&volume.locator);
        let server = serde_json::json!({"type": "unix", "path": server});
        let file = serde_json::json!({"driver": "nbd", "export": export, "server": server});
        let node = serde_json::json!({"driver": "qcow2", "node-name": "disk", "file": file});
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node.to_string()])
            .args([
                "--nbd-server",
                &format!("addr.type=unix,addr.path={}", socket.display()),
            ])
            .args(["--export", "type=nbd,id=export,node-name=disk,writable=on"])
            .args(["--pidfile", pid.to_str().unwrap()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child = child.expect("qemu-storage-daemon is needed here");
        // It writes its pid when everything is open.
        while !pid.exists() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "qemu-storage-daemon: {ended:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { child, _dir: dir }
    }
}

pub(crate) fn address(locator: &Locator) -> (String, String) {
    let address: NbdAddress = locator.to_string().parse().unwrap();
    match address.server {
        NbdServer::Unix(socket) => (address.export, socket),
        NbdServer::Tcp { .. } => panic!("{locator}"),
    }
}
