//! nghttpx before a service, as `deploy/proxy` configures it: HTTP/2 on both sides, streams and time-outs
//! of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use rustix::process::{Pid, Signal, kill_process};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/proxy/nghttpx.conf");
const FRONTEND: &str = "127.0.0.1,8420";
const BACKEND: &str = "127.0.0.1,7420";
const START: Duration = Duration::from_secs(20);

/// A proxy that runs. Dropped, it ends.
#[derive(Debug)]
pub struct Proxy {
    endpoint: String,
    child: Child,
}

impl Proxy {
    /// One before the service at this endpoint (`http://127.0.0.1:7420`), with these lines instead of
    /// those of the same keys.
    pub fn before(endpoint: &str, dir: &Path, instead: &[(&str, &str)]) -> Result<Self> {
        let target = endpoint.strip_prefix("http://").context("no TCP")?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let text = fs::read_to_string(CONFIG)?;
        for known in [FRONTEND, BACKEND] {
            anyhow::ensure!(text.contains(known), "{CONFIG} has no {known}");
        }
        let mut text = text
            .replace(FRONTEND, &format!("127.0.0.1,{port}"))
            .replace(BACKEND, &target.replace(':', ","));
        for (key, value) in instead {
            let set = |line: &str| match line.split_once('=') {
                Some((own, _)) if own == *key => format!("{key}={value}\n"),
                _ => format!("{line}\n"),
            };
            text = text.lines().map(set).collect();
        }
        let config = dir.join(format!("proxy-{port}.conf"));
        let log = dir.join(format!("proxy-{port}.log"));
        fs::write(&config, text)?;
        let mut command = Command::new("nghttpx");
        command
            .arg(format!("--conf={}", config.display()))
            .arg("--single-process")
            .arg(format!("--errorlog-file={}", log.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .context("nghttpx: `tests/setup.sh test` installs it")?;
        let mut proxy = Self {
            endpoint: format!("http://127.0.0.1:{port}"),
            child,
        };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if proxy.child.try_wait()?.is_some() || begun.elapsed() > START {
                bail!("nghttpx: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(proxy)
    }

    /// What to call in place of the service.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}
