//! One trace from the call that deletes a snapshot to the removal of the volume, over restarts of both
//! services, as a collector gets it.

use anyhow::{Context as _, Result, ensure};
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_runtime::{TraceContext, TracesConfig, trace};
use livemerge_tests::cluster::Cluster;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(60);
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

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
