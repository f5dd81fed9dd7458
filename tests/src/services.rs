//! The two real services as processes of their own, on Unix sockets or loopback ports.
//!
//! Dropped before the rig whose libvirt root the agent owns: declare it after the rig.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::objects::Objects;
use crate::process::run;
use crate::rig::Rig;

/// Where the API server has its console by default.
pub const CONSOLE: &str = "127.0.0.1:7423";
/// How long a service may take until it listens: the first open of a libvirt root takes seconds.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(15);

/// The directory of the API server's database, in the rig's.
pub const RECORD: &str = "record";
/// The directory of the agent's journal, in the rig's.
pub const STATE: &str = "agent";

/// The same, of a second agent.
pub const SECOND_STATE: &str = "agent-2";

/// Where a service listens.
#[derive(Debug, Clone)]
enum Address {
    Unix(PathBuf),
    Tcp(u16),
}

impl Address {
    fn listen(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Tcp(port) => format!("127.0.0.1:{port}"),
        }
    }

    fn endpoint(&self) -> String {
        match self {
            Self::Unix(path) => format!("unix:{}", path.display()),
            Self::Tcp(port) => format!("http://127.0.0.1:{port}"),
        }
    }

    fn answers(&self) -> bool {
        match self {
            Self::Unix(path) => UnixStream::connect(path).is_ok(),
            Self::Tcp(port) => std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok(),
        }
    }
}

/// One service: its program, its configuration, its process.
#[derive(Debug)]
pub struct Service {
    program: PathBuf,
    config: PathBuf,
    settings: Vec<String>,
    fail_points: String,
    environment: Vec<(String, String)>,
    log: PathBuf,
    address: Address,
    child: Option<Child>,
}

impl Service {
    /// Starts it and waits until it listens.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .args(&self.settings)
            .env("FAILPOINTS", &self.fail_points)
            .envs(self.environment.clone())
            .stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        self.child = Some(child);
        let begun = Instant::now();
        while !self.address.answers() {
            if let Some(status) = self
                .child
                .as_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten()
            {
                bail!(
                    "{} ended with {status}:\n{}",
                    self.program.display(),
                    self.log_text()
                );
            }
            if begun.elapsed() > START {
                bail!(
                    "{} does not listen:\n{}",
                    self.program.display(),
                    self.log_text()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The API server alone, with its record in the directory [`RECORD`] of a directory, and with these
    /// tables in its configuration in addition. It is not started.
    pub fn api_server(dir: &Path, reach: Reach, more: &str) -> Result<Self> {
        let address = address(dir, "api", reach, 7420)?;
        let record = dir.join(RECORD).join("api-server.db");
        fs::create_dir_all(dir.join(RECORD))?;
        // Whoever tries it by hand finds it where it is by default.
        let console = match reach {
            Reach::Default => CONSOLE,
            _ => "",
        };
        let config = format!(
            "[listen]\naddress = \"{}\"\n\n[console]\nlisten = \"{console}\"\n\n[store]\npath = \"{}\"\n\n[heartbeat]\ninterval_ms = 200\nsilence_ms = 1000\n{more}",
            address.listen(),
            record.display(),
        );
        service(dir, "livemerge-api-server", address, &config)
    }

    /// The process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops its process where it is, as a machine that hangs does, or lets it go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let child = self.child.as_ref().context("the service does not run")?;
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Sets a key (`merge.pause_limit_ms=100`) from its next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings
            .extend(["--set".to_owned(), setting.to_owned()]);
    }

    /// What it does at its fail points from its next start on, as `agent::before-act=sleep(100)`.
    pub fn fail_at(&mut self, points: &str) {
        points.clone_into(&mut self.fail_points);
    }

    /// What it has in its environment from its next start on.
    pub fn give(&mut self, environment: Vec<(String, String)>) {
        self.environment.extend(environment);
    }

    /// Another process of the same configuration, which should not be able to start. Returns what it
    /// says at its end.
    pub fn start_twin(&self) -> Result<String> {
        let output = Command::new(&self.program)
            .arg("--config")
            .arg(&self.config)
            .args(&self.settings)
            .stdin(Stdio::null())
            .output()?;
        ensure!(!output.status.success(), "the twin started");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to stop, and waits. It must end with exit code 0.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = Pid::from_child(&child);
        // It may have ended by itself; `try_wait` tells.
        let _ = kill_process(pid, Signal::TERM);
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                ensure!(
                    status.success(),
                    "{} ended with {status}:\n{}",
                    self.program.display(),
                    self.log_text()
                );
                return Ok(());
            }
            if begun.elapsed() > STOP {
                child.kill()?;
                child.wait()?;
                bail!(
                    "{} did not stop when asked:\n{}",
                    self.program.display(),
                    self.log_text()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where it is called.
    pub fn endpoint(&self) -> String {
        self.address.endpoint()
    }

    /// What it has logged.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{} did not end: {error:#}", self.program.display());
        }
    }
}

/// Both services of a rig.
#[derive(Debug)]
pub struct Services {
    /// The API server.
    pub api: Service,
    /// The host agent.
    pub agent: Service,
}

/// How the services are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// By Unix sockets in the rig's directory.
    Unix,
    /// By loopback ports that were free a moment ago.
    Loopback,
    /// By the ports that the services and their clients take by default.
    Default,
}

impl Services {
    /// Writes the configurations, for images in the rig's directory. Nothing is started.
    pub fn new(rig: &Rig, reach: Reach) -> Result<Self> {
        let images = rig.images();
        let storage = format!("kind = \"file\"\npath = \"{}\"\n", images.display());
        Self::on(rig, reach, &storage)
    }

