//! A host whose kernel is a program of this machine's: user-mode Linux.

use crate::image::{HostImage, whole_state};
use crate::machine::{Processes, VirtualHost, disk, spawn};
use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity};
use std::path::Path;
use std::process::Command;

/// Nothing is said but by the host's script, and the kernel when it breaks down.
const QUIET: [&str; 4] = ["quiet", "con=null", "con0=null,fd:1", "ssl=null"];

/// What runs on it takes the longest of all that is tested. A kernel that shares its processors out by sessions
/// first, each guest's among them, gives one of its own a larger share; whoever may not ask for that goes on.
const IN_FRONT: &str =
    r#"echo -5 >/proc/self/autogroup; exec nice -n -5 taskset --cpu-list "$0" "$@""#;

pub(crate) fn start(host: &VirtualHost, dir: &Path) -> Result<Processes> {
    let image = HostImage::user_mode()?;
    let mut kernel = Command::new("setpriv");
    kernel
        // It is in nobody's process group, and ends with who has started it.
        .args(["--pdeathsig", "TERM", "setsid", "sh", "-c", IN_FRONT])
        .arg(processor()?.to_string())
        .arg(&image.kernel)
        .env("LD_PRELOAD", whole_state()?)
        .arg(format!("mem={}M", host.memory_mib))
        .arg(format!("initrd={}", image.initrd.display()))
        .arg(format!("uml_dir={}/", dir.display()))
        .arg("umid=machine")
        // Its processes make their calls of it themselves, where it and this machine's kernel can have that.
        .arg("seccomp=auto")
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

/// The one of this machine's processors that it stays on. Each system call of its processes goes to and
/// fro between two of this machine's: on two processors one of them sleeps and is woken each time, and
/// all takes four times as long.
fn processor() -> Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let allowed: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|number| allowed.is_set(*number))
        .collect();
    // Another one for another process, where there are several.
    let chosen = allowed
        .iter()
        .cycle()
        .nth(std::process::id() as usize % allowed.len().max(1));
    chosen.copied().context("a process runs on some processor")
}
