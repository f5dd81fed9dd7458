//! A directory, the virtual machines and the processes of one test, all gone when it ends.
//!
//! Dropping a rig, also by a panic, ends the processes that it adopted (an agent first, so that it
//! cannot start anything more), then the QEMUs of its libvirt root, each by its process id, waits
//! until they are gone, and removes the directory.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use uuid::Uuid;

use crate::daemon::Daemon;
use crate::disk::Disk;
use crate::filesystem::SmallFileSystem;
use crate::guest::acks::AckLog;
use crate::guest::domain::{Agent, Begins, DiskSpec, Driver, Format, GuestSpec, Manner, Workload};
use crate::guest::files;
use crate::guest::image::{self, GuestImage};
use crate::process::{run, wait_for_end};
use crate::saved;
use crate::virsh::{CONFIGURATION, Virsh};

/// Where rigs live: a short path for the sockets, and a file system that takes direct I/O.
pub(crate) const PLACE: &str = "/var/tmp";
/// Where libvirt's state is, which it writes out at each change: in memory, as `/run` is on a host.
const STATE: &str = "/dev/shm";
/// The directory of the guests' images, a storage domain of its own.
const IMAGES: &str = "images";
const GUEST_MEMORY_MIB: u64 = 128;
/// The size of each disk of a guest that has a file system.
const FILES_MIB: u64 = 128;

/// Everything that one test starts.
#[derive(Debug)]
pub struct Rig {
    children: Vec<Child>,
    daemon: Option<Daemon>,
    virsh: Virsh,
    neighbour: Option<Neighbour>,
    small: Vec<SmallFileSystem>,
    disk: Option<Disk>,
    dir: TempDir,
    /// libvirt's state, which the directory links to.
    _state: TempDir,
}

/// A second libvirt daemon, as on a second host that has the same images.
#[derive(Debug)]
struct Neighbour {
    daemon: Daemon,
    virsh: Virsh,
    _state: TempDir,
}

/// A directory of a rig that is the root of a disk's file system.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    /// The directory.
    pub(crate) dir: &'static str,
    /// What is mounted there.
    pub(crate) device: PathBuf,
}

/// A virtual machine of a rig, running.
#[derive(Debug)]
pub struct Guest {
    /// What it was made of. The disks are those of the start.
    pub spec: GuestSpec,
    /// What it says.
    pub acks: AckLog,
}

