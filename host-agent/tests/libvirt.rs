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
    BlockJobKind, BlockJobOutcome, Fill, Hypervisor, HypervisorError, HypervisorEvent, JobOrder,
    Layer, Libvirt, MirrorState, Overlay, VmState,
};
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_storage::{Format, ImageHead, Locator};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use virt::connect::Connect;
use virt::domain::Domain;

/// libvirt looks at QEMU's capabilities when it opens a root for the first time.
const FIRST_OPEN: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(30);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Bytes a second at which a job of [`Rig::holding`] 64 MiB is not done within [`PATIENCE`].
const SLOW: u64 = 1 << 20;
/// What each of four images holds of its own at its place in megabytes, below what is above it.
const FOUR: [(u32, u32); 4] = [(0, 1), (1, 2), (2, 3), (3, 4)];
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
        Self::holding(images, 4).await
    }

    /// The same with so many megabytes of data in each image.
    async fn holding(images: &[&str], megabytes: u32) -> Self {
        Self::with(images, megabytes, &|_| {}).await
    }

    /// The same, with something done in its directory before the machine starts.
    async fn with(images: &[&str], megabytes: u32, prepare: &dyn Fn(&Path)) -> Self {
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

    fn order(&self, base: &str, top: &str, active: bool) -> JobOrder {
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

    fn pull(&self, base: Option<&str>, top: &str) -> JobOrder {
        JobOrder {
            disk: vda(),
            kind: BlockJobKind::Pull,
            base: base.map(|base| self.image(base)),
            top: self.image(top),
            bytes_per_second: 0,
            merge: None,
        }
    }

    async fn restore(&self, image: &str, backing: &Layer) -> Result<(), HypervisorError> {
        let (disk, image) = (vda(), self.image(image));
        let restored = self.libvirt.restore_backing(vm(), &disk, &image, backing);
        restored.await
    }

    /// Nothing works on the disk, and the guest goes on.
    async fn is_idle(&self) {
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
    async fn abort(&mut self, chain: &[&str]) {
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
    async fn commits(&mut self, base: &str, top: &str, left: &[&str]) {
        let order = self.order(base, top, true);
        self.libvirt.start_job(vm(), &order).await.unwrap();
        self.told(BlockJobOutcome::Ready).await;
        self.libvirt.pivot(vm(), &vda()).await.unwrap();
        self.told(BlockJobOutcome::Completed).await;
        self.settles("committed", left).await;
    }

    /// Puts an overlay on the disk that names the active image by its name alone.
    async fn overlay(&self, image: &str) {
        let active = self.chain().await.pop().unwrap().to_string();
        let below = Path::new(&active).file_name().unwrap().to_str().unwrap();
        self.overlay_named(image, below).await;
    }

    /// Puts an overlay on the disk that names the active image so.
    async fn overlay_named(&self, image: &str, below: &str) {
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

    /// Bytes that a bitmap of an image knows as changed.
    fn marked(&self, image: &str, bitmap: &str) -> u64 {
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
    fn written(&self, image: &str) -> Option<String> {
        let head = ImageHead::read(&self.dir.path().join(image), None);
        head.unwrap().backing
    }

    /// The image below, as the header names it.
    fn backing(&self, image: &str) -> Option<PathBuf> {
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
    fn reads(&self, image: &str, patterns: &[(u32, u32)]) {
        for (at, pattern) in patterns {
            let read = format!("read -P {pattern} {at}M 1M");
            run(Command::new("qemu-io")
                .args(["-r", "-U", "-c", &read])
                .arg(self.dir.path().join(image)));
        }
    }

    fn holds(&self, image: &str, patterns: &[(u32, u32)]) -> bool {
        patterns.iter().all(|(at, pattern)| {
            let read = format!("read -P {pattern} {at}M 1M");
            let mut command = Command::new("qemu-io");
            command.args(["-r", "-U", "-c", &read]);
            let image = self.dir.path().join(image);
            command.arg(image).status().unwrap().success()
        })
    }

    async fn kill(&mut self) {
        run(Command::new("kill").args(["-9", &self.qemu().to_string()]));
        let began = Instant::now();
        while self.libvirt.vm(vm()).await.unwrap().state != VmState::ShutOff {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn start_again(&self) {
        let domain = self.domain.clone();
        let started = tokio::task::spawn_blocking(move || domain.create());
        started.await.unwrap().unwrap();
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

fn measured(what: &str, began: Instant) {
    eprintln!("{what}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_s_writes_are_limited_and_its_own_limit_comes_back() {
    let rig = Rig::start(&["a"]).await;
    let libvirt = &rig.libvirt;
    assert_eq!(libvirt.write_limit(vm(), &vda()).await.unwrap(), 0);
    for limit in [5 << 20, 1 << 20, 0] {
        libvirt.limit_writes(vm(), &vda(), limit).await.unwrap();
        assert_eq!(libvirt.write_limit(vm(), &vda()).await.unwrap(), limit);
    }
    let none = libvirt.limit_writes(vm(), &"vdz".parse().unwrap(), 1).await;
    assert!(matches!(none, Err(HypervisorError::Refused(_))), "{none:?}");
}

/// The base of a commit is written, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_written_beyond_what_is_watched_is_told_of_once() {
    let mut rig = Rig::start(&["a", "b", "c"]).await;
    let fills = |fill: &Fill| -> Vec<_> {
        let layers = fill.layers.iter();
        let own = layers.filter(|layer| layer.disk == vda());
        own.map(|layer| (layer.locator.to_string(), layer.watched_at))
            .collect()
    };
    let paths = ["c", "b", "a"].map(|name| rig.image(name).to_string());
    let before = rig.libvirt.fill(vm()).await.unwrap();
    let unwatched = paths.clone().map(|path| (path, 0));
    assert_eq!(
        (fills(&before), before.lacks_room),
        (unwatched.to_vec(), vec![])
    );
    let (base, watched) = (rig.image("a"), 1 << 20);
    rig.libvirt
        .watch_fill(vm(), &vda(), &base, watched)
        .await
        .unwrap();
    let now = fills(&rig.libvirt.fill(vm()).await.unwrap());
    assert_eq!(now[2], (paths[2].clone(), watched));
    assert_eq!(now[..2], unwatched[..2]);
    let order = rig.order("a", "b", false);
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.event(|event| *event == HypervisorEvent::Filling { vm: vm() })
        .await;
    rig.told(BlockJobOutcome::Completed).await;
    let after = rig.libvirt.fill(vm()).await.unwrap();
    assert!(
        after.layers.iter().all(|layer| layer.watched_at == 0),
        "{after:?}"
    );
    let none = rig
        .libvirt
        .watch_fill(vm(), &vda(), &rig.image("x"), 1)
        .await;
    assert!(matches!(none, Err(HypervisorError::Refused(_))), "{none:?}");
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
        .start_job(vm(), &rig.order("c", "b", false))
        .await;
    assert!(
        matches!(upside_down, Err(HypervisorError::Refused(_))),
        "{upside_down:?}"
    );

    let began = Instant::now();
    rig.libvirt
        .start_job(vm(), &rig.order("a", "c", true))
        .await
        .unwrap();
    measured("start_job", began);
    rig.told(BlockJobOutcome::Ready).await;
    measured("start_job to ready", began);
    let twice = rig
        .libvirt
        .start_job(vm(), &rig.order("a", "c", true))
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
        .start_job(vm(), &rig.order("a", "c", false))
        .await
        .unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("merged", &["a", "d"]).await;
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);
    assert_eq!(rig.backing("d"), Some(rig.dir.path().join("a")));
    rig.reads("d", &FOUR);
}

/// A chain whose headers name the layers below by their names alone.
#[tokio::test(flavor = "multi_thread")]
async fn relative_names_stay_and_do_not_grow_over_fifty_merges() {
    let mut rig = Rig::start(&["a"]).await;
    rig.overlay("l0").await;
    for round in 0..50 {
        let (middle, top) = (format!("l{round}"), format!("l{}", round + 1));
        rig.overlay(&top).await;
        let order = rig.order("a", &middle, false);
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        rig.settles("merged", &["a", &top]).await;
        assert_eq!(rig.written(&top).as_deref(), Some("a"), "round {round}");
        fs::remove_file(rig.dir.path().join(middle)).unwrap();
    }
    rig.overlay("top").await;
    let order = rig.pull(Some("a"), "top");
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["a", "top"]).await;
    assert_eq!(rig.written("top").as_deref(), Some("a"));
    rig.reads("top", &[(0, 1)]);
}

/// Names that libvirt would make longer with each merge are written whole instead.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_would_grow_become_absolute_and_stay_so() {
    let mut rig = Rig::start(&["a"]).await;
    rig.overlay_named("l0", "./a").await;
    let whole = rig.dir.path().join("a").display().to_string();
    for round in 0..3 {
        let (middle, top) = (format!("l{round}"), format!("l{}", round + 1));
        rig.overlay_named(&top, &format!("./{middle}")).await;
        let base = rig.chain().await.swap_remove(0);
        let middle = rig.chain().await.swap_remove(1);
        let order = JobOrder {
            base: Some(base),
            top: middle,
            ..rig.order("a", "a", false)
        };
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        let began = Instant::now();
        while rig.chain().await.len() > 2 {
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            rig.written(&top).as_deref(),
            Some(whole.as_str()),
            "round {round}"
        );
    }
}

/// QEMU keeps the bitmaps of the volume that it writes: what a commit brings down counts as changed.
#[tokio::test(flavor = "multi_thread")]
async fn the_bitmaps_of_the_kept_volume_know_what_was_committed() {
    let mut rig = Rig::with(&["a", "b"], 4, &|dir| {
        let mut add = Command::new("qemu-img");
        add.args(["bitmap", "--add", "-g", "1M"]);
        run(add.arg(dir.join("a")).arg("nightly"));
    })
    .await;
    rig.commits("a", "b", &["a"]).await;
    // QEMU writes them out when it is asked to end.
    let domain = rig.domain.clone();
    let ended = tokio::task::spawn_blocking(move || domain.destroy());
    ended.await.unwrap().unwrap();
    // What `b` held.
    assert_eq!(rig.marked("a", "nightly"), 4 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_leaves_its_base_below() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let into_the_middle = rig.libvirt.start_job(vm(), &rig.pull(Some("a"), "c")).await;
    assert!(
        matches!(into_the_middle, Err(HypervisorError::Refused(_))),
        "{into_the_middle:?}"
    );
    let order = rig.pull(Some("a"), "d");
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["a", "d"]).await;
    rig.is_idle().await;
    let view = rig.libvirt.vm(vm()).await.unwrap();
    assert_eq!(view.disks[0].next_start, Some(rig.image("d")));
    assert_eq!(rig.backing("d"), Some(rig.dir.path().join("a")));
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.reads("d", &FOUR);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_of_everything_leaves_nothing_below() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let order = rig.pull(None, "d");
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["d"]).await;
    rig.is_idle().await;
    assert_eq!(rig.backing("d"), None);
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.reads("d", &FOUR);
}

/// A guest that is stopped makes QEMU write out what it has pulled; of a commit it writes all by
/// itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_has_moved_outlives_qemu() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let commit = rig.order("a", "b", false);
    rig.libvirt.start_job(vm(), &commit).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("merged", &["a", "c", "d"]).await;
    rig.kill().await;
    rig.reads("d", &FOUR);
    rig.start_again().await;
    let pull = rig.pull(None, "d");
    rig.libvirt.start_job(vm(), &pull).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["d"]).await;
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.libvirt.resume(vm()).await.unwrap();
    rig.kill().await;
    assert_eq!(rig.backing("d"), None);
    rig.reads("d", &FOUR);
}

/// QEMU dies between the header that tells of the pull's end and what it has in its memory alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_died_with_qemu_is_made_whole() {
    let mut rig = Rig::start(&["a", "b", "c", "d"]).await;
    let (mut lost, whole) = (0, ["a", "b", "c", "d"]);
    for (base, delay) in [None, Some("a")]
        .into_iter()
        .flat_map(|base| [0, 1, 3, 8, 20].map(|delay| (base, delay)))
    {
        let order = rig.pull(base, "d");
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        rig.kill().await;
        let backing = Layer {
            locator: rig.image("c"),
            format: Some(Format::Qcow2),
        };
        lost += u32::from(!rig.holds("d", &FOUR));
        // The second time it is there already, as after a lost reply.
        for _ in 0..2 {
            rig.restore("d", &backing).await.unwrap();
            assert_eq!(rig.chain().await, whole.map(|name| rig.image(name)));
        }
        rig.reads("d", &FOUR);
        rig.start_again().await;
        rig.settles("started", &whole).await;
        let refused = rig.restore("d", &backing).await;
        assert!(
            matches!(refused, Err(HypervisorError::Refused(_))),
            "{refused:?}"
        );
    }
    assert!(lost > 0, "nothing was ever lost: the test shows nothing");
    eprintln!("lost before it was restored: {lost} of 10");
    let again = rig.pull(None, "d");
    rig.libvirt.start_job(vm(), &again).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["d"]).await;
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.kill().await;
    rig.reads("d", &FOUR);
}

/// libvirt begins to count its machines anew when it starts: the mark does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_qemu_says_what_it_works_for_until_it_ends() {
    let mut rig = Rig::start(&["a", "b", "c"]).await;
    let works_for = async |rig: &Rig| rig.libvirt.vm(vm()).await.unwrap().disks[0].works_for;
    assert_eq!(works_for(&rig).await, None);
    for number in [1, 2] {
        let merge = MergeId::from(uuid::Uuid::from_u128(number));
        let base = (number == 1).then_some("a");
        let order = JobOrder {
            merge: Some(merge),
            ..rig.pull(base, "c")
        };
        rig.libvirt.start_job(vm(), &order).await.unwrap();
        rig.told(BlockJobOutcome::Completed).await;
        assert_eq!(works_for(&rig).await, Some(merge));
    }
    rig.libvirt.suspend(vm()).await.unwrap();
    rig.kill().await;
    assert_eq!(works_for(&rig).await, None);
    rig.start_again().await;
    assert_eq!(works_for(&rig).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_active_commit_is_given_up_while_it_copies_and_when_it_is_ready() {
    let mut rig = Rig::holding(&["a", "b", "c"], 64).await;
    let (order, chain) = (rig.order("a", "c", true), &["a", "b", "c"]);
    let slow = JobOrder {
        bytes_per_second: SLOW,
        ..order.clone()
    };
    rig.libvirt.start_job(vm(), &slow).await.unwrap();
    let view = rig.libvirt.vm(vm()).await.unwrap();
    let mirror = view.disks[0].mirror.clone().unwrap();
    assert_eq!(mirror.state, MirrorState::Copying);
    rig.abort(chain).await;
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    rig.told(BlockJobOutcome::Ready).await;
    rig.abort(chain).await;
    rig.reads("c", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
    rig.commits("a", "c", &["a"]).await;
    rig.reads("a", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_by_itself_is_given_up_while_it_copies() {
    let mut rig = Rig::holding(&["a", "b", "c"], 64).await;
    let chain = &["a", "b", "c"];
    for order in [
        rig.order("a", "b", false),
        rig.pull(Some("a"), "c"),
        rig.pull(None, "c"),
    ] {
        let kind = order.kind;
        let slow = JobOrder {
            bytes_per_second: SLOW,
            ..order
        };
        rig.libvirt.start_job(vm(), &slow).await.unwrap();
        let job = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
        assert_eq!(job.kind, kind);
        rig.abort(chain).await;
        rig.reads("c", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
    }
    rig.libvirt
        .start_job(vm(), &rig.order("a", "b", false))
        .await
        .unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("merged", &["a", "c"]).await;
    rig.commits("a", "c", &["a"]).await;
    rig.reads("a", &[(0, 1), (1, 2), (2, 3), (65, 3)]);
}

/// 64 MiB at 1 MiB a second take a minute: what is not lifted is not done in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_made_slow_and_fast() {
    let mut rig = Rig::holding(&["a", "b"], 64).await;
    let none = rig.libvirt.set_speed(vm(), &vda(), SLOW).await;
    assert!(matches!(none, Err(HypervisorError::Refused(_))), "{none:?}");
    let order = JobOrder {
        bytes_per_second: SLOW,
        ..rig.order("a", "b", true)
    };
    rig.libvirt.start_job(vm(), &order).await.unwrap();
    let slow = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
    assert!(slow.cur < slow.end || slow.end == 0, "{slow:?}");
    rig.libvirt.set_speed(vm(), &vda(), 2 * SLOW).await.unwrap();
    let slow = rig.libvirt.job(vm(), &vda()).await.unwrap().unwrap();
    assert!(slow.cur < slow.end || slow.end == 0, "{slow:?}");
    let began = Instant::now();
    rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
    rig.told(BlockJobOutcome::Ready).await;
    measured("unlimited to ready", began);
    rig.abort(&["a", "b"]).await;
    // At a byte a second it would never end.
    let slow = JobOrder {
        bytes_per_second: 1,
        ..rig.pull(None, "b")
    };
    rig.libvirt.start_job(vm(), &slow).await.unwrap();
    rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.settles("pulled", &["b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_told_and_seen() {
    let mut rig = Rig::start(&["a", "b"]).await;
    rig.libvirt
        .start_job(vm(), &rig.order("a", "b", true))
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
            .start_job(vm(), &rig.order("a", "b", true))
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
