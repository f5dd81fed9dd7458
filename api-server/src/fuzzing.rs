//! What comes in from outside, with what holds whatever it is: for the fuzz target of `fuzz/`, and for
//! the tests that replay what it has found. Nobody else's interface.

use crate::config::Config;
use crate::server;
use crate::store::SqliteStore;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::ids::HostId;
use livemerge_runtime::fuzzing::Edge;
use livemerge_runtime::{Shutdown, SystemClock};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tonic::service::Routes;

/// The services that are asked.
pub const SERVICES: [&str; 4] = [
    "livemerge.v1.EventService",
    "livemerge.v1.InventoryService",
    "livemerge.v1.OperationService",
    "livemerge.v1.SnapshotService",
];

/// A request to a server that knows no hosts, and calls none.
///
/// # Panics
/// When the server is wrong, and not the request.
pub fn server_requests(bytes: &[u8]) {
    with_edge(|edge| edge.call(bytes));
}

/// The server that [`server_requests`] asks.
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
    let store = SqliteStore::open(&dir.join("api.db")).await;
    let config = Config::default();
    let services = server::open(
        &config,
        Arc::new(SystemClock),
        Arc::new(store.expect("a store")),
        Arc::new(|_: &HostId, _: &str| Err("nobody is called from here".to_owned())),
        Shutdown::new(),
    );
    let services = services.await.expect("a server");
    Routes::new(services.snapshots)
        .add_service(services.operations)
        .add_service(services.inventory)
        .add_service(services.events)
}
