//! A group for tests of what is decided: files in LVM's place, read where they lie as a physical
//! volume is. None of it is active, unless a test says so.

use super::domain::LvmConfig;
use super::volumes::LvmStore;
use crate::{RemovalId, RemovalOrder};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

const EXTENT: u64 = 4 << 20;
const OURS: &str = "livemerge";

/// The group `vg`.
pub(super) struct Scripted {
    dir: TempDir,
}

impl Scripted {
    pub(super) fn new() -> Self {
        // Not where files lie in memory, which cannot be read around the page cache.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let group = Self { dir };
        fs::create_dir(group.path("lv")).unwrap();
        fs::create_dir(group.path("shown")).unwrap();
        group.disk();
        group.free(EXTENT * 64);
        fs::write(group.path("calls"), "").unwrap();
        fs::write(group.path("changes"), "").unwrap();
        fs::write(group.path("reports"), "").unwrap();
        let program = group.path("lvm");
        fs::write(&program, include_str!("recorded/lvm.sh")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        group
    }

    /// An empty physical volume.
    pub(super) fn disk(&self) {
        let disk = fs::File::create(self.path("pv"));
        disk.and_then(|file| file.set_len(1024 * EXTENT)).unwrap();
    }

    /// One that was removed is there again.
    pub(super) fn again(&self, id: &str) {
        fs::create_dir(self.path("lv").join(id)).unwrap();
        self.set(id, "at", "0");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn free(&self, bytes: u64) {
        fs::write(self.path("free"), bytes.to_string()).unwrap();
    }

    pub(super) async fn open(&self) -> LvmStore {
        self.opened(false).await
    }

    /// As a group that other hosts have, too.
    pub(super) async fn open_shared(&self) -> LvmStore {
        self.opened(true).await
    }

    async fn opened(&self, shared: bool) -> LvmStore {
        let config = LvmConfig {
            shared,
            program: self.path("lvm"),
            shown: self.path("shown"),
            locks: self.path("locks"),
            chunk_bytes: EXTENT,
            wipe_bytes_per_second: u64::MAX,
            ..LvmConfig::of("vg")
        };
        LvmStore::open("domain".parse().unwrap(), config)
            .await
            .unwrap()
    }

    /// A logical volume that is nobody's and holds nothing.
    pub(super) fn foreign(&self, name: &str) -> String {
        let number = fs::read_dir(self.path("lv")).unwrap().count();
        let id = format!("id-{number}");
        fs::create_dir(self.path("lv").join(&id)).unwrap();
        self.set(&id, "name", name);
        self.set(&id, "at", &number.to_string());
        fs::write(self.path("lv").join(&id).join("tags"), "").unwrap();
        id
    }

    /// A volume on what the backing name means.
    pub(super) fn volume(&self, name: &str, backing: Option<&str>) -> String {
        let id = self.foreign(name);
        self.tag(&id, &[OURS, "livemerge.format=qcow2"]);
        self.image(&id, backing);
        id
    }

    /// Somebody else changes the group.
    pub(super) fn set(&self, id: &str, field: &str, value: &str) {
        let field = self.path("lv").join(id).join(field);
        fs::write(field, format!("{value}\n")).unwrap();
        let changes = fs::File::options().append(true).open(self.path("changes"));
        changes.unwrap().write_all(b"set\n").unwrap();
    }

    /// The kernel has a device of it, 253:7, of which the group's metadata know nothing.
    pub(super) fn activate(&self, id: &str) {
        let dm = self.path("shown/253:7/dm");
        fs::create_dir_all(&dm).unwrap();
        let uuid = format!("LVM-{:032}{}\n", 0, id.replace('-', ""));
        fs::write(dm.join("uuid"), uuid).unwrap();
    }

    pub(super) fn get(&self, id: &str, field: &str) -> String {
        let field = self.path("lv").join(id).join(field);
        fs::read_to_string(field)
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    pub(super) fn tag(&self, id: &str, tags: &[&str]) {
        self.set(id, "tags", &tags.join("\n"));
    }

    pub(super) fn image(&self, id: &str, backing: Option<&str>) {
        let image = self.path("image");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-u", "-f", "qcow2"]);
        if let Some(backing) = backing {
            create.args(["-F", "qcow2", "-b", backing]);
        }
        let made = create.arg(&image).arg("8M").status();
        assert!(made.expect("qemu-img is needed here").success());
        self.write(id, &fs::read(&image).unwrap());
        fs::remove_file(image).unwrap();
    }

    pub(super) fn write(&self, id: &str, head: &[u8]) {
        let at: u64 = self.get(id, "at").parse().unwrap();
        let disk = fs::File::options().write(true).open(self.path("pv"));
        disk.unwrap().write_all_at(head, at * EXTENT).unwrap();
    }

    /// What is done when a command is called, before it.
    pub(super) fn on(&self, command: &str, script: &str) {
        fs::write(self.path(&format!("on-{command}")), script).unwrap();
    }

    /// How often the group was reported.
    pub(super) fn reports(&self) -> usize {
        fs::read(self.path("reports")).unwrap().len()
    }

    /// The changes that were made: commands with their arguments.
    pub(super) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap();
        calls.lines().map(Into::into).collect()
    }
}

pub(super) fn order(name: &str, id: &str, keep_for: Duration) -> RemovalOrder {
    let removal = RemovalId::from(Uuid::new_v4());
    RemovalOrder {
        keep_for,
        ..RemovalOrder::new(removal, name.parse().unwrap(), id.parse().unwrap())
    }
}
