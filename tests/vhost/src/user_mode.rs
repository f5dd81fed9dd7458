//! A host whose kernel is a program of this machine's: user-mode Linux.

use crate::image::{HostImage, whole_state};
use crate::machine::{Processes, VirtualHost, disk, spawn};
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Nothing is said but by the host's script, and the kernel when it breaks down.
const QUIET: [&str; 4] = ["quiet", "con=null", "con0=null,fd:1", "ssl=null"];

pub(crate) fn start(host: &VirtualHost, dir: &Path) -> Result<Processes> {
    let image = HostImage::user_mode()?;
    let mut kernel = Command::new(&image.kernel);
    kernel
        .env("LD_PRELOAD", whole_state()?)
        .arg(format!("mem={}M", host.memory_mib))
        .arg(format!("initrd={}", image.initrd.display()))
        .arg(format!("uml_dir={}/", dir.display()))
        .arg("umid=machine")
        .args(QUIET)
        .arg(format!("host.script={}", dir.join("host.sh").display()));
    for number in 0..host.disks_mib.len() {
        kernel.arg(format!("ubd{number}={}", disk(dir, number).display()));
    }
    Ok(Processes(vec![spawn(
        &mut kernel,
        &dir.join("machine.log"),
    )?]))
}
