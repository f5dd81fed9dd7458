//! The console in a real browser, on the real thing: what `console/e2e/real` does with the mouse, while this
//! side starts the guest and both services, and kills them when it is told to.
//!
//! ```text
//!   headless Chromium ◀─ playwright ◀─ vitest ──asks──▶ a file in a directory ◀──looks── this test
//!        └──gRPC-Web──▶ console of the API server ─▶ agent ─▶ QEMU                          └─▶ kill, start
//! ```

use anyhow::{Context as _, Result, ensure};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::LIMIT;
use livemerge_tests::services::{Reach, Services};
use rustix::process::{Pid, Signal, kill_process_group};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

const VM: &str = "vm";
const DISK: &str = "vda";
const DISK_BYTES: u64 = 1 << 30;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// It writes all the time, and less than a delete copies at the least rate, which therefore takes long and
/// comes to its end.
fn steady() -> Workload {
    Workload {
        slots: 256,
        fill_mib: 16,
        background_kib: 768,
        rate: 20,
    }
}

/// What it writes meanwhile is enough for such a delete.
const GUEST_WRITES: &str = "sleep 60";

#[tokio::test]
async fn a_browser_sees_and_does_what_an_administrator_would() -> Result<()> {
    run("console.test").await
}

/// Those of the README, by `make photographs`: into the directory that CONSOLE_SHOTS names.
#[tokio::test]
async fn a_browser_takes_photographs() -> Result<()> {
    ensure!(
        std::env::var_os("CONSOLE_SHOTS").is_some(),
        "CONSOLE_SHOTS names no directory"
    );
    run("shots.test").await
}

/// Plays one file of the browser's side.
async fn run(file: &str) -> Result<()> {
    let rig = Rig::new()?;
    let guest = rig.start_guest(VM, &[DISK], DISK_BYTES, steady())?;
    let mut services = Services::new(&rig, Reach::Unix)?;
    let console = free_address()?;
    services.api.set(&format!("console.listen={console}"));
    know_everybody(rig.path(), &mut services)?;
    guest.acks.wait_for(DISK, 20, LIMIT).await?;
    guest.acks.wait_for_fill(DISK, LIMIT).await?;
    services.start()?;

    let asked = Asked::at(rig.path().join("asked"))?;
    let sources = sources()?;
    let mut browser = Command::new(sources.join("node_modules/.bin/vitest"));
    browser
        .args(["run", "--config", "e2e/real/vitest.config.ts", file])
        .current_dir(&sources)
        // With all that it starts.
        .process_group(0)
        .env("CONSOLE_URL", format!("http://{console}/"))
        .env("CONSOLE_TOKEN", token("operator"))
        .env("CONSOLE_VIEWER_TOKEN", token("viewer"))
        .env("CONSOLE_VM", VM)
        .env("CONSOLE_GUEST_WRITES", GUEST_WRITES)
        .env("CONSOLE_KILL_SERVER", asked.command("kill-server"))
        .env("CONSOLE_START_SERVER", asked.command("start-server"))
        .env("CONSOLE_KILL_VM", asked.command("kill-vm"));
    let browser = browser.spawn();
    let mut browser = Group(browser.context("starting the browser's tests: run `make console`")?);
    let ended = loop {
        if let Some(ended) = browser.0.try_wait()? {
            break ended;
        }
        asked.once("kill-server", || services.api.kill())?;
        asked.once("start-server", || services.api.start())?;
        asked.once("kill-vm", || rig.virsh().kill_qemu(VM))?;
        tokio::time::sleep(LOOK_EVERY).await;
    };
    ensure!(ended.success(), "{ended}:\n{}", services.api.log_text());
    Ok(())
}

/// A process and those that it has started, which end with this.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ended = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _reaped = self.0.wait();
    }
}

fn sources() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("the workspace")?.join("console"))
}

fn free_address() -> Result<String> {
    let free = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(free.local_addr()?.to_string())
}

fn token(name: &str) -> String {
    format!("the-token-of-{name}")
}

/// The server knows an operator, a viewer and its agent, by their tokens.
fn know_everybody(dir: &Path, services: &mut Services) -> Result<()> {
    let known = |name: &str, more: &str| {
        let digest = Sha256::digest(token(name));
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[tokens.{name}]\nsha256 = \"{digits}\"\nrole = \"{name}\"\n{more}")
    };
    let tokens = dir.join("tokens.toml");
    let all = [
        known("operator", ""),
        known("viewer", ""),
        known("agent", "host = \"host-1\"\n"),
    ];
    fs::write(&tokens, all.concat())?;
    let own = dir.join("agent-token");
    fs::write(&own, token("agent"))?;
    let tokens = format!("auth.tokens_file={}", tokens.display());
    services.api.set(&tokens);
    let own = format!("client.token_file={}", own.display());
    services.agent.set(&own);
    Ok(())
}

/// What the other side asks for: a file, which is gone once that is done.
struct Asked(PathBuf);

impl Asked {
    fn at(dir: PathBuf) -> Result<Self> {
        fs::create_dir(&dir)?;
        Ok(Self(dir))
    }

    /// A shell command that asks, and waits.
    fn command(&self, what: &str) -> String {
        let file = self.0.join(what).display().to_string();
        format!("touch '{file}'; while [ -e '{file}' ]; do sleep 0.05; done")
    }

    fn once(&self, what: &str, doing: impl FnOnce() -> Result<()>) -> Result<()> {
        let file = self.0.join(what);
        if file.exists() {
            doing().context(what.to_owned())?;
            fs::remove_file(file)?;
        }
        Ok(())
    }
}
