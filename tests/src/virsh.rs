//! libvirt without a daemon, one command at a time.
//!
//! `qemu:///embed?root=DIR` runs libvirt's QEMU driver inside virsh. Its virtual machines outlive
//! the command, and the next owner of the root finds them. A root has **one owner at a time**: while
//! an agent has it open, virsh is refused, and so is an agent while virsh runs.
//!
//! ```text
//! DIR/etc/qemu.conf                               configuration
//! DIR/run/qemu/NAME.pid                           QEMU's process id
//! DIR/log/qemu/NAME.log                           QEMU's command line and complaints
//! DIR/lib/qemu/domain-ID-NAME/monitor.sock        QEMU's monitor
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{run, wait_for_end};

/// The state of a domain that does not run, in virsh's words.
const OFF: &str = "shut off";
/// How long a guest may take to go off.
const END: Duration = Duration::from_secs(20);
/// An emulated guest misses a press of its button now and then, on a busy machine more often.
const PRESSES: u32 = 4;
const POLL: Duration = Duration::from_millis(50);
/// The longest path of a Unix socket, in bytes.
const SOCKET_PATH_BYTES: usize = 107;
/// libvirt cuts a name to this length in the paths of its sockets.
const SHORT_NAME_CHARS: usize = 20;

/// Without a daemon there is none to keep the logs, and QEMU runs as the one who starts it. It may
/// start a program: the one that reads it its saved memory.
pub(crate) const CONFIGURATION: &str = r#"stdio_handler = "file"
user = "root"
group = "root"
dynamic_ownership = 0
namespaces = []
cgroup_controllers = []
seccomp_sandbox = 0
"#;

/// Commands to the libvirt of one root directory.
#[derive(Debug, Clone)]
pub struct Virsh {
    uri: String,
    /// Where libvirt keeps the process ids of its QEMUs.
    pids: PathBuf,
    /// What the command line of each QEMU of it names.
    root: PathBuf,
}

