//! Running the commands that a rig is made of, and seeing processes end.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const END: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// Runs a command to its end and returns what it printed. What it said on standard error becomes
/// the error when it fails.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {name}: run `make setup`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} failed ({}): {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed no UTF-8"))
}

/// Waits until a process, which need not be a child, is dead with all its threads: until then a
/// QEMU keeps the locks of its images.
pub fn wait_for_end(pid: Pid) -> Result<()> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        opened => opened?,
    };
    let mut ends = [PollFd::new(&process, PollFlags::IN)];
    let ended = poll(&mut ends, Some(&END))?;
    ensure!(ended > 0, "process {pid:?} lives on after {} s", END.tv_sec);
    Ok(())
}
