//! The libvirt adapter on a real libvirt and a real QEMU, without a daemon and without a guest.
//!
//! Each test has a root directory of its own; QEMU only runs its BIOS. Needs libvirt, its QEMU
//! driver, qemu-system-x86_64, qemu-img and qemu-io, and root; and a process for each test, as nextest
//! gives it: libvirt's embedded driver is opened once a process.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use livemerge_host_agent::hypervisor::{
    BlockJobKind, BlockJobOutcome, CommitOrder, Hypervisor, HypervisorError, HypervisorEvent,
    Libvirt, MirrorState, Overlay, VmState,
};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use virt::connect::Connect;
use virt::domain::Domain;

/// libvirt looks at QEMU's capabilities when it opens a root for the first time.
const FIRST_OPEN: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(30);
const VM: &str = "11111111-2222-3333-4444-555555555555";

/// Without a daemon there is none to keep the logs, and QEMU runs as the one who starts it.
const CONFIGURATION: &str = "stdio_handler = \"file\"\nuser = \"root\"\ngroup = \"root\"\n\
     dynamic_ownership = 0\nnamespaces = []\ncgroup_controllers = []\n";

/// One machine with one disk on a libvirt of its own.
struct Rig {
    libvirt: Libvirt,
    events: Receiver<HypervisorEvent>,
    domain: Domain,
    dir: TempDir,
}

