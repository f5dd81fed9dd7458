//! A host whose machine QEMU emulates, and its files' server.

use crate::image::HostImage;
use crate::machine::{Processes, VirtualHost, disk, spawn};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Part of Debian's QEMU.
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";
const LISTENS: Duration = Duration::from_secs(20);
/// The processor's clock can be read without leaving it, where there is one alone.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc";

pub(crate) fn start(host: &VirtualHost, dir: &Path) -> Result<Processes> {
    let image = HostImage::emulated()?;
    let socket = dir.join("root.socket");
    let mut processes = Processes(vec![files(dir, &socket)?]);
    wait_for(&socket)?;
    processes.0.insert(0, machine(host, &image, dir, &socket)?);
    Ok(processes)
}

fn files(dir: &Path, socket: &Path) -> Result<Child> {
    let mut files = Command::new(VIRTIOFSD);
    files
        .arg("-f")
        .arg(format!("--socket-path={}", socket.display()));
    files.args([
        "-o",
        "source=/",
        "-o",
        "cache=always",
        "-o",
        "sandbox=chroot",
    ]);
    spawn(&mut files, &dir.join("files.log"))
}

fn wait_for(socket: &Path) -> Result<()> {
    let until = Instant::now() + LISTENS;
    while !socket.exists() {
        if Instant::now() > until {
            bail!("no {} after {LISTENS:?}", socket.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn machine(host: &VirtualHost, image: &HostImage, dir: &Path, socket: &Path) -> Result<Child> {
    let port = |name: &str| format!("file:{}", dir.join(name).display());
    let memory = host.memory_mib;
    let script = dir.join("host.sh");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ])
    .args(["-machine", "q35,hpet=off", "-cpu", "max,+invtsc"])
    .args(["-accel", "tcg", "-smp", &host.processors.to_string()])
    .args(["-m", &format!("{memory}M")])
    .args([
        "-object",
        &format!("memory-backend-memfd,id=memory,size={memory}M,share=on"),
    ])
    .args(["-numa", "node,memdev=memory"])
    .arg("-kernel")
    .arg(&image.kernel)
    .arg("-initrd")
    .arg(&image.initrd)
    .args([
        "-append",
        &format!("{KERNEL} host.script={}", script.display()),
    ])
    .args([
        "-chardev",
        &format!("socket,id=root,path={}", socket.display()),
    ])
    .args(["-device", "vhost-user-fs-pci,chardev=root,tag=root"]);
    for name in ["console", "output", "code"] {
        qemu.args(["-serial", &port(name)]);
    }
    for number in 0..host.disks_mib.len() {
        let drive = format!(
            "file={},id=disk{number},if=none,format=raw,cache=unsafe,discard=unmap",
            disk(dir, number).display()
        );
        qemu.args(["-drive", &drive]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive=disk{number}")]);
    }
    spawn(&mut qemu, &dir.join("machine.log"))
}
