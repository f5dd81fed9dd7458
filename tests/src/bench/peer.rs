//! The named peer: one virsh that stays open, so that its start is not counted, and `rm`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::watch::{Round, Watch};
use super::{DISK, Region, fill};
use crate::guest::domain::Workload;
use crate::qmp::Qmp;
use crate::rig::{Guest, Rig};

/// A guest of its own, merged by virsh.
pub(super) struct Peer {
    virsh: OpenVirsh,
    monitor: Qmp,
    guest: Guest,
    layers: u32,
    rig: Rig,
}

impl Peer {
    pub(super) async fn begin(workload: Workload) -> Result<Self> {
        let (rig, guest, monitor) = super::boot(&[DISK], workload).await?;
        let virsh = OpenVirsh::start(&rig.virsh().uri())?;
        Ok(Self {
            virsh,
            monitor,
            guest,
            layers: 0,
            rig,
        })
    }

    /// Puts an overlay on and fills it.
    pub(super) fn layer(&mut self, region: Region) -> Result<PathBuf> {
        self.layers += 1;
        let overlay = self.rig.images().join(format!("peer-{}", self.layers));
        self.virsh.call(&format!(
            "snapshot-create-as {} --no-metadata --disk-only --atomic \
             --diskspec {DISK},snapshot=external,file={}",
            self.guest.spec.name,
            overlay.display()
        ))?;
        fill(&mut self.monitor, 0, &overlay, region)?;
        Ok(overlay)
    }

    /// Puts a layer on and merges it.
    pub(super) async fn round(&mut self, mib: u64) -> Result<Round> {
        let overlay = self.layer(Region::of(mib))?;
        self.merge(&[overlay]).await
    }

    /// Merges all layers, oldest first, one by one: that way virsh copies least, each layer once.
    /// The last one is the active one. From the first command to the last file's end.
    pub(super) async fn merge(&mut self, layers: &[PathBuf]) -> Result<Round> {
        let (active, frozen) = layers.split_last().context("nothing to merge")?;
        let name = &self.guest.spec.name;
        let base = self.guest.spec.disks[0].path.display();
        let watch = Watch::begin(&self.rig, &self.guest)?;
        for layer in frozen {
            let top = layer.display();
            self.virsh.call(&format!(
                "blockcommit {name} {DISK} --base {base} --top {top} --wait"
            ))?;
            std::fs::remove_file(layer)?;
        }
        self.virsh.call(&format!(
            "blockcommit {name} {DISK} --active --shallow --pivot --wait"
        ))?;
        std::fs::remove_file(active)?;
        let round = watch.end().await?;
        self.check(layers)?;
        Ok(round)
    }

    /// virsh prints its failures among its texts: the chain tells.
    fn check(&mut self, gone: &[PathBuf]) -> Result<()> {
        let xml = self
            .virsh
            .call(&format!("dumpxml {}", self.guest.spec.name))?;
        let has = |image: &Path| xml.contains(&format!("file='{}'", image.display()));
        ensure!(
            has(&self.guest.spec.disks[0].path) && !gone.iter().any(|image| has(image)),
            "virsh has not merged all: {xml}"
        );
        Ok(())
    }
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