impl Rig {
    /// A running machine whose disk `vda` has the images, base first, each with some data.
    async fn start(images: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("lm")
            .tempdir_in("/tmp")
            .unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/qemu.conf"), CONFIGURATION).unwrap();
        for (number, image) in images.iter().enumerate() {
            let below = number.checked_sub(1).map(|below| images[below]);
            create(dir.path(), image, below);
            let write = format!("write -P {} {number}M 4M", number + 1);
            run(Command::new("qemu-io")
                .args(["-c", &write])
                .arg(dir.path().join(image)));
        }
        let uri = format!("qemu:///embed?root={}", dir.path().display());
        let libvirt = Libvirt::open(&uri).unwrap();
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

    fn image(&self, name: &str) -> Locator {
        Locator::File(self.dir.path().join(name))
    }

    async fn chain(&self) -> Vec<Locator> {
        let view = self.libvirt.vm(vm()).await.unwrap();
        view.disk(&vda())
            .unwrap()
            .chain
            .iter()
            .map(|layer| layer.locator.clone())
            .collect()
    }

    fn order(&self, base: &str, top: &str, active: bool) -> CommitOrder {
        CommitOrder {
            disk: vda(),
            base: self.image(base),
            top: self.image(top),
            active,
        }
    }

    async fn told(&mut self, outcome: BlockJobOutcome) {
        let wanted = HypervisorEvent::BlockJob {
            vm: vm(),
            disk: vda(),
            outcome,
        };
        self.event(|event| *event == wanted).await;
    }

    async fn event(&mut self, wanted: impl Fn(&HypervisorEvent) -> bool) {
        let arrival = async { while !wanted(&self.events.recv().await.unwrap()) {} };
        tokio::time::timeout(PATIENCE, arrival)
            .await
            .expect("the event in time");
    }

    /// Waits until what is observed is as wanted.
    async fn settles(&self, what: &str, chain: &[&str]) {
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

    fn qemu(&self) -> i32 {
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

fn vm() -> VmId {
    VM.parse().unwrap()
}

fn vda() -> DiskTarget {
    "vda".parse().unwrap()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn create(dir: &Path, image: &str, below: Option<&str>) {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some(below) = below {
        command.args(["-F", "qcow2", "-b"]).arg(dir.join(below));
    }
    run(command.arg(dir.join(image)).arg("16M"));
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

fn measured(what: &str, began: Instant) {
    eprintln!("{what}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_commit_pivots_while_the_guest_stands_still() {
    let mut rig = Rig::start(&["a", "b"]).await;
    create(rig.dir.path(), "c", Some("b"));
    let overlay = [Overlay {
        disk: vda(),
        locator: rig.image("c"),
    }];
    // The second time it is there already, as after a lost reply.
    for _ in 0..2 {
        let began = Instant::now();
        rig.libvirt.add_overlays(vm(), &overlay).await.unwrap();
        measured("add_overlays", began);
        assert_eq!(
            rig.chain().await,
            ["a", "b", "c"].map(|name| rig.image(name))
        );
    }

    let began = Instant::now();
    let view = rig.libvirt.vm(vm()).await.unwrap();
    measured("vm", began);
    assert_eq!(
        (view.state, view.name.as_str(), view.disks.len()),
        (VmState::Running, "lm", 1)
    );
    assert_eq!(view.disks[0].next_start, Some(rig.image("c")));

    let refused = rig.libvirt.pivot(vm(), &vda()).await;
    assert!(
        matches!(refused, Err(HypervisorError::Refused(_))),
        "{refused:?}"
    );
    let upside_down = rig
        .libvirt
        .start_commit(vm(), &rig.order("c", "b", false))
        .await;
    assert!(
        matches!(upside_down, Err(HypervisorError::Refused(_))),
        "{upside_down:?}"
    );

    let began = Instant::now();
    rig.libvirt
        .start_commit(vm(), &rig.order("a", "c", true))
        .await
        .unwrap();
    measured("start_commit", began);
    rig.told(BlockJobOutcome::Ready).await;
    measured("start_commit to ready", began);
    let twice = rig
        .libvirt
        .start_commit(vm(), &rig.order("a", "c", true))
        .await;
    assert!(
        matches!(twice, Err(HypervisorError::Refused(_))),
        "{twice:?}"
    );

    for _ in 0..2 {
        let began = Instant::now();
        rig.libvirt.suspend(vm()).await.unwrap();
        measured("suspend", began);
    }
    let view = rig.libvirt.vm(vm()).await.unwrap();
    let mirror = view.disks[0].mirror.clone().unwrap();
    assert_eq!(
        (view.state, mirror.kind, mirror.state),
        (
            VmState::Paused,
            BlockJobKind::ActiveCommit,
            MirrorState::Ready
        )
    );
    assert_eq!(mirror.target, Some(rig.image("a")));
    let began = Instant::now();
    let job = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
    measured("job", began);
    assert_eq!((job.kind, job.cur), (BlockJobKind::ActiveCommit, job.end));

    let began = Instant::now();
    rig.libvirt.pivot(vm(), &vda()).await.unwrap();
    measured("pivot asked for", began);
    rig.told(BlockJobOutcome::Completed).await;
    measured("pivot to event", began);
    rig.settles("pivoted", &["a"]).await;
    measured("pivot to chain", began);
    let view = rig.libvirt.vm(vm()).await.unwrap();
    assert_eq!(
        (
            view.disks[0].next_start.clone(),
            view.disks[0].mirror.clone()
        ),
        (Some(rig.image("a")), None)
    );
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);

    for _ in 0..2 {
        let began = Instant::now();
        rig.libvirt.resume(vm()).await.unwrap();
        measured("resume", began);
    }
    assert_eq!(rig.libvirt.vm(vm()).await.unwrap().state, VmState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_commit_ends_by_itself() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    rig.libvirt
        .start_commit(vm(), &rig.order("a", "c", false))
        .await
        .unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("merged", &["a", "d"]).await;
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);
    // QEMU only runs its BIOS, so what it has open is what the files hold.
    for (at, pattern) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        let read = format!("read -P {pattern} {at}M 1M");
        run(Command::new("qemu-io")
            .args(["-r", "-U", "-c", &read])
            .arg(rig.dir.path().join("d")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_told_and_seen() {
    let mut rig = Rig::start(&["a", "b"]).await;
    rig.libvirt
        .start_commit(vm(), &rig.order("a", "b", true))
        .await
        .unwrap();
    rig.told(BlockJobOutcome::Ready).await;
    run(Command::new("kill").args(["-9", &rig.qemu().to_string()]));
    rig.event(|event| *event == HypervisorEvent::Lifecycle { vm: vm() })
        .await;
    let began = Instant::now();
    while rig.libvirt.vm(vm()).await.unwrap().state != VmState::ShutOff {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let view = rig.libvirt.vm(vm()).await.unwrap();
    assert_eq!(view.disks[0].next_start, Some(rig.image("b")));
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);
    for reply in [
        rig.libvirt.suspend(vm()).await,
        rig.libvirt.pivot(vm(), &vda()).await,
        rig.libvirt
            .start_commit(vm(), &rig.order("a", "b", true))
            .await,
    ] {
        assert!(
            matches!(reply, Err(HypervisorError::Refused(_))),
            "{reply:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_references_are_complete() {
    let rig = Rig::start(&["a", "b"]).await;
    let nobody: VmId = "11111111-2222-3333-4444-000000000000".parse().unwrap();
    let no_disk: DiskTarget = "vdz".parse().unwrap();
    assert!(matches!(
        rig.libvirt.vm(nobody).await,
        Err(HypervisorError::NotFound(_))
    ));
    assert!(matches!(
        rig.libvirt.suspend(nobody).await,
        Err(HypervisorError::NotFound(_))
    ));
    assert!(matches!(
        rig.libvirt.job(vm(), &no_disk).await,
        Err(HypervisorError::NotFound(_))
    ));
    assert_eq!(
        rig.libvirt.vms().await.unwrap(),
        [rig.libvirt.vm(vm()).await.unwrap()]
    );

    let link = rig.dir.path().join("another-name");
    std::os::unix::fs::symlink(rig.dir.path().join("a"), &link).unwrap();
    for named in [rig.image("a"), rig.image("b"), Locator::File(link)] {
        let references = rig.libvirt.references(&named).await.unwrap();
        let named: Vec<_> = references
            .iter()
            .map(|found| (found.vm, found.disk.clone()))
            .collect();
        assert_eq!(named, [(vm(), vda())]);
    }
    create(rig.dir.path(), "c", None);
    for unnamed in [
        rig.image("c"),
        rig.image("missing"),
        Locator::Block(PathBuf::from("/dev/null")),
    ] {
        assert_eq!(
            rig.libvirt.references(&unnamed).await.unwrap(),
            [],
            "{unnamed:?}"
        );
    }
}
