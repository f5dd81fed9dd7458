//! An API server that says what a test tells it to.
//!
//! Lists are filtered for real and come in pages of two, so that every list is read over pages.

use livemerge_proto::v1;
use livemerge_runtime::{
    AuthConfig, ListenConfig, Reach, Role, Rules, Security, ServerConfig, TlsConfig,
};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::Router;
use tonic::{Request, Status};
use v1::event_service_server::EventServiceServer;
use v1::inventory_service_server::InventoryServiceServer;
use v1::operation_service_server::OperationServiceServer;
use v1::snapshot_service_server::SnapshotServiceServer;

mod page;
mod services;

const PAGE: usize = 2;

/// A step of a watch.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a handful of them exists")]
pub(crate) enum Step {
    /// Says how the operation stands.
    Send(v1::Operation),
    /// Waits for [`Server::open_gate`].
    Gate,
    /// Ends the stream with this.
    Fail(Status),
    /// Ends the stream.
    End,
}

/// A step of a watch of the log.
#[derive(Debug, Clone)]
pub(crate) enum LogStep {
    /// The event of this revision.
    Event(i64),
    /// A heartbeat behind this revision.
    Heartbeat(i64),
    /// Ends the stream with this.
    Fail(Status),
    /// Ends the stream.
    End,
}

/// What the server knows and how it answers.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) hosts: Vec<v1::Host>,
    pub(crate) vms: Vec<v1::Vm>,
    pub(crate) snapshots: Vec<v1::Snapshot>,
    pub(crate) chains: Vec<v1::VolumeChain>,
    pub(crate) operations: Vec<v1::Operation>,
    pub(crate) events: Vec<v1::Event>,
    pub(crate) findings: Vec<v1::Finding>,
    pub(crate) omitted_findings: i32,
    pub(crate) removals: Vec<v1::Removal>,
    pub(crate) storages: Vec<v1::HostStorage>,
    pub(crate) silent_hosts: Vec<String>,
    /// What a repair answers.
    pub(crate) repaired: v1::ApplyRepairResponse,
    /// What a create or delete answers.
    pub(crate) accepted: Option<v1::Operation>,
    /// What a dry run of a delete answers.
    pub(crate) plan: v1::PlanDeleteSnapshotResponse,
    /// What every call answers instead.
    pub(crate) refusal: Option<Status>,
    /// One for each watch; a watch past the last one is silent.
    pub(crate) watches: VecDeque<Vec<Step>>,
    /// One for each watch of the log; one past the last one is silent.
    pub(crate) log_watches: VecDeque<Vec<LogStep>>,
    /// One for each WaitOperation; one past the last one is silent.
    pub(crate) waits: VecDeque<v1::Operation>,
    /// No call is ever answered.
    pub(crate) silent: bool,
}

#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
}

impl Scripted {
    /// Notes the request, and answers it from the script unless that refuses.
    async fn answer<M: Debug, T>(
        &self,
        request: &Request<M>,
        answer: impl FnOnce(&mut Script) -> T,
    ) -> Result<T, Status> {
        self.seen
            .lock()
            .unwrap()
            .push(format!("{:?}", request.get_ref()));
        if self.script.lock().unwrap().silent {
            std::future::pending::<()>().await;
        }
        let mut script = self.script.lock().unwrap();
        match &script.refusal {
            Some(status) => Err(status.clone()),
            None => Ok(answer(&mut script)),
        }
    }

    fn router(self) -> Router {
        tonic::transport::Server::builder()
            .add_service(InventoryServiceServer::new(self.clone()))
            .add_service(SnapshotServiceServer::new(self.clone()))
            .add_service(OperationServiceServer::new(self.clone()))
            .add_service(EventServiceServer::new(self))
    }
}

/// A running server. It is gone, with all its connections, when this is dropped.
pub(crate) struct Server {
    scripted: Scripted,
    address: String,
    runtime: Option<Runtime>,
    _socket: Option<TempDir>,
}

impl Server {
    /// Listens on a Unix socket of its own.
    pub(crate) fn start(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Self::on_socket(&dir.path().join("api.sock"), script);
        server._socket = Some(dir);
        server
    }

    /// Listens on this Unix socket, also where one was before.
    pub(crate) fn on_socket(path: &Path, script: Script) -> Self {
        let _none_before = std::fs::remove_file(path);
        let (scripted, runtime) = parts(script);
        let entered = runtime.enter();
        let incoming = UnixListenerStream::new(UnixListener::bind(path).unwrap());
        drop(entered);
        runtime.spawn(scripted.clone().router().serve_with_incoming(incoming));
        let address = format!("unix:{}", path.display());
        Self {
            scripted,
            address,
            runtime: Some(runtime),
            _socket: None,
        }
    }

    /// Listens on loopback.
    pub(crate) fn on_loopback(script: Script) -> Self {
        let (scripted, runtime) = parts(script);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let incoming = TcpListenerStream::new(listener);
        runtime.spawn(scripted.clone().router().serve_with_incoming(incoming));
        Self {
            scripted,
            address,
            runtime: Some(runtime),
            _socket: None,
        }
    }

    /// Listens on loopback with TLS, behind these roles.
    pub(crate) fn secured(script: Script, tls: &TlsConfig, auth: &AuthConfig) -> Self {
        let (scripted, runtime) = parts(script);
        let inventory = "livemerge.v1.InventoryService";
        let rules = Rules::new().permit(inventory, &["ListHosts"], &[Role::Viewer, Role::Operator]);
        let security = Security::open(tls, Some(auth), rules).unwrap();
        let listen = ListenConfig::loopback(0);
        let listener = runtime.block_on(listen.bind(Reach::Near)).unwrap();
        let address = format!("https://{}", listener.address().unwrap());
        let served = livemerge_runtime::Server::new(ServerConfig::default())
            .service(InventoryServiceServer::new(scripted.clone()))
            .secured(security)
            .serve(listener);
        runtime.spawn(served);
        Self {
            scripted,
            address,
            runtime: Some(runtime),
            _socket: None,
        }
    }

    /// What `--server` takes.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Answers every call with this from now on.
    pub(crate) fn refuse(&self, status: Status) {
        self.scripted.script.lock().unwrap().refusal = Some(status);
    }

    /// Lets one gate of a watch pass.
    pub(crate) fn open_gate(&self) {
        self.scripted.gate.add_permits(1);
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.scripted.seen.lock().unwrap().clone()
    }

    /// The last request.
    pub(crate) fn last_seen(&self) -> String {
        self.seen().pop().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn parts(script: Script) -> (Scripted, Runtime) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let scripted = Scripted {
        script: Arc::new(Mutex::new(script)),
        seen: Arc::default(),
        gate: Arc::new(Semaphore::new(0)),
    };
    (scripted, runtime)
}
