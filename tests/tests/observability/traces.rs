//! One trace from the call that deletes a snapshot to the removal of the volume, over restarts of both
//! services, as a collector gets it.

use anyhow::{Context as _, Result, ensure};
use livemerge_host_agent::domains::{Domain, RemovalPolicy};
use livemerge_host_agent::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use livemerge_host_agent::volumes::Volumes;
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_runtime::trace::{LiveSpan, SpanKind};
use livemerge_runtime::{
    AuthConfig, ClientCertificate, ListenAddress, ListenConfig, Reach, Role, Rules, Security,
    ServerConfig, TlsConfig, TraceContext, TracesConfig, trace,
};
use livemerge_storage::{FileStore, NewVolume, RemovalOrder, RemovalState};
use livemerge_tests::cluster::Cluster;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(60);
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Whom a collector that knows its senders lets in.
const SENDER: &str = "host-1.example.org";

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let sent = request.into_inner().resource_spans.into_iter();
        let spans = sent.flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// The spans of a trace, by id, once one of this name is there.
    async fn trace(&self, id: &str, last: &str) -> Result<BTreeMap<String, Span>> {
        let look = async {
            loop {
                let of_trace: BTreeMap<String, Span> = {
                    let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let of_trace = kept.iter().filter(|span| hex(&span.trace_id) == id);
                    of_trace
                        .map(|span| (hex(&span.span_id), span.clone()))
                        .collect()
                };
                if of_trace.values().any(|span| span.name == last) {
                    return of_trace;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(LIMIT, look).await;
        found.with_context(|| format!("no span {last} comes"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn delete(cluster: &mut Cluster, snapshot: &str) -> Result<v1::Operation> {
    let mut request = Request::new(v1::DeleteSnapshotRequest {
        request_id: Uuid::new_v4().to_string(),
        snapshot_id: snapshot.to_owned(),
        options: Some(v1::MergeOptions {
            direction: v1::MergeDirection::Commit.into(),
            bytes_per_second: 0,
        }),
        ..v1::DeleteSnapshotRequest::default()
    });
    request
        .metadata_mut()
        .insert("traceparent", CALLER.parse()?);
    let answer = cluster.api.snapshots.delete_snapshot(request).await?;
    answer.into_inner().operation.context("an operation")
}

/// Waits until the host was asked for this.
async fn asked(cluster: &Cluster, call: &str) -> Result<()> {
    let look = async {
        while !cluster
            .hypervisor
            .calls()
            .iter()
            .any(|seen| seen.name() == call)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let asked = tokio::time::timeout(LIMIT, look).await;
    asked.with_context(|| format!("nobody asks for {call}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_one_trace_to_its_end_whatever_restarts() -> Result<()> {
    let collector = Collector::default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let config = TracesConfig {
        endpoint: format!("http://{}", listener.local_addr()?),
        ..TracesConfig::default()
    };
    let serve = Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serve);
    let _sent = trace::start(&config, "both", "test")?;

    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    let operation = delete(&mut cluster, &snapshot).await?;
    asked(&cluster, "start_job").await?;
    cluster.crash_server();
    cluster.crash_agent();
    let (id, disk) = (VmId::from(vm), "vda".parse()?);
    cluster.hypervisor.advance(id, &disk, usize::MAX);
    cluster.start_server().await?;
    cluster.start_agent().await?;
    asked(&cluster, "pivot").await?;
    cluster.hypervisor.switch(id, &disk);
    cluster.hypervisor.notice(id, &disk);
    cluster.api.succeeded(&operation, LIMIT).await?;

    let caller: TraceContext = CALLER.parse()?;
    let spans = collector
        .trace(&caller.trace_id(), "operation delete")
        .await?;
    let named = |name: &str| spans.values().find(|span| span.name == name);
    // From the innermost one outwards, each a part of the next.
    let ways = [
        &[
            "volume removal",
            "livemerge.v1.VolumeService/RemoveVolume",
            "livemerge.v1.VolumeService/RemoveVolume",
            "operation delete",
            "livemerge.v1.SnapshotService/DeleteSnapshot",
        ][..],
        &[
            "merge copying",
            "merge",
            "livemerge.v1.MergeService/StartMerge",
            "livemerge.v1.MergeService/StartMerge",
            "operation delete",
            "livemerge.v1.SnapshotService/DeleteSnapshot",
        ][..],
    ];
    for way in ways {
        let mut span = named(way[0]).with_context(|| format!("no span {}", way[0]))?;
        for outer in &way[1..] {
            let parent = hex(&span.parent_span_id);
            span = spans
                .get(&parent)
                .with_context(|| format!("no span {outer}"))?;
            assert_eq!(span.name, *outer);
        }
        let asked_by = hex(&span.parent_span_id);
        ensure!(CALLER.contains(&asked_by), "{asked_by}");
    }
    let count = |name: &str| spans.values().filter(|span| span.name == name).count();
    assert_eq!((count("operation delete"), count("merge")), (1, 1));
    let outcome = named("merge")
        .map(|span| span.attributes.clone())
        .unwrap_or_default();
    ensure!(format!("{outcome:?}").contains("merged"), "{outcome:?}");
    for phase in [
        "merge pending",
        "merge ready",
        "merge pivoting",
        "merge verifying",
    ] {
        ensure!(count(phase) > 0, "no {phase}");
    }
    Ok(())
}

/// An authority's files, and a certificate of its for this machine.
struct Certificate {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn make(dir: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let names = ["127.0.0.1", SENDER].map(str::to_owned);
        let cert = CertificateParams::new(names.to_vec())?.signed_by(&key, &authority)?;
        let put = |part: &str, text: String| {
            let path = dir.join(format!("{name}-{part}.pem"));
            std::fs::write(&path, text).map(|()| path)
        };
        Ok(Self {
            ca: put("ca", authority.pem())?,
            cert: put("cert", cert.pem())?,
            key: put("key", key.serialize_pem())?,
        })
    }
}

/// A collector that has a certificate and lets in who shows one of the same authority; a span is sent to
/// it by who shows `own`.
struct Secured {
    collector: Collector,
    sent: trace::Export,
    trace: String,
}

impl Secured {
    async fn sent(collectors: &Certificate, own: Option<&Certificate>) -> Result<Self> {
        let tls = TlsConfig {
            cert_file: Some(collectors.cert.clone()),
            key_file: Some(collectors.key.clone()),
            client_ca_file: Some(collectors.ca.clone()),
            ..TlsConfig::default()
        };
        assert_eq!(tls.client_certificate, ClientCertificate::Required);
        let listen: ListenConfig = toml::from_str("address = '127.0.0.1:0'")?;
        let listener = listen.bind(Reach::Near).await?;
        let ListenAddress::Tcp(address) = listener.address()? else {
            anyhow::bail!("no TCP");
        };
        let collector = Collector::default();
        let auth: AuthConfig = toml::from_str(&format!("subjects.'{SENDER}' = 'agent'"))?;
        let service = <TraceServiceServer<Collector> as NamedService>::NAME;
        let rules = Rules::new().permit(service, &["Export"], &[Role::Agent]);
        let security = Security::open(&tls, Some(&auth), rules)?;
        let server = livemerge_runtime::Server::new(ServerConfig::default())
            .secured(security)
            .service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve(listener));
        let config = TracesConfig {
            endpoint: format!("https://{address}"),
            ca_file: Some(collectors.ca.clone()),
            cert_file: own.map(|own| own.cert.clone()),
            key_file: own.map(|own| own.key.clone()),
        };
        config.check()?;
        let sent = trace::start(&config, "both", "test")?;
        let span = LiveSpan::begin("a span", SpanKind::Internal);
        let trace = span.context().trace_id();
        drop(span);
        Ok(Self {
            collector,
            sent,
            trace,
        })
    }

    /// What has come when the sender has given up what it could not send.
    async fn in_the_end(self) -> Result<usize> {
        tokio::task::spawn_blocking(move || drop(self.sent)).await?;
        let kept = self.collector.0.lock();
        Ok(kept.unwrap_or_else(PoisonError::into_inner).len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_go_to_a_collector_that_wants_a_certificate() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certificate = Certificate::make(dir.path(), "one")?;
    let secured = Secured::sent(&certificate, Some(&certificate)).await?;
    let found = secured.collector.trace(&secured.trace, "a span").await?;
    assert_eq!(found.len(), 1);
    drop(secured.sent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_wants_a_certificate_gets_nothing_without() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certificate = Certificate::make(dir.path(), "one")?;
    let secured = Secured::sent(&certificate, None).await?;
    assert_eq!(secured.in_the_end().await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_nothing_by_a_certificate_of_another_authority() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let certificate = Certificate::make(dir.path(), "one")?;
    let other = Certificate::make(dir.path(), "other")?;
    let secured = Secured::sent(&certificate, Some(&other)).await?;
    assert_eq!(secured.in_the_end().await?, 0);
    Ok(())
}

/// A domain keeps what it removes; its host ends that later, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_ends_later_is_in_the_trace_of_its_operation() -> Result<()> {
    let collector = Collector::default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let config = TracesConfig {
        endpoint: format!("http://{}", listener.local_addr()?),
        ..TracesConfig::default()
    };
    let serve = Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serve);
    let _sent = trace::start(&config, "agent", "test")?;

    let dir = tempfile::tempdir()?;
    let images = dir.path().join("images");
    std::fs::create_dir(&images)?;
    let open = async || {
        let store = FileStore::open("default".parse()?, &images).await?;
        let domain = Domain {
            removal: RemovalPolicy {
                keep_for: Duration::from_millis(500),
                wipe: false,
                discard: false,
            },
            ..Domain::plain(Arc::new(store))
        };
        let host = FakeHypervisor::new(FakeImages::default(), Pace::Manual);
        anyhow::Ok(Volumes::new(vec![domain], Arc::new(host)).noting(&dir.path().join("removals")))
    };
    let volumes = open().await?;
    let storage = "default".parse()?;
    let new = NewVolume {
        name: "victim.qcow2".parse()?,
        virtual_bytes: 1 << 20,
        parent: None,
    };
    let caller: TraceContext = CALLER.parse()?;
    // On a machine that stands still its time may be over at once: then another one is kept.
    let mut tries = 0;
    loop {
        tries += 1;
        let made = volumes.create(&storage, &new).await?;
        let order = RemovalOrder::new(Uuid::new_v4().into(), new.name.clone(), made.identity);
        let removed = trace::scope(Some(caller), volumes.remove(&storage, &order)).await?;
        if removed.state != RemovalState::Gone {
            break;
        }
    }
    drop(volumes);

    let later = open().await?;
    let removals = later.removals(&storage).await?;
    let condemned = removals.first().context("a kept volume")?;
    let RemovalState::Condemned { keep_until } = condemned.state else {
        anyhow::bail!("{condemned:?}");
    };
    while keep_until.is_some_and(|until| {
        livemerge_runtime::Clock::now(&livemerge_runtime::SystemClock) <= until
    }) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut ended = later.go_on(&storage, &removals).await?;
    assert_eq!(ended.len(), 1);
    assert_eq!(ended.remove(0)?.state, RemovalState::Gone);
    let of_caller = async || {
        let spans = collector
            .trace(&caller.trace_id(), "volume removal")
            .await?;
        anyhow::Ok(spans.len())
    };
    let both = async {
        while of_caller().await? <= tries {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let both = tokio::time::timeout(LIMIT, both).await;
    both.context("the later end is in another trace")??;
    later.removals(&storage).await?;
    let left = std::fs::read_dir(dir.path().join("removals/default"))?;
    assert_eq!(left.count(), 0, "its note goes with it");
    Ok(())
}