impl Rig {
    /// An empty rig in a directory of its own.
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lm").tempdir_in(PLACE)?;
        let root = dir.path().join("v");
        fs::create_dir(dir.path().join(IMAGES))?;
        share_capabilities(&root.join("cache"))?;
        let state = keep_in_memory(&root.join("run"))?;
        let virsh = Virsh::new(root)?;
        Ok(Self {
            children: Vec::new(),
            daemon: None,
            virsh,
            neighbour: None,
            small: Vec::new(),
            disk: None,
            dir,
            _state: state,
        })
    }

    /// A rig in a directory of this name, and with directories that are on disks. What they hold is
    /// there, as after a start of the host.
    pub(crate) fn on_disks(name: &str, mounts: &[Mount]) -> Result<Self> {
        let mut dir = tempfile::Builder::new();
        let dir = dir.prefix(name).rand_bytes(0).tempdir_in(PLACE)?;
        let mut small = Vec::new();
        for mount in mounts {
            let at = dir.path().join(mount.dir);
            fs::create_dir(&at)?;
            small.push(SmallFileSystem::mount(&mount.device, &at)?);
        }
        fs::create_dir_all(dir.path().join(IMAGES))?;
        let root = dir.path().join("v");
        for link in ["cache/qemu/capabilities", "run"] {
            match fs::remove_file(root.join(link)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _gone => {}
            }
        }
        share_capabilities(&root.join("cache"))?;
        let state = keep_in_memory(&root.join("run"))?;
        Ok(Self {
            children: Vec::new(),
            daemon: None,
            virsh: Virsh::new(root)?,
            neighbour: None,
            small,
            disk: None,
            dir,
            _state: state,
        })
    }

    /// Puts the guests' images, of which there is none yet, on a file system of this size.
    pub fn limit_images(&mut self, mib: u64) -> Result<()> {
        self.limit(IMAGES, mib)
    }

    /// Puts a directory of the rig, in which there is nothing yet, on a file system of this size.
    pub fn limit(&mut self, dir: &str, mib: u64) -> Result<()> {
        let (at, image) = (
            self.path().join(dir),
            self.path().join(format!("{dir}.ext4")),
        );
        fs::create_dir_all(&at)?;
        let small = SmallFileSystem::make_and_mount(&image, &at, mib)?;
        self.small.push(small);
        Ok(())
    }

    /// The file system that limits the images.
    pub fn small(&self) -> Result<&SmallFileSystem> {
        self.limited(IMAGES)
    }

    /// The file system that limits a directory of the rig.
    pub fn limited(&self, dir: &str) -> Result<&SmallFileSystem> {
        let at = self.path().join(dir);
        let found = self.small.iter().find(|small| small.at() == at);
        found.with_context(|| format!("{dir} is not limited"))
    }

    /// Puts the guests' images, of which there is none yet, on a disk that can go bad.
    pub fn put_images_on_a_disk(&mut self, mib: u64) -> Result<()> {
        let disk = Disk::start(self.path().join("disk"), mib)?;
        let device = disk.device();
        self.disk = Some(disk);
        let small = SmallFileSystem::mount(&device, &self.images())?;
        self.small.push(small);
        Ok(())
    }

    /// The disk of the images.
    pub fn disk(&mut self) -> Result<&mut Disk> {
        self.disk
            .as_mut()
            .context("the images have no disk of their own")
    }

    /// An empty rig whose libvirt is a daemon: virsh can be used while the agent is.
    pub fn with_daemon() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lm").tempdir_in(PLACE)?;
        fs::create_dir(dir.path().join(IMAGES))?;
        Self::start_daemon(dir, Vec::new(), None)
    }

    /// The same, with one of the guests' images, which is to be created yet, on a disk of its own.
    /// What is built on it lies beside the others. The daemon does not see what is mounted later.
    pub fn with_daemon_and_disk(image: &str, mib: u64) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lm").tempdir_in(PLACE)?;
        let (images, apart) = (dir.path().join(IMAGES), dir.path().join("apart"));
        fs::create_dir(&images)?;
        fs::create_dir(&apart)?;
        let disk = Disk::start(dir.path().join("disk"), mib)?;
        let small = SmallFileSystem::mount(&disk.device(), &apart)?;
        let (on_disk, at) = (apart.join(image), images.join(image));
        File::create(&on_disk)?;
        File::create(&at)?;
        // Dropped before the file system that it shows a file of.
        let small = vec![SmallFileSystem::show(&on_disk, &at)?, small];
        Self::start_daemon(dir, small, Some(disk))
    }

    fn start_daemon(dir: TempDir, small: Vec<SmallFileSystem>, disk: Option<Disk>) -> Result<Self> {
        let (daemon, virsh, state) = daemon_in(dir.path(), "d")?;
        Ok(Self {
            children: Vec::new(),
            daemon: Some(daemon),
            virsh,
            neighbour: None,
            small,
            disk,
            dir,
            _state: state,
        })
    }

    /// The daemon, if the rig has one.
    pub fn daemon(&mut self) -> Option<&mut Daemon> {
        self.daemon.as_mut()
    }

    /// Starts a second daemon, to which machines of the first one can be migrated.
    pub fn start_neighbour(&mut self) -> Result<()> {
        let (daemon, virsh, state) = daemon_in(self.path(), "n")?;
        self.neighbour = Some(Neighbour {
            daemon,
            virsh,
            _state: state,
        });
        Ok(())
    }

    /// The libvirt of the second daemon.
    pub fn neighbour(&self) -> Result<&Virsh> {
        let neighbour = self.neighbour.as_ref();
        Ok(&neighbour.context("the rig has one libvirt alone")?.virsh)
    }

    /// The rig's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The libvirt of this rig.
    pub fn virsh(&self) -> &Virsh {
        &self.virsh
    }

    /// The directory of the guests' images.
    pub fn images(&self) -> PathBuf {
        self.path().join(IMAGES)
    }

    /// Creates an empty qcow2 image among the guests' images.
    pub fn create_image(&self, file: &str, size_bytes: u64) -> Result<PathBuf> {
        self.create_image_with(file, Format::Qcow2, &[], size_bytes)
    }

    /// Creates an empty image with options of `qemu-img create` of its own.
    pub fn create_image_with(
        &self,
        file: &str,
        format: Format,
        options: &[&str],
        size_bytes: u64,
    ) -> Result<PathBuf> {
        let path = self.images().join(file);
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", format.name()]);
        // A relative backing name is looked for from there.
        command.current_dir(self.images()).args(options).arg(&path);
        run(command.arg(size_bytes.to_string()))?;
        Ok(path)
    }

    /// Creates a disk for each of the targets (`vda`), `NAME-TARGET.qcow2`, and starts a guest that
    /// writes on them.
    pub fn start_guest(
        &self,
        name: &str,
        targets: &[&str],
        disk_bytes: u64,
        workload: Workload,
    ) -> Result<Guest> {
        self.start(self.describe(name, targets, disk_bytes, workload)?)
    }

    /// Creates the disks, and describes the guest.
    pub fn describe(
        &self,
        name: &str,
        targets: &[&str],
        disk_bytes: u64,
        workload: Workload,
    ) -> Result<GuestSpec> {
        let disks = targets
            .iter()
            .map(|target| self.create_disk(name, target, disk_bytes));
        self.describe_with(name, disks.collect::<Result<_>>()?, workload)
    }

    /// Creates an empty image, `NAME-TARGET.qcow2`, as a disk of a guest.
    pub fn create_disk(&self, name: &str, target: &str, bytes: u64) -> Result<DiskSpec> {
        Ok(DiskSpec {
            target: target.to_owned(),
            path: self.create_image(&format!("{name}-{target}.qcow2"), bytes)?,
            format: Format::Qcow2,
        })
    }

    /// Creates two disks, and describes a guest with an agent. On the second one, `vdb`, it has a file
    /// system, and writes a file.
    pub fn describe_with_agent(
        &self,
        name: &str,
        manner: Manner,
        workload: Workload,
    ) -> Result<GuestSpec> {
        let (bare, files) = ("vda", "vdb");
        let spec = self.describe(name, &[bare, files], FILES_MIB << 20, workload)?;
        files::make(&spec.disks[1].path, FILES_MIB)?;
        Ok(GuestSpec {
            image: GuestImage::build_with_agent()?,
            agent: Some(Agent {
                manner,
                files: files.to_owned(),
                socket: self.path().join(format!("{name}.agent")),
            }),
            ..spec
        })
    }

    /// Describes a guest with disks that are there.
    pub fn describe_with(
        &self,
        name: &str,
        disks: Vec<DiskSpec>,
        workload: Workload,
    ) -> Result<GuestSpec> {
        Ok(GuestSpec {
            name: name.to_owned(),
            uuid: Uuid::new_v4(),
            disks,
            serial_log: self.path().join(format!("{name}.serial")),
            image: GuestImage::build()?,
            workload,
            memory_mib: GUEST_MEMORY_MIB,
            driver: Driver::Tcg,
            monitor: None,
            agent: None,
            pairs: false,
            begins: Begins::Booting,
        })
    }

    /// Starts a guest that the caller has described, at its every start where it has booted already.
    /// No agent may own the libvirt root meanwhile.
    pub fn start(&self, spec: GuestSpec) -> Result<Guest> {
        let begins = match spec.driver {
            Driver::Tcg => saved::like(&spec)?,
            Driver::Kvm => Begins::Booting,
        };
        self.boot(GuestSpec { begins, ..spec })
    }

    /// Starts a guest as its description says that it begins.
    pub fn boot(&self, spec: GuestSpec) -> Result<Guest> {
        let xml = self.path().join(format!("{}.xml", spec.name));
        fs::write(&xml, spec.xml())?;
        let acks = AckLog::follow(&spec.serial_log)?;
        self.virsh.start(&spec.name, &xml)?;
        Ok(Guest { spec, acks })
    }

    /// Takes over a process, to end it with the rig.
    pub fn adopt(&mut self, child: Child) {
        self.children.push(child);
    }

    fn end(&mut self) -> Result<()> {
        for child in &mut self.children {
            // It fails for a child that has ended already; `wait` tells.
            let _ = child.kill();
            child.wait().context("waiting for a process of the rig")?;
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.kill()?;
        }
        let mut qemus = self.virsh.running_qemus();
        if let Some(neighbour) = &mut self.neighbour {
            neighbour.daemon.kill()?;
            qemus.extend(neighbour.virsh.running_qemus());
        }
        for pid in &qemus {
            // It may end between the look and the kill; the wait below tells.
            let _ = kill_process(*pid, Signal::KILL);
        }
        qemus.into_iter().try_for_each(wait_for_end)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!(
                "the rig in {} did not end: {error:#}",
                self.path().display()
            );
        }
    }
}

