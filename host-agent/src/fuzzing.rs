//! What comes in from outside, each with what holds whatever it is: for the fuzz targets of `fuzz/`, and
//! for the tests that replay what those have found. Nobody else's interface.

pub use crate::hypervisor::fuzzing::{definition, qmp_answer};
pub use crate::merge::fuzzing::{journal, journal_lines};

use crate::agent;
use crate::config::Config;
use crate::domains::Domain;
use crate::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use livemerge_proto::DESCRIPTORS;
use livemerge_runtime::fuzzing::Edge;
use livemerge_runtime::{Shutdown, SystemClock};
use livemerge_storage::FileStore;
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tonic::service::Routes;

/// The services that are asked.
pub const SERVICES: [&str; 3] = [
    "livemerge.v1.HostService",
    "livemerge.v1.MergeService",
    "livemerge.v1.VolumeService",
];

/// A request to an agent without machines, whose one domain is empty.
///
/// # Panics
/// When the agent is wrong, and not the request.
pub fn agent_requests(bytes: &[u8]) {
    with_edge(|edge| edge.call(bytes));
}

/// The agent that [`agent_requests`] asks.
pub fn with_edge<T>(ask: impl FnOnce(&mut Edge) -> T) -> T {
    thread_local! {
        // A thread that ends is no place to end a runtime in.
        static EDGE: RefCell<(ManuallyDrop<Edge>, TempDir)> = {
            let dir = tempfile::tempdir().expect("a directory");
            let edge = Edge::new(DESCRIPTORS, &SERVICES, open(dir.path()));
            RefCell::new((ManuallyDrop::new(edge), dir))
        };
    }
    EDGE.with_borrow_mut(|(edge, _dir)| ask(edge))
}

async fn open(dir: &Path) -> Routes {
    let root = dir.join("domain");
    std::fs::create_dir(&root).expect("a directory");
    let id = "default".parse().expect("an id");
    let store = FileStore::open(id, &root).await.expect("a domain");
    let mut config = Config::default();
    config.host.state_dir = dir.join("state");
    let agent = agent::open(
        &config,
        Arc::new(SystemClock),
        Arc::new(FakeHypervisor::new(FakeImages::default(), Pace::Manual)),
        vec![Domain::plain(Arc::new(store))],
        Shutdown::new(),
    );
    let agent = agent.await.expect("an agent");
    Routes::new(agent.merges)
        .add_service(agent.host)
        .add_service(agent.volumes)
}
