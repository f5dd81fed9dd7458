//! Both programs as they are run, scraped.

use super::documents::workspace;
use anyhow::{Context as _, Result, ensure};
use livemerge_tests::services::program;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
fn port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn run(name: &str, dir: &Path, settings: &[String]) -> Result<Running> {
    let log = std::fs::File::create(dir.join(format!("{name}.log")))?;
    let mut command = Command::new(program(name)?);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(Running(child.spawn()?))
}

fn scrape(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(
        b"GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\naccept: application/openmetrics-text\r\n\r\n",
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, text) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(text.to_owned())
}

/// Scrapes until it has a line that begins so.
fn until(port: u16, line: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        let last = scrape(port);
        match last {
            Ok(text) if text.lines().any(|found| found.starts_with(line)) => return Ok(text),
            last if begun.elapsed() > LIMIT => {
                return last.with_context(|| format!("no {line}"));
            }
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The families of a scrape, with their kinds.
fn families(text: &str) -> BTreeMap<&str, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split_once(' ')).collect()
}

#[test]
fn both_programs_are_scraped_and_show_what_is_documented() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let images = dir.path().join("images");
    std::fs::create_dir(&images)?;
    let [api, api_metrics, agent, agent_metrics] = [port()?, port()?, port()?, port()?];
    let _server = run(
        "livemerge-api-server",
        dir.path(),
        &[
            format!("listen.address=127.0.0.1:{api}"),
            format!("metrics.listen=127.0.0.1:{api_metrics}"),
            format!("store.path={}", dir.path().join("api.db").display()),
            "heartbeat.interval_ms=200".to_owned(),
        ],
    )?;
    let _agent = run(
        "livemerge-host-agent",
        dir.path(),
        &[
            "host.id=host-1".to_owned(),
            format!("listen.address=127.0.0.1:{agent}"),
            format!("metrics.listen=127.0.0.1:{agent_metrics}"),
            format!("host.state_dir={}", dir.path().join("agent").display()),
            format!("host.api_server=http://127.0.0.1:{api}"),
            // The driver that libvirt has for tests: it answers, and merges nothing.
            "hypervisor.uri=test:///default".to_owned(),
            format!("storage.default={{kind=\"file\",path={images:?}}}"),
        ],
    )?;
    let of_agent = until(agent_metrics, "livemerge_grpc_client_handled_total{")?;
    let of_server = until(api_metrics, "livemerge_host_up{host=\"host-1\"} 1")?;
    let document = std::fs::read_to_string(workspace()?.join("docs/metrics.md"))?;
    for (program, text) in [("server", &of_server), ("agent", &of_agent)] {
        let found = families(text);
        for (name, kind) in &found {
            let suffix = if *kind == "counter" { "_total" } else { "" };
            let row =
                |of: &str| document.contains(&format!("| `{name}{suffix}` | {of} | {kind} |"));
            ensure!(
                row("both") || row(program),
                "{name} of the {program} is not documented"
            );
        }
        ensure!(found.len() > 10, "{found:?}");
        ensure!(text.ends_with("# EOF\n"));
    }
    let registered = "livemerge_grpc_server_handled_total{service=\"livemerge.v1.InventoryService\",method=\"RegisterHost\",code=\"OK\"}";
    for (text, line) in [
        (&of_server, "livemerge_hosts{state=\"up\"} 1"),
        (
            &of_server,
            "livemerge_operations_ended_total{kind=\"delete\",outcome=\"failed\"} 0",
        ),
        (&of_server, registered),
        (
            &of_server,
            "livemerge_build_info{program=\"livemerge-api-server\"",
        ),
        (
            &of_agent,
            "livemerge_merges_open{kind=\"pull\",phase=\"copying\"} 0",
        ),
        (
            &of_agent,
            "livemerge_build_info{program=\"livemerge-host-agent\"",
        ),
    ] {
        ensure!(
            text.lines().any(|found| found.starts_with(line)),
            "{line}: {text}"
        );
    }
    Ok(())
}
