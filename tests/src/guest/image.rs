//! The guest's kernel and initramfs.
//!
//! ```text
//! target/rig/kernel/               unpacked by `make setup`
//! target/rig/agent/                unpacked by `make setup`
//! target/rig/guest-HASH.cpio       built here, once for each content:
//!   init                           init.sh: drivers, its work, then a writer for each disk
//!   bin/busybox  bin/guest-writer  the writer is compiled here, statically, by rustc alone
//!   modules/*.ko                   the drivers; modules/machine and modules/disks say in which order
//!   etc/acpi/PWRF/00000080         power.sh: a clean end
//!   bin/qemu-ga  lib/…             where one is wanted: the guest's agent, with its libraries
//! ```
//! The name holds a hash of everything that goes in, so that a changed script makes another image
//! and builders that run at once cannot disturb each other.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::process::run;
use livemerge_vhost::pack;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 12] = [
    "acpid", "dd", "echo", "insmod", "kill", "mount", "poweroff", "rmmod", "sh", "sleep", "sync",
    "usleep",
];
const INIT: &str = include_str!("init.sh");
const POWER: &str = include_str!("power.sh");
const WRITER: &str = include_str!("../bin/guest-writer.rs");
const RECORD: &str = include_str!("record.rs");
/// What every guest loads at its boot, in the order of their dependencies.
const MACHINE: [&str; 7] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/acpi/button",
    "drivers/input/evdev",
];
/// What it loads when it has its work: these look at what they drive as it is then.
const DISKS: &str = "drivers/block/virtio_blk";
/// The port that a guest's agent listens on.
const PORT: &str = "drivers/char/virtio_console";
/// The file in which the work stands, loaded anew for each look.
const WORK: &str = "drivers/firmware/qemu_fw_cfg";

/// What a guest boots from.
#[derive(Debug, Clone)]
pub struct GuestImage {
    /// The kernel (vmlinuz).
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
}

impl GuestImage {
    /// Builds the image, or finds the one that was built before. Fails with what to do when
    /// something of the machine is missing.
    pub fn build() -> Result<Self> {
        let rig = directory()?;
        Self::of(&Parts::find(&rig.join("kernel"))?, &rig)
    }

    /// The same, with an agent in it.
    pub fn build_with_agent() -> Result<Self> {
        let rig = directory()?;
        let mut parts = Parts::find(&rig.join("kernel"))?;
        parts.add_agent(&rig.join("agent/usr/sbin/qemu-ga"))?;
        Self::of(&parts, &rig)
    }

    fn of(parts: &Parts, rig: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let initrd = rig.join(format!("guest-{}.cpio", parts.hash()?));
        if !initrd.exists() {
            let tree = tempfile::tempdir_in(rig)?;
            parts.lay_out(&tree.path().join("root"), source)?;
            pack(&tree.path().join("root"), &tree.path().join("cpio"))?;
            fs::rename(tree.path().join("cpio"), &initrd)?;
        }
        Ok(Self {
            kernel: parts.kernel.clone(),
            initrd,
        })
    }
}

/// Where the rigs keep what is built once.
pub fn directory() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rig");
    path.canonicalize()
        .with_context(|| format!("no {}: run `make setup`", path.display()))
}

/// What the image is made of, besides the sources in this directory.
struct Parts {
    kernel: PathBuf,
    drivers: PathBuf,
    machine: Vec<PathBuf>,
    disks: Vec<PathBuf>,
    work: PathBuf,
    /// Where each comes from, and where it goes.
    programs: Vec<(PathBuf, PathBuf)>,
}

