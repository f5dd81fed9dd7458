//! A group on the virtual host's first disk, and QEMU's programs that work on its volumes.

use async_trait::async_trait;
use livemerge_storage::conformance::{Fixture, Opened};
use livemerge_storage::{
    LiveVolumes as _, LvmConfig, LvmStore, NewVolume, Parent, RemovalId, RemovalOrder,
    StorageError, VolumeInfo, VolumeName, VolumeStore as _,
};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

/// The hyphen is doubled in the device-mapper's names.
pub(crate) const GROUP: &str = "vg-0";
pub(crate) const DISK: &str = "/dev/vda";
pub(crate) const SIZE: u64 = 8 << 20;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const LONG: Duration = Duration::from_secs(24 * 3600);

/// The group, opened as a domain.
pub(crate) struct Rig {
    pub(crate) store: LvmStore,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        // It sets nothing, and every command reads all of it: half of what a report takes.
        std::fs::write("/etc/lvm/lvm.conf", "").unwrap();
        // No history of the metadata: every scenario is a hundred changes.
        std::fs::write(
            "/etc/lvm/lvmlocal.conf",
            "backup {\n backup = 0\n archive = 0\n}\n",
        )
        .unwrap();
        run("vgcreate", &["-q", GROUP, DISK]).await;
        Self {
            store: open(config()).await.unwrap(),
        }
    }

    /// What a scenario that failed has left is not the next one's to find.
    pub(crate) async fn begin_anew(&self) {
        let mut lvremove = Command::new("lvremove");
        let _ = lvremove.args(["-q", "-f", "-y", GROUP]).status().await;
    }

    /// What a restarted agent opens.
    pub(crate) async fn reopened(&self) -> LvmStore {
        open(config()).await.unwrap()
    }

    pub(crate) async fn base(&self, volume: &str) -> VolumeInfo {
        self.create(volume, None).await.unwrap()
    }

    pub(crate) async fn overlay(&self, volume: &str, below: &VolumeInfo) -> VolumeInfo {
        self.create(volume, Some(below)).await.unwrap()
    }

    pub(crate) async fn create(
        &self,
        volume: &str,
        below: Option<&VolumeInfo>,
    ) -> Result<VolumeInfo, StorageError> {
        let parent = below.map(|below| Parent {
            locator: below.locator.clone(),
            format: Some(below.format),
        });
        let new = NewVolume {
            name: name(volume),
            virtual_bytes: SIZE,
            parent,
        };
        self.store.create(&new).await
    }

    pub(crate) async fn clear(&self, volumes: &[&VolumeInfo]) {
        for volume in volumes {
            self.store
                .remove(&order(volume, Duration::ZERO))
                .await
                .unwrap();
        }
    }

    /// Each call of LVM is most of a second in an emulated host.
    async fn activate(&self, volume: &VolumeInfo) {
        let name = &volume.volume.name;
        if !device(name.as_str()).exists() {
            self.store.activate(name).await.unwrap();
        }
    }

    /// The names of all logical volumes.
    pub(crate) async fn names(&self) -> Vec<String> {
        let listed = run(
            "lvs",
            &["--noheadings", "-o", "lv_name", "-O", "lv_name", GROUP],
        )
        .await;
        listed.split_whitespace().map(Into::into).collect()
    }
}

pub(crate) fn config() -> LvmConfig {
    LvmConfig {
        devices: vec![DISK.into()],
        chunk_bytes: 4 * MIB,
        ..LvmConfig::of(GROUP)
    }
}

pub(crate) async fn open(config: LvmConfig) -> Result<LvmStore, StorageError> {
    LvmStore::open("domain".parse().unwrap(), config).await
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

/// Where the device of a logical volume is.
pub(crate) fn device(name: &str) -> PathBuf {
    PathBuf::from("/dev").join(GROUP).join(name)
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

#[async_trait]
impl Fixture for Rig {
    /// A report is never in pieces.
    fn many(&self) -> usize {
        2
    }

    async fn open(&self, volume: &VolumeInfo) -> Box<dyn Opened> {
        self.store.activate(&volume.volume.name).await.unwrap();
        Box::new(Daemon::open(volume.locator.to_string()).await)
    }

    async fn write(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8) {
        // The chunk that it begins with is enough for a little.
        if bytes > MIB {
            let name = &volume.volume.name;
            self.store.provide(name, 3 * SIZE).await.unwrap();
        }
        self.activate(volume).await;
        let command = format!("write -P {byte} {at} {bytes}");
        run(
            "qemu-io",
            &["-f", "qcow2", "-c", &command, &volume.locator.to_string()],
        )
        .await;
    }

    async fn reads(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8) -> bool {
        self.activate(volume).await;
        let command = format!("read -P {byte} {at} {bytes}");
        let text = run(
            "qemu-io",
            &[
                "-r",
                "-f",
                "qcow2",
                "-c",
                &command,
                &volume.locator.to_string(),
            ],
        )
        .await;
        assert!(
            text.contains(&format!("read {bytes}/{bytes} bytes")),
            "{text}"
        );
        !text.contains("Pattern verification failed")
    }
}

/// A storage daemon that has a volume open for writing, and its parents for reading, as a machine's
/// QEMU has.
pub(crate) struct Daemon {
    child: Child,
    _dir: TempDir,
}

impl Daemon {
    pub(crate) async fn open(device: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (pid, socket) = (dir.path().join("pid"), dir.path().join("socket"));
        let file = serde_json::json!({"driver": "host_device", "filename": device});
        let node = serde_json::json!({"driver": "qcow2", "node-name": "disk", "file": file});
        let address = format!("addr.type=unix,addr.path={}", socket.display());
        let child = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node.to_string()])
            .args(["--nbd-server", &address])
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

#[async_trait]
impl Opened for Daemon {
    async fn close(self: Box<Self>) {
        self.stop().await;
    }
}
