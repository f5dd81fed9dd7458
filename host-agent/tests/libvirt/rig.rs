//! A machine with one disk on a libvirt of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use livemerge_host_agent::hypervisor::{
    BlockJobKind, BlockJobOutcome, Hypervisor, HypervisorError, HypervisorEvent, JobOrder, Layer,
    Libvirt, Overlay, VmState,
};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::{ImageHead, Locator};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use virt::connect::Connect;
use virt::domain::Domain;

/// libvirt looks at QEMU's capabilities when it opens a root for the first time.
const FIRST_OPEN: Duration = Duration::from_secs(120);
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Bytes a second at which a job of [`Rig::holding`] 64 MiB is not done within [`PATIENCE`].
pub(super) const SLOW: u64 = 1 << 20;
/// What each of four images holds of its own at its place in megabytes, below what is above it.
pub(super) const FOUR: [(u32, u32); 4] = [(0, 1), (1, 2), (2, 3), (3, 4)];
const VM: &str = "11111111-2222-3333-4444-555555555555";

/// Without a daemon there is none to keep the logs, and QEMU runs as the one who starts it.
const CONFIGURATION: &str = "stdio_handler = \"file\"\nuser = \"root\"\ngroup = \"root\"\n\
     dynamic_ownership = 0\nnamespaces = []\ncgroup_controllers = []\n";

/// One machine with one disk on a libvirt of its own.
pub(super) struct Rig {
    pub(super) libvirt: Libvirt,
    events: Receiver<HypervisorEvent>,
    pub(super) domain: Domain,
    pub(super) dir: TempDir,
}

impl Rig {
    /// A running machine whose disk `vda` has the images, base first, each with some data.
    pub(super) async fn start(images: &[&str]) -> Self {
        Self::holding(images, 4).await
    }

    /// The same with so many megabytes of data in each image.
    pub(super) async fn holding(images: &[&str], megabytes: u32) -> Self {
        Self::with(images, megabytes, &|_| {}).await
    }

