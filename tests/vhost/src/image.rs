//! What a virtual host boots from: the kernel that `make setup` unpacks, and a small initramfs.

use crate::initramfs::pack;
use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const BUSYBOX: &str = "/bin/busybox";
const INIT: &str = include_str!("init.sh");
/// In the order of their dependencies.
const MODULES: [&str; 14] = [
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

/// A kernel and its first file system.
#[derive(Debug, Clone)]
pub struct HostImage {
    /// The kernel (vmlinuz).
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
}

impl HostImage {
    /// Builds the image, or finds the one that was built before. Its name holds a hash of what goes
    /// in.
    ///
    /// # Errors
    /// With what to do when something of the machine is missing.
    pub fn build() -> Result<Self> {
        let rig = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/rig");
        let missing = || format!("no {}: run `make setup`", rig.display());
        let rig = rig.canonicalize().with_context(missing)?;
        let releases = fs::read_dir(rig.join("kernel/lib/modules")).with_context(missing)?;
        let release = releases.last().with_context(missing)??.file_name();
        let release = release.to_str().context("a kernel release in ASCII")?;
        let drivers = rig.join("kernel/lib/modules").join(release).join("kernel");
        let modules = MODULES.map(|name| drivers.join(format!("{name}.ko")));
        let initrd = rig.join(format!("host-{}.cpio", hash(&modules)?));
        if !initrd.exists() {
            let tree = tempfile::tempdir_in(&rig)?;
            lay_out(&tree.path().join("root"), &modules)?;
            pack(&tree.path().join("root"), &tree.path().join("cpio"))?;
            fs::rename(tree.path().join("cpio"), &initrd)?;
        }
        let kernel = rig.join(format!("kernel/boot/vmlinuz-{release}"));
        Ok(Self { kernel, initrd })
    }
}

fn hash(modules: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(INIT);
    for file in modules
        .iter()
        .map(PathBuf::as_path)
        .chain([Path::new(BUSYBOX)])
    {
        ensure!(
            file.exists(),
            "{} is missing: run `make setup`",
            file.display()
        );
        hash.update(fs::read(file)?);
    }
    let hash = hash.finalize();
    Ok(hash[..8].iter().map(|byte| format!("{byte:02x}")).collect())
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