impl Virsh {
    /// The libvirt under `root`, an absolute path. Writes the configuration, which the next owner
    /// of the root, an agent say, reads as well.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        ensure!(
            root.is_absolute(),
            "{} is not absolute, as libvirt wants it",
            root.display()
        );
        fs::create_dir_all(root.join("etc"))?;
        fs::write(root.join("etc/qemu.conf"), CONFIGURATION)?;
        Ok(Self {
            uri: format!("qemu:///embed?root={}", root.display()),
            pids: root.join("run/qemu"),
            root,
        })
    }

    /// The libvirt of a daemon, whose machines have their files under `root`.
    pub(crate) fn of_daemon(uri: String, pids: PathBuf, root: PathBuf) -> Self {
        Self { uri, pids, root }
    }

    /// The connection's URI, for an agent under test.
    pub fn uri(&self) -> String {
        self.uri.clone()
    }

    /// Runs one virsh command and returns what it printed.
    pub fn call(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("virsh")
            .args(["-q", "-c", &self.uri()])
            .args(arguments))
        .with_context(|| format!("virsh {}", arguments.join(" ")))
    }

    /// Defines and starts a domain.
    pub fn start(&self, name: &str, xml: &Path) -> Result<()> {
        self.check_socket_path(name)?;
        let xml = xml.to_str().context("a path in UTF-8")?;
        self.call(&["define", xml])?;
        self.call(&["start", name])?;
        Ok(())
    }

    /// The domain's state, in virsh's words (`running`, `shut off`, ...).
    pub fn state(&self, name: &str) -> Result<String> {
        Ok(self.call(&["domstate", name])?.trim().to_owned())
    }

    /// The live XML of a running domain, the defined one of another.
    pub fn dumpxml(&self, name: &str) -> Result<String> {
        self.call(&["dumpxml", name])
    }

    /// A QEMU's command line and complaints; nothing of one that a daemon has started, which keeps its own
    /// logs.
    pub fn log(&self, name: &str) -> String {
        let path = self.root.join(format!("log/qemu/{name}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// What libvirt has written down of a running domain for its own next start. libvirt need not
    /// run.
    pub fn written_xml(&self, name: &str) -> Result<String> {
        let path = self.pids.join(format!("{name}.xml"));
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The image from which a domain's next start takes a disk (`vda`).
    pub fn next_image(&self, name: &str, disk: &str) -> Result<String> {
        let table = self.call(&["domblklist", name, "--inactive"])?;
        let row = table
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(disk));
        let image = row.map(|image| image.trim().to_owned());
        image.with_context(|| format!("{name} has no disk {disk}: {table}"))
    }

    /// Puts an overlay on each of the disks in one step: pairs of target (`vda`) and the new file.
    /// libvirt keeps no record of the snapshot.
    pub fn snapshot(&self, name: &str, overlays: &[(&str, &Path)]) -> Result<()> {
        let specs: Vec<String> = overlays
            .iter()
            .map(|(disk, file)| format!("{disk},snapshot=external,file={}", file.display()))
            .collect();
        let mut call = vec![
            "snapshot-create-as",
            name,
            "--no-metadata",
            "--disk-only",
            "--atomic",
        ];
        for spec in &specs {
            call.extend(["--diskspec", spec]);
        }
        self.call(&call)?;
        Ok(())
    }

    /// Commits a disk's active layer into the one below, pivots, and returns when it is done.
    pub fn commit_and_pivot(&self, name: &str, disk: &str) -> Result<()> {
        let commit = [
            "blockcommit",
            name,
            disk,
            "--active",
            "--shallow",
            "--pivot",
            "--wait",
        ];
        self.call(&commit)?;
        Ok(())
    }

    /// Ends a domain as pulling the plug does.
    pub fn destroy(&self, name: &str) -> Result<()> {
        let destroyed = self.call(&["destroy", name]);
        // QEMU's end may reach libvirt before the command sees it, which then says that there is
        // nothing to destroy.
        if self.state(name)? == OFF {
            Ok(())
        } else {
            destroyed.map(drop)
        }
    }

    /// Presses a domain's power button and returns when the guest has gone off by itself. libvirt
    /// has to be there to see it, or a QEMU stays that runs no guest.
    pub fn power_off(&self, name: &str) -> Result<()> {
        let limit = format!("--timeout {}", END.as_secs());
        let qemu = self.qemu_pid(name)?;
        let press = format!("shutdown {name} --mode acpi; event {name} lifecycle {limit}");
        let mut left = PRESSES;
        while let Err(error) = self.call(&[&press]) {
            left -= 1;
            ensure!(left > 0, "{name} does not go off: {error:#}");
            if self.state(name)? == OFF {
                break;
            }
        }
        wait_for_end(qemu)?;
        let limit = Instant::now() + END;
        loop {
            let state = self.state(name)?;
            if state == OFF {
                return Ok(());
            }
            ensure!(
                Instant::now() < limit,
                "{name} is still {state} after {END:?}"
            );
            thread::sleep(POLL);
        }
    }

    /// The process id of a domain's QEMU, as libvirt wrote it down.
    pub fn qemu_pid(&self, name: &str) -> Result<Pid> {
        read_pid(&self.pids.join(format!("{name}.pid")))
    }

    /// Kills a domain's QEMU (SIGKILL) and returns when it is dead. libvirt is not asked and need
    /// not run.
    pub fn kill_qemu(&self, name: &str) -> Result<()> {
        let pid = self.qemu_pid(name)?;
        ensure!(
            self.is_qemu(pid),
            "the process {pid:?} is not the QEMU of {name}"
        );
        kill_process(pid, Signal::KILL)?;
        wait_for_end(pid)
    }

    /// The QEMU processes of this root that are alive: machines, and those that libvirt asked what
    /// they can do when it was killed.
    pub fn running_qemus(&self) -> Vec<Pid> {
        let paths = |dir: &Path| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let asked = paths(&self.root.join("lib/qemu")).into_iter();
        let asked = asked.map(|dir| dir.join("qmp.pid"));
        paths(&self.pids)
            .into_iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "pid"))
            .chain(asked)
            .filter_map(|path| read_pid(&path).ok())
            .filter(|pid| self.is_qemu(*pid))
            .collect()
    }

    /// Whether the process is a QEMU of this root: a process id may have been used again.
    fn is_qemu(&self, pid: Pid) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let program = line.split('\0').next().unwrap_or_default();
        program.contains("qemu-system") && line.contains(&*self.root.to_string_lossy())
    }

    fn check_socket_path(&self, name: &str) -> Result<()> {
        if !self.uri.starts_with("qemu:///embed") {
            return Ok(());
        }
        let short: String = name.chars().take(SHORT_NAME_CHARS).collect();
        let socket = self
            .root
            .join(format!("lib/qemu/domain-9999-{short}/monitor.sock"));
        let bytes = socket.as_os_str().len();
        ensure!(
            bytes <= SOCKET_PATH_BYTES,
            "QEMU's monitor would be at {}: {bytes} bytes, and a Unix socket's path has at most \
             {SOCKET_PATH_BYTES}. Choose a shorter root directory",
            socket.display()
        );
        Ok(())
    }
}

fn read_pid(path: &Path) -> Result<Pid> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    pid.with_context(|| format!("{} holds no process id", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_is_too_long_for_sockets_is_refused_before_libvirt_is_asked() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().join("x".repeat(60));
        let refused = Virsh::new(root)?.start("a-virtual-machine", Path::new("/missing.xml"));
        let said = refused
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(said.contains("at most 107"), "{said}");
        Ok(())
    }

    #[test]
    fn a_process_that_is_no_qemu_of_the_root_is_left_alone() -> Result<()> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("run/qemu"))?;
        fs::write(
            dir.path().join("run/qemu/vm.pid"),
            std::process::id().to_string(),
        )?;
        let virsh = Virsh::new(dir.path())?;
        assert!(virsh.qemu_pid("vm").is_ok());
        assert_eq!(virsh.running_qemus(), []);
        Ok(())
    }

    #[test]
    fn a_failed_command_says_what_virsh_said() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let failed = Virsh::new(dir.path())?.state("missing");
        let said = failed
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        assert!(said.contains("failed to get domain 'missing'"), "{said}");
        Ok(())
    }
}
