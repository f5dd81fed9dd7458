//! A libvirtd of a rig's own, which the agent and virsh can use at once, and which can be killed
//! while its virtual machines go on.
//!
//! ```text
//!   anchor (sleep)  holds a mount namespace in which RIG/d/{run,lib,cache,etc} lie over /run,
//!                   /var/lib, /var/cache and /etc/libvirt: no other libvirt of this machine is met
//!   libvirtd        enters it; its next life finds what the last one left
//! ```

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use uuid::Uuid;

const START: Duration = Duration::from_secs(60);

/// The daemon. Its machines' QEMUs are ended by the rig.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    anchor: Child,
    libvirtd: Option<Child>,
}

impl Daemon {
    /// Starts it in this directory, with this configuration of the QEMU driver.
    pub(crate) fn start(dir: PathBuf, qemu_conf: &str) -> Result<Self> {
        for sub in ["run", "lib", "cache", "etc"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("etc/qemu.conf"), qemu_conf)?;
        let settings = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nhost_uuid = \"{}\"\n",
            dir.display(),
            // Two of them on this machine are two hosts.
            Uuid::new_v4()
        );
        fs::write(dir.join("libvirtd.conf"), settings)?;
        let anchor = anchor(&dir)?;
        let mut daemon = Self {
            dir,
            anchor,
            libvirtd: None,
        };
        daemon.live()?;
        Ok(daemon)
    }

    /// Starts libvirtd, for the first time or again, and waits until it listens.
    pub fn live(&mut self) -> Result<()> {
        let log = File::create(self.dir.join("libvirtd.log"))?;
        let child = Command::new("nsenter")
            .arg(format!("--mount=/proc/{}/ns/mnt", self.anchor.id()))
            .arg("libvirtd")
            .arg("-f")
            .arg(self.dir.join("libvirtd.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting libvirtd in its namespace")?;
        self.libvirtd = Some(child);
        let begun = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            if begun.elapsed() > START {
                let log = fs::read_to_string(self.dir.join("libvirtd.log"))?;
                bail!("libvirtd does not listen: {log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends libvirtd with SIGKILL. Its machines go on.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut libvirtd) = self.libvirtd.take() {
            libvirtd.kill()?;
            libvirtd.wait()?;
        }
        let _it_may_be_gone = fs::remove_file(self.socket());
        Ok(())
    }

    /// Ends libvirtd as a power cut does: what it had in `/run` is gone, too. Its machines must have
    /// been ended.
    pub(crate) fn lose_power(&mut self) -> Result<()> {
        self.kill()?;
        for entry in fs::read_dir(self.dir.join("run"))? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// libvirt's URI for it.
    pub(crate) fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("libvirt-sock")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("libvirtd did not end: {error:#}");
        }
        // Both fail only for a process that has ended.
        let _ = self.anchor.kill();
        let _ = self.anchor.wait();
    }
}

/// A process that holds the namespace; it is there when the mounts are.
fn anchor(dir: &Path) -> Result<Child> {
    let script = "mount --bind \"$0/run\" /run; mount --bind \"$0/lib\" /var/lib
        mount --bind \"$0/cache\" /var/cache; mkdir -p /etc/libvirt
        mount --bind \"$0/etc\" /etc/libvirt; touch \"$0/mounted\"; exec sleep infinity";
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .arg(dir)
        .stdin(Stdio::null())
        .spawn()
        .context("making a mount namespace")?;
    let begun = Instant::now();
    while !dir.join("mounted").exists() {
        if begun.elapsed() > START {
            bail!("no mount namespace can be made: this needs root");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}
