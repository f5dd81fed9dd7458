//! The clients of `examples/`, as they stand there, on the real thing: other implementations of gRPC than
//! ours take a snapshot and delete it while a guest writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::process::run;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{Reach, Services};
use tokio::task::spawn_blocking;

const VM: &str = "vm";
const DISK: &str = "vda";
const DISK_BYTES: u64 = 1 << 30;
/// What each client says of the refused request, besides its code.
const REFUSAL: [&str; 4] = [
    "FIELD_INVALID",
    "request_id",
    "must be a UUID",
    "snapshot_id",
];

fn calm() -> Workload {
    Workload {
        slots: 256,
        fill_mib: 16,
        background_kib: 2048,
        rate: 50,
    }
}

/// Where the repository is, and what `make setup` has put below it.
struct Place {
    examples: PathBuf,
    contracts: PathBuf,
    /// The programs of the Python environment: Python itself, and grpcurl.
    programs: PathBuf,
    /// Of Node.
    modules: PathBuf,
    /// Of Python, made of the contracts.
    stubs: PathBuf,
}

impl Place {
    fn find(scratch: &Path) -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = own.parent().context("the workspace")?;
        let tools = root.join("target/tools");
        let place = Self {
            examples: root.join("examples"),
            contracts: root.join("proto"),
            programs: tools.join("clients/bin"),
            modules: tools.join("node_modules"),
            stubs: scratch.join("stubs"),
        };
        place.generate_stubs()?;
        Ok(place)
    }

    /// As the README of the example in Python says.
    fn generate_stubs(&self) -> Result<()> {
        fs::create_dir(&self.stubs)?;
        let mut command = Command::new(self.programs.join("python"));
        command.args(["-m", "grpc_tools.protoc", "-I"]);
        command.arg(&self.contracts);
        for kind in ["python", "grpc_python"] {
            command.arg(format!("--{kind}_out={}", self.stubs.display()));
        }
        for file in fs::read_dir(self.contracts.join("livemerge/v1"))? {
            command.arg(file?.path());
        }
        command.arg(self.contracts.join("buf/validate/validate.proto"));
        run(&mut command).map(drop)
    }

    /// Each client, with what it calls INVALID_ARGUMENT.
    fn clients(&self, server: &str) -> Result<[(Command, &'static str); 3]> {
        Ok([
            (self.python(server), "INVALID_ARGUMENT"),
            (self.node(server), "INVALID_ARGUMENT"),
            (self.grpcurl(server)?, "InvalidArgument"),
        ])
    }

    fn python(&self, server: &str) -> Command {
        let mut command = Command::new(self.programs.join("python"));
        command
            .arg(self.examples.join("python/live_delete.py"))
            .args(["--vm", VM, "--server", server])
            .env("PYTHONPATH", &self.stubs)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn node(&self, server: &str) -> Command {
        let mut command = Command::new("node");
        command
            .arg(self.examples.join("node/live_delete.js"))
            .args(["--vm", VM, "--server", server])
            .env("NODE_PATH", &self.modules);
        command
    }

    fn shell(&self, script: &str) -> Result<Command> {
        let mut command = Command::new(self.examples.join("grpcurl").join(script));
        let path = std::env::var("PATH").context("PATH")?;
        command.env("PATH", format!("{}:{path}", self.programs.display()));
        Ok(command)
    }

    fn grpcurl(&self, server: &str) -> Result<Command> {
        let mut command = self.shell("live_delete.sh")?;
        command.args([VM, server]);
        Ok(command)
    }
}

/// An address without its scheme, which these clients do not know.
fn target(endpoint: &str) -> String {
    endpoint.trim_start_matches("http://").to_owned()
}

/// What a client prints of a snapshot that it creates and deletes, and of a request that is refused. A merge
/// may have ended before it is watched: what a watch shows on the way others test.
fn assert_told(printed: &str, code: &str) {
    let told: Vec<_> = printed.lines().map(str::to_lowercase).collect();
    let at = |wanted: &str| told.iter().position(|line| line.contains(wanted));
    let story = [
        "create_snapshot succeeded",
        "created ",
        "delete_snapshot succeeded, vda removed",
        "deleted ",
        "a request with mistakes:",
    ];
    let places: Vec<_> = story.iter().map(|wanted| at(wanted)).collect();
    assert!(places.iter().all(Option::is_some), "{printed}");
    assert!(places.is_sorted(), "{printed}");
    assert!(told.iter().any(|line| line.contains(" bytes")), "{printed}");
    let (_, refusal) = printed
        .split_once("a request with mistakes:")
        .unwrap_or_default();
    for wanted in REFUSAL.iter().chain(&[code]) {
        assert!(refusal.contains(wanted), "no {wanted} in {printed}");
    }
}

/// Runs a client that must not succeed; returns what it says.
fn fails(mut client: Command) -> Result<String> {
    let ended = client.output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(!ended.status.success(), "it succeeded: {said}");
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_other_languages_delete_a_snapshot_and_read_why_a_request_is_refused()
-> Result<()> {
    let rig = Rig::new()?;
    let place = Place::find(rig.path())?;
    let guest = rig.start_guest(VM, &[DISK], DISK_BYTES, calm())?;
    // Not every client takes a Unix socket.
    let services = Services::new(&rig, Reach::Loopback)?;
    let mut scene = Scene::with(rig, guest, services).await?;
    let vm = scene.vm();
    let server = target(&scene.services.api.endpoint());
    let agent = target(&scene.services.agent.endpoint());
    let images = scene.images_of(DISK).await?;

    for (mut client, code) in place.clients(&server)? {
        let printed = spawn_blocking(move || run(&mut client)).await??;
        assert_told(&printed, code);
        assert_eq!(scene.api.list(vm).await?, []);
        assert_eq!(scene.images_of(DISK).await?, images);
    }
    for (server, methods) in [
        (&server, ["rpc DeleteSnapshot ", "rpc WatchOperation "]),
        (&agent, ["rpc StartMerge ", "rpc RemoveVolume "]),
    ] {
        let mut services = place.shell("services.sh")?;
        let printed = run(services.arg(server))?;
        for method in methods {
            assert!(printed.contains(method), "no {method} in {printed}");
        }
    }

    scene.services.agent.kill()?;
    scene.until_host(v1::HostStatus::Unresponsive).await?;
    for (client, _code) in place.clients(&server)? {
        let said = spawn_blocking(move || fails(client)).await??;
        assert!(said.contains("HOST_UNREACHABLE"), "{said}");
    }
    scene.services.agent.start()?;
    scene.api.wait_for_vm(vm, LIMIT).await?;
    scene.agrees().await?;
    for verdict in scene.verdicts().await? {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
    Ok(())
}
