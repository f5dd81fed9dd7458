//! The libvirt adapter when its daemon hangs, dies and comes back.
//!
//! The daemon runs in a mount namespace of its own, so that it meets no other libvirt of this
//! machine, and serves libvirt's test driver over a private socket. Needs libvirtd, unshare, root.

#![allow(clippy::unwrap_used, reason = "all of this file is test code")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use livemerge_host_agent::hypervisor::{
    Hypervisor, HypervisorError, HypervisorEvent, Libvirt, VmState,
};
use tokio::sync::broadcast::Receiver;

const PATIENCE: Duration = Duration::from_secs(60);
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// What the test driver plays: one machine, which runs.
const NODE: &str = "<node><domain type='test'><name>one</name><memory>65536</memory>\
     <os><type>hvm</type></os></domain></node>";

struct Daemon(Child);

impl Daemon {
    fn start(dir: &Path) -> Self {
        let config = dir.join("libvirtd.conf");
        let sockets = dir.display();
        let settings = format!("unix_sock_dir = \"{sockets}\"\nauth_unix_rw = \"none\"\n");
        fs::write(&config, settings).unwrap();
        let script = format!(
            "for dir in /run /var/lib /var/cache; do mount -t tmpfs t $dir; done\n\
             exec libvirtd -f {}",
            config.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn told(events: &mut Receiver<HypervisorEvent>, wanted: HypervisorEvent) {
    let arrival = async { while events.recv().await.unwrap() != wanted {} };
    tokio::time::timeout(PATIENCE, arrival)
        .await
        .expect("the event in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_hangs_dies_and_returns() {
    let dir = tempfile::Builder::new()
        .prefix("lm")
        .tempdir_in("/tmp")
        .unwrap();
    let socket = dir.path().join("libvirt-sock");
    let node = dir.path().join("node.xml");
    fs::write(&node, NODE).unwrap();
    let uri = format!("test+unix://{}?socket={}", node.display(), socket.display());
    let libvirt = Libvirt::open(&uri, CALL_LIMIT).unwrap();
    let mut events = libvirt.events();
    assert!(!libvirt.connected());

    let mut daemon = Daemon::start(dir.path());
    told(&mut events, HypervisorEvent::Connected).await;
    assert!(libvirt.connected());
    let vms = libvirt.vms().await.unwrap();
    assert_eq!(vms.len(), 1);
    assert_eq!(
        (vms[0].name.as_str(), vms[0].state),
        ("one", VmState::Running)
    );
    libvirt.suspend(vms[0].id).await.unwrap();
    told(&mut events, HypervisorEvent::Lifecycle { vm: vms[0].id }).await;
    assert_eq!(libvirt.vm(vms[0].id).await.unwrap().state, VmState::Paused);

    // Silence is unknown within the limit, and after the unanswered pings the connection is given
    // up. The daemon's next life is another connection.
    daemon.signal("-STOP");
    let began = Instant::now();
    assert!(matches!(
        libvirt.vms().await,
        Err(HypervisorError::Unknown(_))
    ));
    assert!(began.elapsed() < Duration::from_secs(12));
    told(&mut events, HypervisorEvent::Disconnected).await;
    assert!(!libvirt.connected());
    assert!(matches!(
        libvirt.vms().await,
        Err(HypervisorError::Unknown(_))
    ));
    daemon.signal("-CONT");
    told(&mut events, HypervisorEvent::Connected).await;
    assert_eq!(libvirt.vms().await.unwrap().len(), 1);

    // A death is noticed at once.
    let began = Instant::now();
    daemon.kill();
    told(&mut events, HypervisorEvent::Disconnected).await;
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(matches!(
        libvirt.vm(vms[0].id).await,
        Err(HypervisorError::Unknown(_))
    ));
    let _daemon = Daemon::start(dir.path());
    told(&mut events, HypervisorEvent::Connected).await;
    assert_eq!(libvirt.vms().await.unwrap().len(), 1);
}