    /// The same, with images that are objects.
    pub fn on_objects(rig: &Rig, reach: Reach, objects: &Objects) -> Result<Self> {
        let mut services = Self::on(rig, reach, &objects.config())?;
        services.agent.give(objects.environment());
        Ok(services)
    }

    /// The same, with this configuration of the one storage domain.
    pub fn on(rig: &Rig, reach: Reach, storage: &str) -> Result<Self> {
        let dir = rig.path();
        let api = Service::api_server(dir, reach, "")?;
        let agent = address(dir, "agent", reach, 7421)?;
        let agent_config = format!(
            "[listen]\naddress = \"{}\"\n\n[host]\nid = \"host-1\"\nstate_dir = \"{}\"\napi_server = \"{}\"\n\n\
             [hypervisor]\nuri = \"{}\"\n\n[storage.default]\n{storage}",
            agent.listen(),
            dir.join(STATE).display(),
            api.endpoint(),
            rig.virsh().uri(),
        );
        Ok(Self {
            api,
            agent: service(dir, "livemerge-host-agent", agent, &agent_config)?,
        })
    }

    /// Another agent of the same host, with a copy of the first one's directory as it stands, on a
    /// socket of its own. Of services on Unix sockets.
    pub fn second_agent(&self, rig: &Rig) -> Result<Service> {
        let state = rig.path().join(SECOND_STATE);
        run(Command::new("cp")
            .arg("-a")
            .arg(rig.path().join(STATE))
            .arg(&state))?;
        Ok(self.another_agent(rig, &state))
    }

    /// The agent of another host, whose libvirt is the rig's second one. On a socket of its own, of
    /// services on Unix sockets.
    pub fn neighbour_s_agent(&self, rig: &Rig, host: &str) -> Result<Service> {
        let mut agent = self.another_agent(rig, &rig.path().join(SECOND_STATE));
        agent.set(&format!("host.id={host}"));
        agent.set(&format!("hypervisor.uri={}", rig.neighbour()?.uri()));
        Ok(agent)
    }

    fn another_agent(&self, rig: &Rig, state: &Path) -> Service {
        let address = Address::Unix(rig.path().join("agent-2.sock"));
        let mut second = Service {
            log: rig.path().join("agent-2.log"),
            address: address.clone(),
            child: None,
            program: self.agent.program.clone(),
            config: self.agent.config.clone(),
            settings: self.agent.settings.clone(),
            fail_points: String::new(),
            environment: self.agent.environment.clone(),
        };
        second.set(&format!("host.state_dir={}", state.display()));
        second.set(&format!("listen.address={}", address.listen()));
        second
    }

    /// Starts both.
    pub fn start(&mut self) -> Result<()> {
        self.api.start()?;
        self.agent.start()
    }
}

fn address(dir: &Path, name: &str, reach: Reach, default: u16) -> Result<Address> {
    Ok(match reach {
        Reach::Unix => Address::Unix(dir.join(format!("{name}.sock"))),
        Reach::Loopback => Address::Tcp(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port()),
        Reach::Default => Address::Tcp(default),
    })
}

fn service(dir: &Path, name: &str, address: Address, config: &str) -> Result<Service> {
    let path = dir.join(format!("{name}.toml"));
    fs::write(&path, config)?;
    let log = dir.join(format!("{name}.log"));
    Ok(Service {
        program: program(name)?,
        config: path,
        settings: Vec::new(),
        fail_points: String::new(),
        environment: Vec::new(),
        log,
        address,
        child: None,
    })
}

/// A program of this workspace, built beside the running one.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build --workspace`"))
}