impl Parts {
    fn find(unpacked: &Path) -> Result<Self> {
        let missing = || format!("no {}: run `make setup`", unpacked.display());
        let releases = fs::read_dir(unpacked.join("lib/modules")).with_context(missing)?;
        let release = releases.last().with_context(missing)??.file_name();
        let release = release.to_str().context("a kernel release in ASCII")?;
        let drivers = unpacked.join("lib/modules").join(release).join("kernel");
        let parts = Self {
            kernel: unpacked
                .join(format!("boot/vmlinuz-{release}"))
                .canonicalize()?,
            machine: MACHINE.map(|name| module(&drivers, name)).to_vec(),
            disks: vec![module(&drivers, DISKS)],
            work: module(&drivers, WORK),
            drivers,
            programs: Vec::new(),
        };
        for file in parts.files() {
            ensure!(
                file.exists(),
                "{} is missing: run `make setup`",
                file.display()
            );
        }
        Ok(parts)
    }

    /// All that is copied as it is.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let modules = self.machine.iter().chain(&self.disks).chain([&self.work]);
        let programs = self.programs.iter().map(|(from, _)| from);
        modules
            .chain(programs)
            .map(PathBuf::as_path)
            .chain([Path::new(BUSYBOX)])
    }

    /// The agent, what it is linked with, and the driver of its port.
    fn add_agent(&mut self, agent: &Path) -> Result<()> {
        let missing = || format!("no {}: run `make setup`", agent.display());
        ensure!(agent.exists(), missing());
        let linked = run(Command::new("ldd").arg(agent)).with_context(missing)?;
        let absolute = |word: &&str| word.starts_with('/');
        let libraries = linked.split_ascii_whitespace().filter(absolute);
        self.programs = libraries
            .map(|library| (library.into(), library.trim_start_matches('/').into()))
            .chain([(agent.to_owned(), "bin/qemu-ga".into())])
            .collect();
        self.disks.push(module(&self.drivers, PORT));
        Ok(())
    }

    fn hash(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for text in [INIT, POWER, WRITER, RECORD] {
            hash.update(text);
        }
        for name in APPLETS {
            hash.update(name);
        }
        for file in self.files() {
            hash.update(fs::read(file)?);
        }
        Ok(hash.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    fn lay_out(&self, root: &Path, source: &Path) -> Result<()> {
        for dir in [
            "bin",
            "dev",
            "proc",
            "sys",
            "run",
            "files",
            "modules",
            "etc/acpi/PWRF",
        ] {
            fs::create_dir_all(root.join(dir))?;
        }
        for (from, to) in &self.programs {
            let to = root.join(to);
            fs::create_dir_all(to.parent().context("a directory")?)?;
            fs::copy(from, to)?;
        }
        write_program(&root.join("init"), INIT)?;
        write_program(&root.join("etc/acpi/PWRF/00000080"), POWER)?;
        fs::copy(BUSYBOX, root.join("bin/busybox"))?;
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet))?;
        }
        let modules = root.join("modules");
        copy_modules(&self.machine, &modules, "machine")?;
        copy_modules(&self.disks, &modules, "disks")?;
        let work = self.work.file_name().context("a module's name")?;
        fs::copy(&self.work, modules.join(work))?;
        compile_writer(source, &root.join("bin/guest-writer"))
    }
}

fn module(drivers: &Path, name: &str) -> PathBuf {
    drivers.join(format!("{name}.ko"))
}

/// With a file of their names, in the order in which they are loaded.
fn copy_modules(from: &[PathBuf], to: &Path, list: &str) -> Result<()> {
    let mut order = String::new();
    for module in from {
        let name = module.file_name().context("a module's name")?;
        fs::copy(module, to.join(name))?;
        order += &format!("{}\n", module.file_stem().unwrap_or(name).display());
    }
    Ok(fs::write(to.join(list), order)?)
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

fn compile_writer(source: &Path, to: &Path) -> Result<()> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .current_dir(source)
        .args(["--edition", "2024", "-O", "-C", "panic=abort"]);
    command.args([
        "-C",
        "target-feature=+crt-static",
        "-C",
        "strip=symbols",
        "-o",
    ]);
    run(command.arg(to).arg("src/bin/guest-writer.rs")).context("compiling the guest's writer")?;
    Ok(())
}
