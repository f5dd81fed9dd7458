//! What a virtual host boots from: a kernel that `make setup` unpacks, and a small initramfs.
//!
//! ```text
//! target/rig/user-mode/            a kernel that is a program of this machine's
//! target/rig/kernel/               a kernel for an emulated machine
//! target/rig/host-HASH.cpio        built here for each, once for each content
//! target/rig/host-HASH.so          built here for the first: state.c
//! ```

use crate::initramfs::pack;
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const BUSYBOX: &str = "/bin/busybox";
const INIT: &str = include_str!("init.sh");
const STATE: &str = include_str!("state.c");
/// In the order of their dependencies.
const EMULATED: [&str; 14] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "fs/fuse/fuse",
    "fs/fuse/virtiofs",
    "fs/overlayfs/overlay",
    // The group's metadata have checksums; without them the device-mapper is not loaded.
    "arch/x86/crypto/crc32c-intel",
    "lib/libcrc32c",
    "drivers/md/dm-mod",
    "drivers/md/dm-bufio",
    "drivers/md/dm-snapshot",
];
/// What is not built into it.
const USER_MODE: [&str; 4] = [
    "fs/overlayfs/overlay",
    "drivers/md/dm-mod",
    "drivers/md/dm-bufio",
    "drivers/md/dm-snapshot",
];

/// A kernel and its first file system.
#[derive(Debug, Clone)]
pub struct HostImage {
    /// The kernel: vmlinuz, or a program.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
}

impl HostImage {
    /// For an emulated machine. Builds the image, or finds the one that was built before. Its name
    /// holds a hash of what goes in.
    ///
    /// # Errors
    /// With what to do when something of the machine is missing.
    pub fn emulated() -> Result<Self> {
        let rig = rig()?;
        let (release, drivers) = drivers(&rig.join("kernel/lib/modules"))?;
        Ok(Self {
            kernel: rig.join(format!("kernel/boot/vmlinuz-{release}")),
            initrd: initrd(&rig, &EMULATED.map(|name| drivers.join(name)))?,
        })
    }

    /// The same for a kernel that is a program.
    ///
    /// # Errors
    /// As for [`HostImage::emulated`].
    pub fn user_mode() -> Result<Self> {
        let rig = rig()?;
        let (_, drivers) = drivers(&rig.join("user-mode/usr/lib/uml/modules"))?;
        Ok(Self {
            kernel: rig.join("user-mode/usr/bin/linux.uml"),
            initrd: initrd(&rig, &USER_MODE.map(|name| drivers.join(name)))?,
        })
    }
}

/// What a kernel that is a program needs in front of the C library.
///
/// # Errors
/// When it cannot be compiled.
pub(crate) fn whole_state() -> Result<PathBuf> {
    let rig = rig()?;
    let library = rig.join(format!("host-{}.so", name(&[STATE.as_bytes()])));
    if !library.exists() {
        let dir = tempfile::tempdir_in(&rig)?;
        let (source, built) = (dir.path().join("state.c"), dir.path().join("state.so"));
        fs::write(&source, STATE)?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&built);
        let ended = gcc.arg(&source).output().context("starting gcc")?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "gcc failed: {said}");
        fs::rename(built, &library)?;
    }
    Ok(library)
}

fn rig() -> Result<PathBuf> {
    let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/rig");
    rig.canonicalize()
        .with_context(|| format!("no {}: run `make setup`", rig.display()))
}

/// A kernel's release, and where its drivers are.
fn drivers(modules: &Path) -> Result<(String, PathBuf)> {
    let missing = || format!("no {}: run `make setup`", modules.display());
    let releases = fs::read_dir(modules).with_context(missing)?;
    let release = releases.last().with_context(missing)??.file_name();
    let release = release.to_str().context("a kernel release in ASCII")?;
    let drivers = modules.join(release).join("kernel");
    Ok((release.to_owned(), drivers))
}

fn initrd(rig: &Path, modules: &[PathBuf]) -> Result<PathBuf> {
    let modules: Vec<_> = modules
        .iter()
        .map(|module| module.with_added_extension("ko"))
        .collect();
    let initrd = rig.join(format!("host-{}.cpio", hash(&modules)?));
    if !initrd.exists() {
        let tree = tempfile::tempdir_in(rig)?;
        lay_out(&tree.path().join("root"), &modules)?;
        pack(&tree.path().join("root"), &tree.path().join("cpio"))?;
        fs::rename(tree.path().join("cpio"), &initrd)?;
    }
    Ok(initrd)
}

fn hash(modules: &[PathBuf]) -> Result<String> {
    let mut parts = vec![INIT.as_bytes().to_vec()];
    let all = modules.iter().map(PathBuf::as_path);
    for file in all.chain([Path::new(BUSYBOX)]) {
        let missing = || format!("{} is missing: run `make setup`", file.display());
        parts.push(fs::read(file).with_context(missing)?);
    }
    let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
    Ok(name(&parts))
}

fn name(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    let hash = hash.finalize();
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lay_out(root: &Path, modules: &[PathBuf]) -> Result<()> {
    for dir in [
        "bin", "dev", "proc", "sys", "lower", "changes", "root", "modules",
    ] {
        fs::create_dir_all(root.join(dir))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    fs::copy(BUSYBOX, root.join("bin/busybox"))?;
    let mut order = String::new();
    for module in modules {
        let name = module.file_stem().and_then(|name| name.to_str());
        let name = name.context("a module's name")?;
        fs::copy(module, root.join(format!("modules/{name}.ko")))?;
        order += &format!("{name}\n");
    }
    fs::write(root.join("modules/order"), order)?;
    Ok(())
}