/// Starts a daemon in this directory of a rig's.
fn daemon_in(rig: &Path, name: &str) -> Result<(Daemon, Virsh, TempDir)> {
    let libvirt = rig.join(name);
    share_capabilities(&libvirt.join("cache/libvirt"))?;
    let state = keep_in_memory(&libvirt.join("run"))?;
    let daemon = Daemon::start(libvirt.clone(), CONFIGURATION)?;
    let pids = libvirt.join("run/libvirt/qemu");
    let virsh = Virsh::of_daemon(daemon.uri(), pids, rig.to_owned());
    Ok((daemon, virsh, state))
}

/// Lets all rigs have one cache of what libvirt found out about QEMU: it takes seconds to find out.
/// libvirt itself sees when the cache is stale.
fn share_capabilities(cache: &Path) -> Result<()> {
    let shared = image::directory()?.join("capabilities");
    fs::create_dir_all(&shared)?;
    fs::create_dir_all(cache.join("qemu"))?;
    Ok(symlink(shared, cache.join("qemu/capabilities"))?)
}

/// Makes a directory that is in memory, until what is returned is dropped.
fn keep_in_memory(dir: &Path) -> Result<TempDir> {
    let state = tempfile::Builder::new().prefix("lm").tempdir_in(STATE)?;
    symlink(state.path(), dir)?;
    Ok(state)
}
