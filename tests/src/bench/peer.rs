//! The named peer: one virsh that stays open, so that its start is not counted, and `rm`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{DISK, Round, fill};
use crate::guest::acks::AckLog;
use crate::qmp::Qmp;
use crate::rig::{Guest, Rig};

/// A guest of its own, merged by virsh.
pub(super) struct Peer {
    virsh: OpenVirsh,
    monitor: Qmp,
    guest: Guest,
    rounds: u32,
    rig: Rig,
}

impl Peer {
    pub(super) async fn begin() -> Result<Self> {
        let (rig, guest, monitor) = super::boot().await?;
        let virsh = OpenVirsh::start(&rig.virsh().uri())?;
        Ok(Self {
            virsh,
            monitor,
            guest,
            rounds: 0,
            rig,
        })
    }

    /// Puts an overlay on, fills it, and merges it: from the command to the file's end.
    pub(super) async fn round(&mut self, mib: u64) -> Result<Round> {
        self.rounds += 1;
        let overlay = self.rig.images().join(format!("peer-{}", self.rounds));
        let name = &self.guest.spec.name;
        self.virsh.call(&format!(
            "snapshot-create-as {name} --no-metadata --disk-only --atomic \
             --diskspec {DISK},snapshot=external,file={}",
            overlay.display()
        ))?;
        fill(&mut self.monitor, &overlay, mib)?;
        let mark = self.guest.acks.mark();
        let begun = Instant::now();
        self.virsh.call(&format!(
            "blockcommit {name} {DISK} --active --shallow --pivot --wait"
        ))?;
        std::fs::remove_file(&overlay)?;
        let took = begun.elapsed();
        self.check(&overlay)?;
        let stall = stall_since(&self.guest.acks, mark).await?;
        Ok(Round { took, stall })
    }

    /// virsh prints its failures among its texts: the chain tells.
    fn check(&mut self, gone: &Path) -> Result<()> {
        let disks = self
            .virsh
            .call(&format!("domblklist {}", self.guest.spec.name))?;
        let base = self.guest.spec.disks[0].path.display().to_string();
        ensure!(
            disks.contains(&base) && !disks.contains(&gone.display().to_string()),
            "virsh has not pivoted: {disks}"
        );
        Ok(())
    }
}

/// The longest gap between two acknowledgements, once there are some after the end.
pub(super) async fn stall_since(acks: &AckLog, mark: crate::guest::acks::Mark) -> Result<Duration> {
    acks.wait_for_more(DISK, 3, super::LIMIT).await?;
    Ok(acks.longest_gap_since(DISK, mark))
}

/// A virsh that reads commands.
struct OpenVirsh {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    calls: u32,
}

impl OpenVirsh {
    fn start(uri: &str) -> Result<Self> {
        let mut child = Command::new("virsh")
            .args(["-c", uri])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting virsh")?;
        let input = child.stdin.take().context("virsh takes commands")?;
        let output = child.stdout.take().context("virsh answers")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
            calls: 0,
        })
    }

    /// Runs a command and returns when virsh takes the next one.
    fn call(&mut self, command: &str) -> Result<String> {
        self.calls += 1;
        let done = format!("done-{}", self.calls);
        // The empty line brings a prompt, which makes virsh flush what it has printed.
        self.input
            .write_all(format!("{command}\necho {done}\n\n").as_bytes())?;
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                bail!("virsh ended: {said}");
            }
            if line.starts_with(&done) {
                return Ok(said);
            }
            said.push_str(&line);
        }
    }
}

impl Drop for OpenVirsh {
    fn drop(&mut self) {
        // It may have ended already; the wait tells.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