    /// The same, with something done in its directory before the machine starts.
    pub(super) async fn with(images: &[&str], megabytes: u32, prepare: &dyn Fn(&Path)) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("lm")
            .tempdir_in("/tmp")
            .unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/qemu.conf"), CONFIGURATION).unwrap();
        for (number, image) in images.iter().enumerate() {
            let below = number.checked_sub(1).map(|below| images[below]);
            create(dir.path(), image, below);
            let write = format!("write -P {} {number}M {megabytes}M", number + 1);
            run(Command::new("qemu-io")
                .args(["-c", &write])
                .arg(dir.path().join(image)));
        }
        prepare(dir.path());
        let uri = format!("qemu:///embed?root={}", dir.path().display());
        let libvirt = Libvirt::open(&uri, CALL_LIMIT).unwrap();
        let mut events = libvirt.events();
        assert_eq!(libvirt.uri(), uri);
        assert!(matches!(
            libvirt.vm(vm()).await,
            Err(HypervisorError::Unknown(_))
        ));
        let began = Instant::now();
        let up = tokio::time::timeout(FIRST_OPEN, events.recv()).await;
        assert_eq!(up.unwrap().unwrap(), HypervisorEvent::Connected);
        measured("open", began);
        assert!(libvirt.connected());
        let xml = definition(&dir.path().join(images.last().unwrap()));
        let domain = tokio::task::spawn_blocking(move || {
            let connect = Connect::open(Some(&uri)).unwrap();
            let domain = connect.define_domain_xml(&xml).unwrap();
            domain.create().unwrap();
            domain
        });
        let domain = domain.await.unwrap();
        Self {
            libvirt,
            events,
            domain,
            dir,
        }
    }

    pub(super) fn image(&self, name: &str) -> Locator {
        Locator::File(self.dir.path().join(name))
    }

    pub(super) async fn chain(&self) -> Vec<Locator> {
        let view = self.libvirt.vm(vm()).await.unwrap();
        view.disk(&vda())
            .unwrap()
            .chain
            .iter()
            .map(|layer| layer.locator.clone())
            .collect()
    }

    pub(super) fn order(&self, base: &str, top: &str, active: bool) -> JobOrder {
        JobOrder {
            disk: vda(),
            kind: if active {
                BlockJobKind::ActiveCommit
            } else {
                BlockJobKind::Commit
            },
            base: Some(self.image(base)),
            top: self.image(top),
            bytes_per_second: 0,
            merge: None,
        }
    }

    pub(super) async fn told(&mut self, outcome: BlockJobOutcome) {
        let wanted = HypervisorEvent::BlockJob {
            vm: vm(),
            disk: vda(),
            outcome,
        };
        self.event(|event| *event == wanted).await;
    }

    pub(super) async fn event(&mut self, wanted: impl Fn(&HypervisorEvent) -> bool) {
        let arrival = async { while !wanted(&self.events.recv().await.unwrap()) {} };
        tokio::time::timeout(PATIENCE, arrival)
            .await
            .expect("the event in time");
    }

    /// Waits until what is observed is as wanted.
    pub(super) async fn settles(&self, what: &str, chain: &[&str]) {
        let wanted: Vec<_> = chain.iter().map(|name| self.image(name)).collect();
        let began = Instant::now();
        while self.chain().await != wanted {
            assert!(
                began.elapsed() < PATIENCE,
                "{what}: {:?}",
                self.chain().await
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn pull(&self, base: Option<&str>, top: &str) -> JobOrder {
        JobOrder {
            disk: vda(),
            kind: BlockJobKind::Pull,
            base: base.map(|base| self.image(base)),
            top: self.image(top),
            bytes_per_second: 0,
            merge: None,
        }
    }

    pub(super) async fn restore(
        &self,
        image: &str,
        backing: &Layer,
    ) -> Result<(), HypervisorError> {
        let (disk, image) = (vda(), self.image(image));
        let restored = self.libvirt.restore_backing(vm(), &disk, &image, backing);
        restored.await
    }

    /// Nothing works on the disk, and the guest goes on.
    pub(super) async fn is_idle(&self) {
        let began = Instant::now();
        loop {
            let view = self.libvirt.vm(vm()).await.unwrap();
            let job = self.libvirt.job(vm(), &vda()).await.unwrap();
            if job.is_none() && view.disks[0].mirror.is_none() {
                return assert_eq!(view.state, VmState::Running);
            }
            assert!(began.elapsed() < PATIENCE, "{job:?} {view:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the job, and finds everything as before it.
    pub(super) async fn abort(&mut self, chain: &[&str]) {
        let began = Instant::now();
        self.libvirt.abort_job(vm(), &vda()).await.unwrap();
        self.told(BlockJobOutcome::Cancelled).await;
        measured("abort to event", began);
        self.is_idle().await;
        measured("abort to chain", began);
        self.settles("given up", chain).await;
        let view = self.libvirt.vm(vm()).await.unwrap();
        assert_eq!(view.disks[0].next_start.as_ref(), self.chain().await.last());
        for pair in chain.windows(2) {
            assert_eq!(self.backing(pair[1]), Some(self.dir.path().join(pair[0])));
        }
        let again = self.libvirt.abort_job(vm(), &vda()).await;
        assert!(
            matches!(again, Err(HypervisorError::Refused(_))),
            "{again:?}"
        );
    }

    /// Commits to the end.
    pub(super) async fn commits(&mut self, base: &str, top: &str, left: &[&str]) {
        let order = self.order(base, top, true);
        self.libvirt.start_job(vm(), &order).await.unwrap();
        self.told(BlockJobOutcome::Ready).await;
        self.libvirt.pivot(vm(), &vda()).await.unwrap();
        self.told(BlockJobOutcome::Completed).await;
        self.settles("committed", left).await;
    }

    /// Puts an overlay on the disk that names the active image by its name alone.
    pub(super) async fn overlay(&self, image: &str) {
        let active = self.chain().await.pop().unwrap().to_string();
        let below = Path::new(&active).file_name().unwrap().to_str().unwrap();
        self.overlay_named(image, below).await;
    }

    /// Puts an overlay on the disk that names the active image so.
    pub(super) async fn overlay_named(&self, image: &str, below: &str) {
        let mut command = Command::new("qemu-img");
        command.args([
            "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", below,
        ]);
        run(command.arg(self.dir.path().join(image)).arg("128M"));
        let overlay = Overlay {
            disk: vda(),
            locator: self.image(image),
        };
        self.libvirt.add_overlays(vm(), &[overlay]).await.unwrap();
    }

    /// Lets the definition name each layer, as libvirt writes it for whoever lets it put overlays on.
    pub(super) async fn write_chain_down(&self) {
        let domain = self.domain.clone();
        let defined = tokio::task::spawn_blocking(move || {
            let xml = domain.xml_desc(0).unwrap();
            let connect = domain.connect().unwrap();
            let defined = connect.define_domain_xml(&xml).unwrap();
            defined.xml_desc(virt_sys::VIR_DOMAIN_XML_INACTIVE).unwrap()
        });
        let defined = defined.await.unwrap();
        assert!(defined.contains("<backingStore"), "{defined}");
    }

    /// Bytes that a bitmap of an image knows as changed.
    pub(super) fn marked(&self, image: &str, bitmap: &str) -> u64 {
        let socket = self.dir.path().join("nbd");
        let mut server = Command::new("qemu-nbd");
        server.args(["-t", "-r", "-f", "qcow2", "-B", bitmap, "-k"]);
        let mut server = server
            .arg(&socket)
            .arg(self.dir.path().join(image))
            .spawn()
            .unwrap();
        let began = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
        let export = format!(
            "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}",
            socket.display()
        );
        let mut map = Command::new("qemu-img");
        let map = map
            .args(["map", "--output=json", "--image-opts", &export])
            .output();
        server.kill().unwrap();
        server.wait().unwrap();
        let map = map.unwrap();
        assert!(map.status.success(), "{map:?}");
        let extents: Vec<serde_json::Value> = serde_json::from_slice(&map.stdout).unwrap();
        // Of this context, what is no data has changed.
        let changed = extents.iter().filter(|extent| extent["data"] == false);
        changed
            .map(|extent| extent["length"].as_u64().unwrap())
            .sum()
    }

    /// The backing name as it is written in a header.
    pub(super) fn written(&self, image: &str) -> Option<String> {
        let head = ImageHead::read(&self.dir.path().join(image), None);
        head.unwrap().backing
    }

    /// The image below, as the header names it.
    pub(super) fn backing(&self, image: &str) -> Option<PathBuf> {
        let mut command = Command::new("qemu-img");
        command.args(["info", "-U", "--output=json"]);
        let output = command.arg(self.dir.path().join(image)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let header: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let backing = header.get("backing-filename")?.as_str().unwrap();
        Some(self.dir.path().join(backing))
    }

    /// QEMU only runs its BIOS, so what the files hold is what it has open: after a commit at once,
    /// after a pull when it was stopped.
    pub(super) fn reads(&self, image: &str, patterns: &[(u32, u32)]) {
        for (at, pattern) in patterns {
            let read = format!("read -P {pattern} {at}M 1M");
            run(Command::new("qemu-io")
                .args(["-r", "-U", "-c", &read])
                .arg(self.dir.path().join(image)));
        }
    }

    pub(super) fn holds(&self, image: &str, patterns: &[(u32, u32)]) -> bool {
        patterns.iter().all(|(at, pattern)| {
            let read = format!("read -P {pattern} {at}M 1M");
            let mut command = Command::new("qemu-io");
            command.args(["-r", "-U", "-c", &read]);
            let image = self.dir.path().join(image);
            command.arg(image).status().unwrap().success()
        })
    }

    pub(super) async fn kill(&mut self) {
        run(Command::new("kill").args(["-9", &self.qemu().to_string()]));
        let began = Instant::now();
        while self.libvirt.vm(vm()).await.unwrap().state != VmState::ShutOff {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn start_again(&self) {
        let domain = self.domain.clone();
        let started = tokio::task::spawn_blocking(move || domain.create());
        started.await.unwrap().unwrap();
    }

    pub(super) fn qemu(&self) -> i32 {
        let file = self.dir.path().join("run/qemu/lm.pid");
        fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Already off in some tests.
        let _ = self.domain.destroy();
    }
}

pub(super) fn vm() -> VmId {
    VM.parse().unwrap()
}

pub(super) fn vda() -> DiskTarget {
    "vda".parse().unwrap()
}

pub(super) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

pub(super) fn create(dir: &Path, image: &str, below: Option<&str>) {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(below) = below {
        command.args(["-F", "qcow2", "-b"]).arg(dir.join(below));
    }
    run(command.arg(dir.join(image)).arg("128M"));
}

fn definition(image: &Path) -> String {
    format!(
        "<domain type='qemu'><name>lm</name><uuid>{VM}</uuid><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
         <source file='{}'/><target dev='vda' bus='virtio'/></disk>\
         <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>\
         <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>",
        image.display()
    )
}

pub(super) fn measured(what: &str, began: Instant) {
    eprintln!("{what}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
}
