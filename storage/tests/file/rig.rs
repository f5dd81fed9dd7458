//! A domain in a temporary directory, and QEMU's programs that work on its images.
//!
//! A program that is missing fails the test: nothing is skipped.

use livemerge_storage::conformance::{Fixture, Opened};
use livemerge_storage::{
    FileStore, NewVolume, Parent, RemovalId, RemovalOrder, StorageError, VolumeInfo, VolumeName,
    VolumeStore as _,
};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

pub(crate) const SIZE: u64 = 8 << 20;
pub(crate) const LONG: Duration = Duration::from_secs(24 * 3600);

/// A domain of its own.
pub(crate) struct Rig {
    pub(crate) store: FileStore,
    root: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            store: open(root.path()).await.unwrap(),
            root,
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// What a restarted agent opens.
    pub(crate) async fn reopened(&self) -> FileStore {
        open(self.root.path()).await.unwrap()
    }

    pub(crate) async fn base(&self, volume: &str) -> VolumeInfo {
        let new = NewVolume {
            name: name(volume),
            virtual_bytes: SIZE,
            parent: None,
        };
        self.store.create(&new).await.unwrap()
    }

    pub(crate) async fn overlay(&self, volume: &str, below: &VolumeInfo) -> VolumeInfo {
        let parent = Parent {
            locator: below.locator.clone(),
            format: Some(below.format),
        };
        let new = NewVolume {
            name: name(volume),
            virtual_bytes: SIZE,
            parent: Some(parent),
        };
        self.store.create(&new).await.unwrap()
    }

    /// All files under the root with what is in them, but for the locks.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut dirs = vec![self.root()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    dirs.push(path);
                } else if path.extension() != Some("lock".as_ref()) {
                    files.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
                }
            }
        }
        files.sort();
        files
    }
}

pub(crate) async fn open(root: &Path) -> Result<FileStore, StorageError> {
    FileStore::open("domain".parse().unwrap(), root).await
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

/// The file back end's side of the conformance suite.
pub(crate) struct Files;

#[async_trait::async_trait]
impl Fixture for Files {
    fn name(&self, label: &str) -> VolumeName {
        name(&format!("{label}.qcow2"))
    }

    async fn open(&self, volume: &VolumeInfo) -> Box<dyn Opened> {
        Box::new(Daemon::open(volume).await)
    }

    async fn write(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8) {
        let command = format!("write -P {byte} {at} {bytes}");
        run(
            "qemu-io",
            &["-f", "qcow2", "-c", &command, &volume.locator.to_string()],
        )
        .await;
    }

    async fn reads(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8) -> bool {
        let command = format!("read -P {byte} {at} {bytes}");
        let path = volume.locator.to_string();
        let mut reader = Command::new("qemu-io");
        reader
            .args(["-r", "-f", "qcow2", "-c", &command, &path])
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
        !text.contains(differs)
    }
}

/// A storage daemon that has a volume open for writing, and its parents for reading, as a
/// machine's QEMU has.
pub(crate) struct Daemon {
    child: Child,
    _dir: TempDir,
}

impl Daemon {
    pub(crate) async fn open(volume: &VolumeInfo) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (pid, socket) = (dir.path().join("pid"), dir.path().join("socket"));
        let file = serde_json::json!({"driver": "file", "filename": volume.locator.to_string()});
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

    pub(crate) async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

#[async_trait::async_trait]
impl Opened for Daemon {
    async fn close(self: Box<Self>) {
        self.stop().await;
    }
}
