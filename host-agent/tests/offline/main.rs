//! Merges and overlays of a machine that is shut off, on a real libvirt and the real `qemu-img`.
//!
//! Each test has a root directory of its own. Needs libvirt, its QEMU driver, qemu-system-x86_64,
//! qemu-img and qemu-io, and root; and a process for each test, as nextest gives it: libvirt's
//! embedded driver is opened once a process.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use livemerge_host_agent::hypervisor::{
    BlockJobKind, BlockJobOutcome, Hypervisor, HypervisorError, HypervisorEvent, JobOrder, Libvirt,
    Overlay, VmState,
};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::{ImageHead, Locator};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use virt::connect::Connect;
use virt::domain::{Domain, DomainState};

/// libvirt looks at QEMU's capabilities when it opens a root for the first time.
const FIRST_OPEN: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(30);
const CALL_LIMIT: Duration = Duration::from_secs(10);
const VM: &str = "11111111-2222-3333-4444-555555555555";
/// A limit under which a commit of some MiB takes longer than any test.
const SLOW: u64 = 64 << 10;

/// Without a daemon there is none to keep the logs, and QEMU runs as the one who starts it.
const CONFIGURATION: &str = "stdio_handler = \"file\"\nuser = \"root\"\ngroup = \"root\"\n\
     dynamic_ownership = 0\nnamespaces = []\ncgroup_controllers = []\n";

/// A machine that is shut off, with the disks `vda` (the chain) and `vdb` (one image) and a CD-ROM.
struct Rig {
    libvirt: Libvirt,
    events: Receiver<HypervisorEvent>,
    domain: Domain,
    dir: TempDir,
}

impl Rig {
    /// The images of `vda` have these names, base first, and data of their own each: what each one
    /// has at its own place it shares with none, and at one place each hides the one below.
    async fn new(images: &[&str]) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn image(&self, name: &str) -> Locator {
        Locator::File(self.path(name))
    }

    fn order(&self, base: &str, top: &str, bytes_per_second: u64) -> JobOrder {
        JobOrder {
            disk: vda(),
            kind: BlockJobKind::Offline,
            base: Some(self.image(base)),
            top: self.image(top),
            bytes_per_second,
            merge: None,
        }
    }

    async fn start(&self, base: &str, top: &str, bytes_per_second: u64) {
        let order = self.order(base, top, bytes_per_second);
        self.libvirt.start_job(vm(), &order).await.unwrap();
    }

    async fn merge(&mut self, base: &str, top: &str) {
        self.start(base, top, 0).await;
        self.told(BlockJobOutcome::Completed).await;
        assert_eq!(self.libvirt.job(vm(), &vda()).await.unwrap(), None);
    }

