//! A machine that is shut off, on a libvirt of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use livemerge_host_agent::hypervisor::{
    BlockJobKind, BlockJobOutcome, Hypervisor, HypervisorError, HypervisorEvent, JobOrder, Libvirt,
};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use virt::connect::Connect;
use virt::domain::Domain;

/// libvirt looks at QEMU's capabilities when it opens a root for the first time.
const FIRST_OPEN: Duration = Duration::from_secs(120);
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const VM: &str = "11111111-2222-3333-4444-555555555555";
/// A limit under which a commit of some MiB takes longer than any test.
pub(crate) const SLOW: u64 = 64 << 10;

/// Without a daemon there is none to keep the logs, and QEMU runs as the one who starts it.
const CONFIGURATION: &str = "stdio_handler = \"file\"\nuser = \"root\"\ngroup = \"root\"\n\
     dynamic_ownership = 0\nnamespaces = []\ncgroup_controllers = []\n";

/// A machine that is shut off, with the disks `vda` (the chain) and `vdb` (one image) and a CD-ROM.
pub(crate) struct Rig {
    pub(crate) libvirt: Libvirt,
    events: Receiver<HypervisorEvent>,
    pub(crate) domain: Domain,
    pub(crate) dir: TempDir,
}

impl Rig {
    /// The images of `vda` have these names, base first, and data of their own each: what each one
    /// has at its own place it shares with none, and at one place each hides the one below.
    pub(crate) async fn new(images: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("lm").tempdir_in("/tmp");
        let dir = dir.unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/qemu.conf"), CONFIGURATION).unwrap();
        create(dir.path(), "second", None, "16M");
        for (number, image) in images.iter().enumerate() {
            let below = number.checked_sub(1).map(|below| images[below]);
            create(dir.path(), image, below, "16M");
            fill(dir.path(), image, number);
        }
        let uri = format!("qemu:///embed?root={}", dir.path().display());
        let libvirt = Libvirt::open(&uri, CALL_LIMIT).unwrap();
        let mut events = libvirt.events();
        let up = tokio::time::timeout(FIRST_OPEN, events.recv()).await;
        assert_eq!(up.unwrap().unwrap(), HypervisorEvent::Connected);
        let xml = definition(dir.path(), images.last().unwrap());
        let domain = tokio::task::spawn_blocking(move || {
            let connect = Connect::open(Some(&uri)).unwrap();
            connect.define_domain_xml(&xml).unwrap()
        });
        let domain = domain.await.unwrap();
        let rig = Self {
            libvirt,
            events,
            domain,
            dir,
        };
        rig.sees(images).await;
        rig
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn image(&self, name: &str) -> Locator {
        Locator::File(self.path(name))
    }

    pub(crate) fn order(&self, base: &str, top: &str, bytes_per_second: u64) -> JobOrder {
        JobOrder {
            disk: vda(),
            kind: BlockJobKind::Offline,
            base: Some(self.image(base)),
            top: self.image(top),
            bytes_per_second,
            merge: None,
        }
    }

    pub(crate) async fn start(&self, base: &str, top: &str, bytes_per_second: u64) {
        let order = self.order(base, top, bytes_per_second);
        self.libvirt.start_job(vm(), &order).await.unwrap();
    }

    pub(crate) async fn merge(&mut self, base: &str, top: &str) {
        self.start(base, top, 0).await;
        self.told(BlockJobOutcome::Completed).await;
        assert_eq!(self.libvirt.job(vm(), &vda()).await.unwrap(), None);
    }

    pub(crate) async fn told(&mut self, outcome: BlockJobOutcome) {
        let wanted = HypervisorEvent::BlockJob {
            vm: vm(),
            disk: vda(),
            outcome,
        };
        let arrival = async {
            loop {
                let event = self.events.recv().await.unwrap();
                if matches!(event, HypervisorEvent::BlockJob { .. }) {
                    assert_eq!(event, wanted);
                    return;
                }
            }
        };
        let arrival = tokio::time::timeout(PATIENCE, arrival).await;
        arrival.expect("the event in time");
    }

    /// The chain of `vda`, which the next start begins with, too.
    pub(crate) async fn sees(&self, chain: &[&str]) {
        let view = self.libvirt.vm(vm()).await.unwrap();
        let disk = view.disk(&vda()).unwrap();
        let layers: Vec<_> = disk
            .chain
            .iter()
            .map(|layer| layer.locator.clone())
            .collect();
        let expected: Vec<_> = chain.iter().map(|name| self.image(name)).collect();
        assert_eq!(layers, expected);
        assert_eq!(disk.next_start.as_ref(), expected.last());
    }

    pub(crate) fn definition(&self) -> String {
        let inactive = virt_sys::VIR_DOMAIN_XML_INACTIVE;
        self.domain.xml_desc(inactive).unwrap()
    }

    /// What a guest that starts from the image would read.
    pub(crate) fn content(&self, image: &str) -> Vec<u8> {
        let raw = self.path("content");
        let mut convert = Command::new("qemu-img");
        run(convert
            .args(["convert", "-U", "-O", "raw"])
            .arg(self.path(image))
            .arg(&raw));
        fs::read(raw).unwrap()
    }

    /// QEMU itself takes the chain as it is now.
    pub(crate) async fn runs(&self, chain: &[&str]) {
        self.domain.create().unwrap();
        self.sees(chain).await;
        self.domain.destroy().unwrap();
    }

    /// Waits until the copy has begun.
    pub(crate) async fn copies(&self) {
        let began = Instant::now();
        loop {
            let job = self.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
            assert_eq!((job.kind, job.end), (BlockJobKind::Offline, 16 << 20));
            if job.cur > 0 {
                return;
            }
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The one `qemu-img` that this process has started and that has not ended.
    pub(crate) fn child(&self) -> String {
        let mut found = Vec::new();
        for task in fs::read_dir("/proc/self/task").unwrap() {
            let children = fs::read_to_string(task.unwrap().path().join("children"));
            for child in children.unwrap_or_default().split_whitespace() {
                let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
                if name.trim() == "qemu-img" {
                    found.push(child.to_owned());
                }
            }
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Off in most tests.
        let _ = self.domain.destroy();
    }
}

pub(crate) fn vm() -> VmId {
    VM.parse().unwrap()
}

pub(crate) fn vda() -> DiskTarget {
    "vda".parse().unwrap()
}

pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A qcow2 image, or a raw one if that is its name, whose header names the one below by its name
/// alone.
pub(crate) fn create(dir: &Path, image: &str, below: Option<&str>, size: &str) {
    let mut command = Command::new("qemu-img");
    command
        .current_dir(dir)
        .args(["create", "-q", "-f", format(image)]);
    if let Some(below) = below {
        command.args(["-F", format(below), "-b", below]);
    }
    run(command.args([image, size]));
}

fn format(image: &str) -> &'static str {
    if image == "raw" { "raw" } else { "qcow2" }
}

fn fill(dir: &Path, image: &str, number: usize) {
    let (pattern, own) = (number + 1, 1 + 3 * number);
    let mut write = Command::new("qemu-io");
    write.args(["-f", format(image)]);
    for place in [format!("0 {}k", 512 - 64 * number), format!("{own}M 2M")] {
        write.args(["-c", &format!("write -P {pattern} {place}")]);
    }
    run(write.arg(dir.join(image)));
}

fn definition(dir: &Path, image: &str) -> String {
    let (top, second) = (dir.join(image), dir.join("second"));
    format!(
        "<domain type='qemu'><name>lm</name><uuid>{VM}</uuid><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>\
         <disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>\
         <disk type='file' device='disk'>\
         <driver name='qemu' type='{}' cache='writeback' discard='unmap'/>\
         <source file='{}'/><target dev='vda' bus='virtio'/><serial>first</serial></disk>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
         <source file='{}'/><target dev='vdb' bus='virtio'/></disk>\
         <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>",
        format(image),
        top.display(),
        second.display()
    )
}

pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, HypervisorError>) -> String {
    match answer {
        Err(HypervisorError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}
