//! `livemerge diagnostics`: what is in the archive, and what never is.

use crate::data::{RUNNING, WEB, site};
use crate::program::{ask, livemerge, run};
use crate::server::Server;
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The parts of an archive, by name.
fn parts(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(path).unwrap()));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name.replace("livemerge-diagnostics/", ""), text)
    });
    entries.collect()
}

/// Answers one request for metrics.
fn metrics() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut head = [0; 1024];
        let read = stream.read(&mut head).unwrap();
        assert!(head[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
        let text = "livemerge_uptime_seconds 7\n";
        let length = text.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
        )
        .unwrap();
    });
    format!("http://{address}/metrics")
}

#[test]
fn the_archive_has_what_helps_and_nothing_secret() {
    let server = Server::start(site());
    let dir = tempfile::tempdir().unwrap();
    let (path, config) = (dir.path().join("out.tar.gz"), dir.path().join("agent.toml"));
    let text = "[host]\nid = \"h\"\n[auth]\nbearer_token = \"hush\"\n[storage.s]\nurl = \"s3://me:hush@b/p\"\n";
    std::fs::write(&config, text).unwrap();
    let url = metrics();
    let (file, config) = (path.to_str().unwrap(), config.to_str().unwrap());
    let args = ["diagnostics", file, "--metrics", &url, "--config", config];
    assert_eq!(ask(&server, args).shown(), format!("{file}\n"));
    let parts = parts(&path);
    let names: Vec<_> = parts.keys().map(String::as_str).collect();
    let wanted = [
        "about.json",
        "config-1.toml",
        "events.json",
        "findings.json",
        "hosts.json",
        "metrics-1.txt",
        "operations.json",
        "removals.json",
        "snapshots.json",
        "storages.json",
        "vms.json",
    ];
    assert_eq!(names, wanted);
    assert!(parts["about.json"].contains(env!("CARGO_PKG_VERSION")));
    assert!(parts["vms.json"].contains(WEB));
    assert!(parts["operations.json"].contains(RUNNING));
    assert_eq!(parts["metrics-1.txt"], "livemerge_uptime_seconds 7\n");
    assert!(parts["config-1.toml"].contains("id = \"h\""));
    let secret: Vec<_> = parts
        .iter()
        .filter(|(_, text)| text.contains("hush"))
        .collect();
    assert_eq!(secret, Vec::<(&String, &String)>::new());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // What is there is not written over.
    let again = ask(&server, ["diagnostics", file]);
    assert_eq!((again.exit, again.stdout.as_str()), (1, ""));
    assert!(again.stderr.contains("cannot write"), "{}", again.stderr);
}

#[test]
fn what_cannot_be_had_is_told_and_the_rest_is_there() {
    let server = Server::start(site());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.tar.gz");
    let args = ["diagnostics", path.to_str().unwrap()];
    let ran = ask(
        &server,
        args.iter().chain(&["--metrics", "https://h/metrics"]),
    );
    assert_eq!(ran.exit, 1);
    let parts = parts(&path);
    let why = "metrics-1.txt: must be `http://ADDRESS:PORT/metrics`";
    assert_eq!(parts["missing.txt"], format!("{why}\n"));
    assert!(parts.contains_key("vms.json"));
    assert!(
        ran.stderr.contains(&format!("\nmissing: {why}\n")),
        "{}",
        ran.stderr
    );
}

#[test]
fn without_a_server_there_is_an_archive_of_what_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let (path, config) = (dir.path().join("out.tar.gz"), dir.path().join("c.toml"));
    std::fs::write(&config, "[log]\nfilter = \"info\"\n").unwrap();
    let nobody = format!("unix:{}/none.sock", dir.path().display());
    let mut command = livemerge();
    command.args(["--server", &nobody, "diagnostics"]);
    let ran = run(command.arg(&path).arg("--config").arg(&config));
    assert_eq!(ran.exit, 1);
    let parts = parts(&path);
    assert!(parts["config-1.toml"].contains("info"));
    assert_eq!(parts["missing.txt"].lines().count(), 8);
}
