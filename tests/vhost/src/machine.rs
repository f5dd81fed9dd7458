//! One virtual host, from its start to the end of its program.

use crate::{emulated, user_mode};
use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Set in a virtual host, so that a test's binary knows where it runs.
const HERE: &str = "LIVEMERGE_VIRTUAL_HOST";
const HOST: &str = include_str!("host.sh");
/// How long it may take to end by itself when it is asked to: a kernel that is a program leaves its own
/// processes behind when it is killed, and one that still starts on a busy machine takes its time.
const STOP: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether this process runs in a virtual host.
pub fn is_here() -> bool {
    std::env::var_os(HERE).is_some()
}

/// What runs a virtual host's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is a program of this machine's. It needs filters of system calls, or `ptrace`, and has one processor.
    UserMode,
    /// QEMU's emulator, which runs everywhere.
    Emulated,
}

/// What a virtual host has.
#[derive(Debug, Clone)]
pub struct VirtualHost {
    /// What is tried, one after the other, until one starts.
    pub kinds: Vec<Kind>,
    /// Its memory.
    pub memory_mib: u64,
    /// How many processors it has, if it is emulated. With one it is a third faster, for work that is
    /// done one after the other.
    pub processors: u32,
    /// The sizes of its disks: /dev/vda, /dev/vdb and so on, four at most, all zeros and sparse.
    pub disks_mib: Vec<u64>,
    /// How long its program may take, its start included.
    pub limit: Duration,
    /// Where its files are while it runs: not under /tmp, which is another one in there.
    pub place: PathBuf,
    /// Whether what its program prints is printed here as well, as it comes.
    pub echo: bool,
}

/// A program that has come to its end.
#[derive(Debug)]
pub struct Ended {
    /// What it printed, on both of its outputs.
    pub output: String,
    /// Its exit code.
    pub code: i32,
}

impl Default for VirtualHost {
    fn default() -> Self {
        Self {
            kinds: vec![Kind::UserMode, Kind::Emulated],
            memory_mib: 1024,
            processors: 1,
            disks_mib: vec![4096],
            limit: Duration::from_secs(300),
            place: "/var/tmp".into(),
            echo: false,
        }
    }
}

impl VirtualHost {
    /// Runs the test of this name again in a virtual host, and fails as it does. Returns whether
    /// this is the virtual host: then the test itself is due.
    ///
    /// # Errors
    /// When the virtual host does not start, or the test fails there.
    pub fn run_this_test(&self, test: &str) -> Result<bool> {
        if is_here() {
            return Ok(true);
        }
        let program = std::env::current_exe()?;
        let ended = self.run(
            &program,
            &["--exact", test, "--nocapture", "--test-threads=1"],
        )?;
        println!("{}", ended.output);
        if ended.code != 0 || !ended.output.contains("test result: ok. 1 passed") {
            bail!("{test} ended with {} in its virtual host", ended.code);
        }
        Ok(false)
    }

    /// Starts a host, runs a program of this machine's to its end, and ends the host.
    ///
    /// # Errors
    /// When it does not start, or has not ended within its limit; with what it said last.
    pub fn run(&self, program: &Path, args: &[&str]) -> Result<Ended> {
        let words = args.iter().map(|arg| quoted(arg));
        let words: Vec<_> = [quoted(&program.display().to_string())]
            .into_iter()
            .chain(words)
            .collect();
        self.script(&format!("exec {}", words.join(" ")))
    }

    /// The same for a shell script. The variables whose names begin with `LIVEMERGE_` are set there, too.
    ///
    /// # Errors
    /// As for [`VirtualHost::run`].
    pub fn script(&self, script: &str) -> Result<Ended> {
        let mut why = String::new();
        for kind in &self.kinds {
            match self.attempt(*kind, script)? {
                Attempt::Ended(ended) => return Ok(ended),
                Attempt::NotStarted(said) => {
                    println!("no virtual host of the kind {kind:?}: {said}");
                    why += &format!("{kind:?}: {said}\n");
                }
            }
        }
        bail!("no virtual host starts\n{why}")
    }

    fn attempt(&self, kind: Kind, script: &str) -> Result<Attempt> {
        let dir = tempfile::Builder::new()
            .prefix("lmhost")
            .tempdir_in(&self.place)?;
        fs::write(dir.path().join("host.sh"), HOST)?;
        let ours = std::env::vars().filter(|(name, _)| name.starts_with("LIVEMERGE_"));
        let ours = ours.map(|(name, value)| format!("export {name}={}\n", quoted(&value)));
        let ours: String = ours.collect();
        let script = format!("{ours}export {HERE}=yes\ncd /var/tmp\n{script}\n");
        fs::write(dir.path().join("program.sh"), script)?;
        for (number, mib) in self.disks_mib.iter().enumerate() {
            File::create(disk(dir.path(), number))?.set_len(mib << 20)?;
        }
        let started = match kind {
            Kind::UserMode => user_mode::start(self, dir.path()),
            Kind::Emulated => emulated::start(self, dir.path()),
        };
        match started {
            Ok(processes) => Running { processes, dir }.end(self),
            Err(error) => Ok(Attempt::NotStarted(format!("{error:#}"))),
        }
    }
}

enum Attempt {
    Ended(Ended),
    /// And what was said.
    NotStarted(String),
}

/// The file of a disk.
pub(crate) fn disk(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("disk{number}"))
}

/// Starts a process of a host, which says what it has to say to a file.
pub(crate) fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let log = File::create(log)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    let program = command.get_program().display().to_string();
    child.with_context(|| format!("starting {program}: run `make setup`"))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The processes of a host, the machine first. They are ended when they are dropped.
pub(crate) struct Processes(pub(crate) Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for process in &mut self.0 {
            end(process);
        }
    }
}

struct Running {
    processes: Processes,
    dir: TempDir,
}

impl Running {
    fn end(mut self, host: &VirtualHost) -> Result<Attempt> {
        let until = Instant::now() + host.limit;
        let mut echoed = 0;
        loop {
            let ended = self.processes.0[0].try_wait()?.is_some();
            if host.echo {
                let output = self.file("output");
                print!("{}", output.get(echoed..).unwrap_or_default());
                std::io::stdout().flush()?;
                echoed = output.len();
            }
            if ended {
                break;
            }
            if Instant::now() > until {
                bail!("no end after {:?}\n{}", host.limit, self.said());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        if !self.file("console").contains("started") {
            return Ok(Attempt::NotStarted(self.said()));
        }
        let code = self.file("code");
        let code = code.trim().parse();
        let code = code.with_context(|| format!("the virtual host broke down\n{}", self.said()))?;
        Ok(Attempt::Ended(Ended {
            output: self.file("output"),
            code,
        }))
    }

    fn said(&self) -> String {
        ["files.log", "machine.log", "console", "output"]
            .map(|name| self.file(name))
            .join("\n")
    }

    fn file(&self, name: &str) -> String {
        let said = fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }
}

/// A kernel that is a program ends its own processes when it is asked to.
fn end(process: &mut Child) {
    // The id of one that has ended may be another's by now.
    if !matches!(process.try_wait(), Ok(None)) {
        return;
    }
    let _ = kill_process(Pid::from_child(process), Signal::TERM);
    let until = Instant::now() + STOP;
    while matches!(process.try_wait(), Ok(None)) && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = process.kill();
    let _ = process.wait();
}
