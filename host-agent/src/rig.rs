//! For tests: a real storage domain in a temporary directory, and the scripted hypervisor on it.

use crate::domains::Domain;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use crate::volumes::Volumes;
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::faulty::Faulty;
use livemerge_storage::{
    FileStore, Format, Locator, NewVolume, Parent, VolumeInfo, VolumeStore as _,
};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

const SIZE: u64 = 1 << 20;

pub(crate) struct Rig {
    pub(crate) host: FakeHypervisor,
    pub(crate) store: Arc<Faulty<FileStore>>,
    pub(crate) volumes: Arc<Volumes>,
    dir: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("domain");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(&root, dir.path().join("alias")).unwrap();
        let store = FileStore::open("default".parse().unwrap(), &root).await;
        let store = Arc::new(Faulty::new(store.unwrap()));
        let host = FakeHypervisor::new(FakeImages::default(), Pace::Manual);
        let domains = vec![Domain::plain(Arc::clone(&store) as _)];
        let volumes = Volumes::new(domains, Arc::new(host.clone()));
        Self {
            host,
            store,
            volumes: Arc::new(volumes),
            dir,
        }
    }

    pub(crate) fn hypervisor(&self) -> Arc<dyn Hypervisor> {
        Arc::new(self.host.clone())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir
            .path()
            .canonicalize()
            .unwrap()
            .join("domain")
            .join(name)
    }

    pub(crate) fn locator(&self, name: &str) -> Locator {
        Locator::File(self.path(name))
    }

    /// The same, through a directory that is a link.
    pub(crate) fn alias(&self, name: &str) -> Locator {
        Locator::File(self.dir.path().join("alias").join(name))
    }

    /// A volume on another one, or a base.
    pub(crate) async fn volume(&self, name: &str, below: Option<&str>) -> VolumeInfo {
        let parent = below.map(|below| Parent {
            locator: self.locator(below),
            format: Some(Format::Qcow2),
        });
        let volume = NewVolume {
            name: name.parse().unwrap(),
            virtual_bytes: SIZE,
            parent,
        };
        self.store.create(&volume).await.unwrap()
    }

    /// Fills a range of a volume, as a guest does.
    pub(crate) fn write(&self, name: &str, kib: std::ops::Range<u64>) {
        let command = format!("write -P 7 {}k {}k", kib.start, kib.end - kib.start);
        let written = std::process::Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", &command])
            .arg(self.path(name))
            .output();
        let written = written.expect("qemu-io is needed here");
        assert!(written.status.success(), "{written:?}");
    }

    /// An image outside the machines' chains, whose header has this backing name.
    pub(crate) fn foreign(&self, name: &str, backing: &str) {
        let made = std::process::Command::new("qemu-img")
            .args([
                "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing,
            ])
            .arg(self.path(name))
            .arg(SIZE.to_string())
            .status();
        assert!(made.expect("qemu-img is needed here").success());
    }

    /// A running machine with the disk `vda`.
    pub(crate) fn machine(&self, number: u128, chain: &[Locator]) -> VmId {
        self.machine_of(number, &[("vda", chain)])
    }

    /// A running machine with these disks.
    pub(crate) fn machine_of(&self, number: u128, disks: &[(&str, &[Locator])]) -> VmId {
        let vm = VmId::from(uuid::Uuid::from_u128(number));
        self.host.add_vm(vm, "one", disks);
        vm
    }
}

pub(crate) fn vda() -> DiskTarget {
    "vda".parse().unwrap()
}