    async fn told(&mut self, outcome: BlockJobOutcome) {
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
    async fn sees(&self, chain: &[&str]) {
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

    fn definition(&self) -> String {
        let inactive = virt_sys::VIR_DOMAIN_XML_INACTIVE;
        self.domain.xml_desc(inactive).unwrap()
    }

    /// What a guest that starts from the image would read.
    fn content(&self, image: &str) -> Vec<u8> {
        let raw = self.path("content");
        let mut convert = Command::new("qemu-img");
        run(convert
            .args(["convert", "-U", "-O", "raw"])
            .arg(self.path(image))
            .arg(&raw));
        fs::read(raw).unwrap()
    }

    /// QEMU itself takes the chain as it is now.
    async fn runs(&self, chain: &[&str]) {
        self.domain.create().unwrap();
        self.sees(chain).await;
        self.domain.destroy().unwrap();
    }

    /// Waits until the copy has begun.
    async fn copies(&self) {
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
    fn child(&self) -> String {
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

/// A qcow2 image, or a raw one if that is its name, whose header names the one below by its name
/// alone.
fn create(dir: &Path, image: &str, below: Option<&str>, size: &str) {
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

fn refused<T: std::fmt::Debug>(answer: Result<T, HypervisorError>) -> String {
    match answer {
        Err(HypervisorError::Refused(why)) => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definition_follows_when_the_top_is_merged() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let (content, before) = (rig.content("c"), rig.definition());
    let top = fs::read(rig.path("c")).unwrap();
    rig.merge("b", "c").await;
    rig.sees(&["a", "b"]).await;
    assert!(rig.content("b") == content);
    // Nothing else of the definition has changed, and the removed image is as it was.
    let name = |name: &str| format!("'{}'", rig.path(name).display());
    assert_eq!(rig.definition(), before.replace(&name("c"), &name("b")));
    assert!(fs::read(rig.path("c")).unwrap() == top);
    rig.runs(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_above_follows_and_keeps_its_name_relative() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let (content, before) = (rig.content("c"), rig.definition());
    rig.merge("a", "b").await;
    rig.sees(&["a", "c"]).await;
    assert!(rig.content("c") == content);
    assert_eq!(rig.definition(), before);
    let head = ImageHead::read(&rig.path("c"), None).unwrap();
    assert_eq!(head.backing.as_deref(), Some("a"));
    rig.runs(&["a", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_layers_go_at_once() {
    let mut rig = Rig::new(&["a", "b", "c", "d"]).await;
    let content = rig.content("d");
    rig.merge("a", "c").await;
    rig.sees(&["a", "d"]).await;
    assert!(rig.content("d") == content);
    rig.merge("a", "d").await;
    rig.sees(&["a"]).await;
    assert!(rig.content("a") == content);
    rig.runs(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_base_is_written_and_started_as_raw() {
    let mut rig = Rig::new(&["raw", "b", "c"]).await;
    let content = rig.content("c");
    rig.merge("raw", "c").await;
    rig.sees(&["raw"]).await;
    assert!(fs::read(rig.path("raw")).unwrap() == content);
    let driver = "<driver name='qemu' type='raw' cache='writeback' discard='unmap'/>";
    assert!(rig.definition().contains(driver), "{}", rig.definition());
    rig.runs(&["raw"]).await;
}

/// Takes the last cluster of an image for free, though a table has data there.
fn forget_last_cluster(image: &Path) {
    use std::os::unix::fs::FileExt as _;
    const CLUSTER: u64 = 64 << 10;
    let file = fs::File::options().read(true).write(true).open(image);
    let file = file.unwrap();
    let number = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    // The header names the table, whose first entry names the counts of the first clusters.
    let counts = number(number(48));
    let last = file.metadata().unwrap().len().div_ceil(CLUSTER) - 1;
    file.write_all_at(&[0, 0], counts + 2 * last).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_merge_leaves_damaged_stays_in_the_chain() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let before = rig.definition();
    forget_last_cluster(&rig.path("a"));
    rig.start("a", "b", 0).await;
    rig.told(BlockJobOutcome::Damaged).await;
    rig.sees(&["a", "b", "c"]).await;
    assert_eq!(rig.definition(), before);
    let head = ImageHead::read(&rig.path("c"), None).unwrap();
    assert_eq!(head.backing.as_deref(), Some("b"));
    // Of those that nothing was written into, nothing is said.
    rig.merge("b", "c").await;
    rig.sees(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_base_grows() {
    let mut rig = Rig::new(&["a", "b"]).await;
    let grow = |image: &str| {
        let mut resize = Command::new("qemu-img");
        run(resize
            .args(["resize", "-q"])
            .arg(rig.path(image))
            .arg("24M"));
        let mut write = Command::new("qemu-io");
        run(write.args(["-c", "write -P 9 20M 1M"]).arg(rig.path(image)));
    };
    grow("b");
    let content = rig.content("b");
    assert_eq!(content.len(), 24 << 20);
    rig.merge("a", "b").await;
    rig.sees(&["a"]).await;
    assert!(rig.content("a") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_can_be_begun_again() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let (content, before) = (rig.content("c"), rig.definition());
    rig.start("a", "c", SLOW).await;
    rig.copies().await;
    let second = rig.libvirt.start_job(vm(), &rig.order("a", "b", 0)).await;
    assert!(refused(second).contains("block job"));
    rig.libvirt.abort_job(vm(), &vda()).await.unwrap();
    rig.told(BlockJobOutcome::Cancelled).await;
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);
    rig.sees(&["a", "b", "c"]).await;
    assert!(rig.content("c") == content);
    assert_eq!(rig.definition(), before);
    rig.runs(&["a", "b", "c"]).await;
    rig.merge("a", "c").await;
    assert!(rig.content("a") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_is_a_failed_job() {
    let mut rig = Rig::new(&["a", "b"]).await;
    let content = rig.content("b");
    rig.start("a", "b", SLOW).await;
    rig.copies().await;
    run(Command::new("kill").args(["-9", &rig.child()]));
    rig.told(BlockJobOutcome::Failed).await;
    rig.sees(&["a", "b"]).await;
    assert!(rig.content("b") == content);
    rig.merge("a", "b").await;
    assert!(rig.content("a") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_can_be_changed_on_the_way() {
    let mut rig = Rig::new(&["a", "b"]).await;
    let content = rig.content("b");
    rig.start("a", "b", SLOW).await;
    rig.copies().await;
    rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.sees(&["a"]).await;
    assert!(rig.content("a") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_started_meanwhile_is_refused_by_the_lock() {
    let mut rig = Rig::new(&["a", "b", "c", "d"]).await;
    let content = rig.content("d");
    for (base, top, after) in [("b", "c", &["a", "b", "d"][..]), ("b", "d", &["a", "b"])] {
        rig.start(base, top, SLOW).await;
        rig.copies().await;
        let error = rig.domain.create().unwrap_err();
        assert!(error.message().contains("lock"), "{error}");
        let view = rig.libvirt.vm(vm()).await.unwrap();
        assert_eq!(view.state, VmState::ShutOff);
        // The job does not mind.
        rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        rig.sees(after).await;
        assert!(rig.content(after.last().unwrap()) == content);
        rig.runs(after).await;
    }
}

/// Whoever comes first, the machine never runs on a layer that its next start would not open.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_started_at_any_moment_runs_on_what_its_definition_names() {
    let mut rig = Rig::new(&["a", "b", "c", "d", "e"]).await;
    let content = rig.content("e");
    let mut chain = vec!["a", "b", "c", "d", "e"];
    while chain.len() > 1 {
        let (base, top) = (chain[chain.len() - 2], chain[chain.len() - 1]);
        rig.start(base, top, 0).await;
        let domain = rig.domain.clone();
        let starts = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            while domain.create().is_err() {
                assert!(began.elapsed() < PATIENCE);
            }
        });
        rig.told(BlockJobOutcome::Completed).await;
        starts.await.unwrap();
        chain.pop();
        let began = Instant::now();
        loop {
            rig.sees(&chain).await;
            if rig.libvirt.vm(vm()).await.unwrap().state == VmState::Running {
                break;
            }
            // libvirt 9.0 may hear of a refused QEMU's end when the next one runs, and ends that.
            assert!(began.elapsed() < PATIENCE);
            let ended = rig.domain.state().unwrap().0.known();
            assert_eq!(ended, Some(DomainState::Shutoff));
            rig.domain.create().unwrap();
        }
        rig.domain.destroy().unwrap();
        rig.sees(&chain).await;
        assert!(rig.content(base) == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_or_does_not_fit_is_refused() {
    let rig = Rig::new(&["a", "b", "c"]).await;
    let start = async |base: &str, top: &str| {
        let order = rig.order(base, top, 0);
        refused(rig.libvirt.start_job(vm(), &order).await)
    };
    assert!(start("c", "b").await.contains("order"));
    assert!(start("second", "c").await.contains("layers"));
    rig.domain.create().unwrap();
    assert!(start("a", "b").await.contains("runs"));
    let pulled = JobOrder {
        kind: BlockJobKind::Commit,
        ..rig.order("a", "b", 0)
    };
    rig.domain.managed_save(0).unwrap();
    assert!(start("a", "b").await.contains("saved state"));
    refused(rig.libvirt.start_job(vm(), &pulled).await);
    rig.domain.managed_save_remove(0).unwrap();
    // Somebody else has it open.
    let mut reader = Command::new("qemu-io");
    reader.arg("-r").arg(rig.path("b"));
    reader.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut reader = reader.spawn().unwrap();
    // It prompts once it has the image open.
    let mut word = [0];
    reader
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut word)
        .unwrap();
    let why = start("a", "b").await;
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(why.contains("open"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn overlays_are_put_on_all_disks_at_once_or_on_none() {
    let rig = Rig::new(&["a", "b"]).await;
    let (content, before) = (rig.content("b"), rig.definition());
    create(rig.dir.path(), "c", Some("b"), "16M");
    create(rig.dir.path(), "other", Some("a"), "16M");
    create(rig.dir.path(), "third", Some("second"), "16M");
    let on = |disk: &str, name: &str| Overlay {
        disk: disk.parse().unwrap(),
        locator: rig.image(name),
    };
    let wrong = [on("vdb", "third"), on("vda", "other")];
    let why = refused(rig.libvirt.add_overlays(vm(), &wrong).await);
    assert!(why.contains("vda"), "{why}");
    assert_eq!(rig.definition(), before);

    let right = [on("vdb", "third"), on("vda", "c")];
    // The second time they are there already, as after a lost reply.
    for _ in 0..2 {
        rig.libvirt.add_overlays(vm(), &right).await.unwrap();
        rig.sees(&["a", "b", "c"]).await;
        let view = rig.libvirt.vm(vm()).await.unwrap();
        let second = view.disk(&"vdb".parse().unwrap()).unwrap();
        assert_eq!(second.next_start, Some(rig.image("third")));
        assert_eq!(second.chain[0].locator, rig.image("second"));
    }
    let name = |name: &str| format!("'{}'", rig.path(name).display());
    let expected = before.replace(&name("b"), &name("c"));
    let expected = expected.replace(&name("second"), &name("third"));
    assert_eq!(rig.definition(), expected);
    assert!(rig.content("c") == content);
    rig.runs(&["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_cannot_be_read_is_not_known_and_its_layers_are_needed() {
    let rig = Rig::new(&["a", "b", "c"]).await;
    let disks = async |name: &str| {
        let found = rig.libvirt.references(&rig.image(name)).await.unwrap();
        found
            .into_iter()
            .map(|found| found.disk.to_string())
            .collect::<Vec<_>>()
    };
    for layer in ["a", "b", "c"] {
        assert_eq!(disks(layer).await, ["vda"]);
    }
    assert_eq!(disks("second").await, ["vdb"]);
    fs::rename(rig.path("a"), rig.path("away")).unwrap();
    let unknown = rig.libvirt.vm(vm()).await;
    assert!(
        matches!(unknown, Err(HypervisorError::Unknown(_))),
        "{unknown:?}"
    );
    let listed = rig.libvirt.vms().await.unwrap();
    let targets: Vec<_> = listed[0]
        .disks
        .iter()
        .map(|disk| disk.target.as_str())
        .collect();
    assert_eq!(targets, ["vdb"]);
    assert_eq!(disks("a").await, ["vda"]);
    assert_eq!(disks("away").await, [""; 0]);
    fs::write(rig.path("a"), "half a header").unwrap();
    let unknown = rig.libvirt.references(&rig.image("second")).await;
    assert!(
        matches!(unknown, Err(HypervisorError::Unknown(_))),
        "{unknown:?}"
    );
    fs::rename(rig.path("away"), rig.path("a")).unwrap();
    rig.sees(&["a", "b", "c"]).await;
}
