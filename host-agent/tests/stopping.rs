//! The program is asked to end while what it needs does not answer.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::process::{Child, Command};

/// For what must come.
const SOON: Duration = Duration::from_secs(60);

/// The program with its directory, a libvirt at `libvirt.sock` there, and more of a configuration; ended
/// with the test.
fn program(dir: &Path, more: &str, environment: &[(&str, String)]) -> Child {
    let config = dir.join("agent.toml");
    let dir = dir.display();
    let text = format!(
        "[host]\nid = \"h\"\nstate_dir = \"{dir}/state\"\n[listen]\naddress = \"unix:{dir}/agent.sock\"\n\
         [hypervisor]\nuri = \"qemu+unix:///system?socket={dir}/libvirt.sock\"\n{more}"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_livemerge-host-agent"));
    command.arg("--config").arg(config).stderr(Stdio::null());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.kill_on_drop(true).spawn().unwrap()
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it comes")
}

async fn ends(mut program: Child) {
    let pid = Pid::from_raw(program.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let ended = soon(program.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0), "{ended}");
}

#[tokio::test]
async fn a_signal_ends_an_agent_whose_libvirt_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let libvirt = UnixListener::bind(dir.path().join("libvirt.sock")).unwrap();
    let program = program(dir.path(), "", &[]);
    let _connection = soon(libvirt.accept()).await.unwrap();
    // It serves meanwhile.
    let serves = async {
        let socket = dir.path().join("agent.sock");
        while UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(serves).await;
    ends(program).await;
}

#[tokio::test]
async fn a_signal_ends_a_start_that_waits_for_a_storage_domain() {
    let dir = tempfile::tempdir().unwrap();
    let store = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", store.local_addr().unwrap());
    let environment = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ACCESS_KEY_ID", "writer".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hush".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let domain = "[storage.o]\nkind = \"object\"\nurl = \"s3://bucket/images\"\n";
    let program = program(dir.path(), domain, &environment);
    let _connection = soon(store.accept()).await.unwrap();
    ends(program).await;
}
