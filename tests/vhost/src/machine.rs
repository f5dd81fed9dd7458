//! One virtual host, from its start to the end of its program.

use crate::image::HostImage;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Set in a virtual host, so that a test's binary knows where it runs.
const HERE: &str = "LIVEMERGE_VIRTUAL_HOST";
const HOST: &str = include_str!("host.sh");
/// Part of Debian's QEMU.
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

/// The processor's clock can be read without leaving it, where there is one alone.
const KERNEL: &str = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc";

/// Whether this process runs in a virtual host.
pub fn is_here() -> bool {
    std::env::var_os(HERE).is_some()
}

/// What a virtual host has.
#[derive(Debug, Clone)]
pub struct VirtualHost {
    /// Its memory.
    pub memory_mib: u64,
    /// How many processors it has. With one it is a third faster, for work that is done one after the
    /// other.
    pub processors: u32,
    /// The sizes of its disks: /dev/vda, /dev/vdb and so on, all zeros and sparse.
    pub disks_mib: Vec<u64>,
    /// How long its program may take, its start included.
    pub limit: Duration,
    /// Where its files are while it runs: not under /tmp, which is another one in there.
    pub place: PathBuf,
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
            memory_mib: 1024,
            processors: 1,
            disks_mib: vec![4096],
            limit: Duration::from_secs(300),
            place: "/var/tmp".into(),
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
        let image = HostImage::build()?;
        let dir = tempfile::Builder::new()
            .prefix("lmhost")
            .tempdir_in(&self.place)?;
        fs::write(dir.path().join("host.sh"), HOST)?;
        let ours = std::env::vars().filter(|(name, _)| name.starts_with("LIVEMERGE_"));
        let ours = ours.map(|(name, value)| format!("export {name}={}\n", quoted(&value)));
        let ours: String = ours.collect();
        let script = format!("{ours}export {HERE}=yes\ncd /var/tmp\n{script}\n");
        fs::write(dir.path().join("program.sh"), script)?;
        let mut running = Running::start(self, &image, dir)?;
        running.end(self.limit)
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The processes of a host.
struct Running {
    machine: Child,
    files: Child,
    dir: TempDir,
}

impl Running {
    fn start(host: &VirtualHost, image: &HostImage, dir: TempDir) -> Result<Self> {
        let socket = dir.path().join("root.socket");
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
        let log = File::create(dir.path().join("virtiofsd.log"))?;
        let files = files
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let files =
            Guard(Some(files.with_context(|| {
                format!("starting {VIRTIOFSD}: run `make setup`")
            })?));
        wait_for(&socket)?;
        let machine = machine(host, image, dir.path(), &socket)?;
        Ok(Self {
            machine,
            files: files.keep(),
            dir,
        })
    }

    fn end(&mut self, limit: Duration) -> Result<Ended> {
        let until = Instant::now() + limit;
        while self.machine.try_wait()?.is_none() {
            if Instant::now() > until {
                bail!("no end after {limit:?}\n{}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let code = self.port("code");
        let code = code.trim().parse();
        let code = code.with_context(|| format!("the virtual host broke down\n{}", self.said()))?;
        Ok(Ended {
            output: self.port("output"),
            code,
        })
    }

    fn said(&self) -> String {
        ["virtiofsd.log", "qemu.log", "console", "output"]
            .map(|port| self.port(port))
            .join("\n")
    }

    fn port(&self, name: &str) -> String {
        let said = fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in [&mut self.machine, &mut self.files] {
            end(process);
        }
    }
}

/// A process that is ended unless somebody else takes it over.
struct Guard(Option<Child>);

impl Guard {
    fn keep(mut self) -> Child {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            end(process);
        }
    }
}

/// By its id, and whether or not it has ended by itself.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}

fn wait_for(socket: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while !socket.exists() {
        if Instant::now() > until {
            bail!("no {} after 20 s", socket.display());
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
    for (number, mib) in host.disks_mib.iter().enumerate() {
        let path: PathBuf = dir.join(format!("disk{number}"));
        File::create(&path)?.set_len(mib << 20)?;
        let drive = format!(
            "file={},id=disk{number},if=none,format=raw,cache=unsafe,discard=unmap",
            path.display()
        );
        qemu.args(["-drive", &drive]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive=disk{number}")]);
    }
    let log = File::create(dir.join("qemu.log"))?;
    let qemu = qemu
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    qemu.context("starting qemu-system-x86_64: run `make setup`")
}
