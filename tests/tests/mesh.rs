//! Both services behind a proxy that speaks HTTP/2, as in a mesh: nghttpx, as `deploy/proxy` configures it.
//!
//! ```text
//!   clients ─▶ nghttpx ─▶ livemerge-api-server ─▶ nghttpx ─▶ agent, with a scripted hypervisor
//! ```
//! A proxy breaks calls in ways of its own: it answers for a server that is away, it resets the streams
//! of a connection that broke behind it, and ends what has been quiet for too long.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_runtime::Backoff;
use livemerge_runtime::client::{CallPolicy, Methods, Patience, Patient, Seen, Watch, WatchPolicy};
use livemerge_tests::api::Api;
use livemerge_tests::proxy::Proxy;
use livemerge_tests::scripted::{Machines, ScriptedHost};
use livemerge_tests::services::{Reach, Service};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(60);
const QUICK: Pace = Pace::Every(Duration::from_millis(2));
/// Of a proxy that is impatient.
const IDLE: &str = "1s";
const WATCH: WatchPolicy = WatchPolicy {
    open: LIMIT,
    silence: LIMIT,
    backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(200)),
};

/// Both services, each behind a proxy.
struct Mesh {
    vms: Vec<Uuid>,
    server: Service,
    front: Proxy,
    _before_agent: Proxy,
    _host: ScriptedHost,
    dir: TempDir,
}

impl Mesh {
    async fn start(pace: Pace, vms: usize, instead: &[(&str, &str)]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let machines = Machines::new(pace);
        let vms: Vec<_> = (0..vms).map(|_| Uuid::new_v4()).collect();
        for (number, vm) in vms.iter().enumerate() {
            let name = format!("vm-{number}");
            machines.add(VmId::from(*vm), &name, &[format!("{name}.qcow2")]);
        }
        let host = ScriptedHost::start(dir.path(), &machines).await?;
        let before_agent = Proxy::before(host.endpoint(), dir.path(), instead)?;
        let mut server = Service::api_server(dir.path(), Reach::Loopback, "")?;
        server.start()?;
        let front = Proxy::before(&server.endpoint(), dir.path(), instead)?;
        let mut api = Api::at(front.endpoint())?;
        host.register(&mut api, before_agent.endpoint()).await?;
        for vm in &vms {
            api.wait_for_vm(*vm, LIMIT).await?;
        }
        Ok(Self {
            vms,
            server,
            front,
            _before_agent: before_agent,
            _host: host,
            dir,
        })
    }

    fn api(&self) -> Result<Api> {
        Api::at(self.front.endpoint())
    }

    /// As the programs call each other, and as often as it takes.
    fn patient(&self) -> Result<Patient<Channel>> {
        let policy = CallPolicy {
            time: LIMIT,
            tries: NonZeroU32::new(1_000).context("not zero")?,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(200)),
            repeats_per_second: 1_000,
            repeats_per_call: 0.0,
        };
        let channel = Endpoint::from_shared(self.front.endpoint().to_owned())?.connect_lazy();
        Ok(Patience::new(Methods::of(DESCRIPTORS)?, policy).over(channel))
    }

    /// A proxy of its own before the server, which ends what is quiet for a second.
    fn impatient(&self) -> Result<Proxy> {
        let keys = [
            "frontend-http2-read-timeout",
            "backend-read-timeout",
            "stream-read-timeout",
        ];
        let instead = keys.map(|key| (key, IDLE));
        Proxy::before(&self.server.endpoint(), self.dir.path(), &instead)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_and_deleted_through_proxies() -> Result<()> {
    let mesh = Mesh::start(QUICK, 1, &[]).await?;
    let mut api = mesh.api()?;
    let vm = mesh.vms[0];
    let snapshot = api.snapshot(vm, "first").await?;
    let delete = api.delete(&snapshot).await?;
    let request = v1::WatchOperationRequest {
        operation_id: delete.id.clone(),
    };
    let mut watch = api.operations.watch_operation(request).await?.into_inner();
    let mut last = None;
    while let Some(shown) = watch.message().await? {
        last = shown.operation;
    }
    let last = last.context("an operation")?;
    assert_eq!(last.state(), v1::OperationState::Succeeded, "{last:?}");

    // What an error says goes through, too: it stands in the trailers.
    let missing = v1::GetSnapshotRequest {
        snapshot_id: snapshot,
    };
    let refused = api.snapshots.get_snapshot(missing).await.unwrap_err();
    let problem = Problem::try_from(refused).ok().context("a reason")?;
    assert_eq!(problem.reason, Reason::SnapshotNotFound);
    Ok(())
}

/// Each change once, whether the server is told to stop or is killed while it is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_or_dies_behind_a_proxy_loses_no_call() -> Result<()> {
    const CLIENTS: usize = 4;
    const CHANGES: usize = 150;
    let mut mesh = Mesh::start(QUICK, CLIENTS, &[]).await?;
    let mut api = mesh.api()?;
    let mut snapshots = Vec::new();
    for vm in &mesh.vms {
        snapshots.push(api.snapshot(*vm, "kept").await?);
    }
    let (told, mut made) = tokio::sync::watch::channel(0);
    let mut clients = JoinSet::new();
    for snapshot in snapshots.clone() {
        let mut client = SnapshotServiceClient::new(mesh.patient()?);
        let told = told.clone();
        clients.spawn(async move {
            for number in 1..=CHANGES {
                let request = v1::UpdateSnapshotRequest {
                    request_id: Uuid::new_v4().to_string(),
                    snapshot_id: snapshot.clone(),
                    description: Some(format!("change {number}")),
                    ..Default::default()
                };
                client.update_snapshot(request).await?;
                told.send_modify(|made| *made += 1);
                let snapshot_id = snapshot.clone();
                let seen = client
                    .get_snapshot(v1::GetSnapshotRequest { snapshot_id })
                    .await?;
                let seen = seen.into_inner().snapshot.unwrap_or_default();
                ensure!(seen.description == format!("change {number}"), "{seen:?}");
            }
            Ok(())
        });
    }
    let parts = CLIENTS * CHANGES / 4;
    made.wait_for(|made| *made >= parts).await?;
    // SIGTERM: the proxy is told by GOAWAY, and what has begun is answered. It ends with exit code 0.
    mesh.server.stop()?;
    mesh.server.start()?;
    made.wait_for(|made| *made >= 2 * parts).await?;
    mesh.server.kill()?;
    mesh.server.start()?;
    while let Some(done) = clients.join_next().await {
        done??;
    }
    for vm in &mesh.vms {
        let log = api.log(*vm).await?;
        let changes = log
            .iter()
            .filter(|event| event.r#type() == v1::EventType::SnapshotUpdated);
        assert_eq!(changes.count(), CHANGES);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_keeps_a_watch_over_a_proxy_that_ends_what_is_quiet() -> Result<()> {
    let mesh = Mesh::start(QUICK, 1, &[]).await?;
    let impatient = mesh.impatient()?;
    let mut events = Api::at(impatient.endpoint())?.events;
    let heartbeat = Duration::from_millis(100);
    let request = v1::WatchEventsRequest {
        heartbeat_interval: Some(heartbeat.try_into()?),
        ..Default::default()
    };
    let mut watch = events.watch_events(request).await?.into_inner();
    // More than twice the time that the proxy waits.
    for _ in 0..25 {
        let piece = watch.message().await?.context("a heartbeat")?;
        ensure!(piece.event.is_none(), "{piece:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_that_a_proxy_ends_goes_on_where_it_was() -> Result<()> {
    let mesh = Mesh::start(Pace::Manual, 1, &[]).await?;
    let impatient = mesh.impatient()?;
    let channel = Endpoint::from_shared(impatient.endpoint().to_owned())?.connect_lazy();
    let snapshot = mesh.api()?.snapshot(mesh.vms[0], "kept").await?;
    let events = EventServiceClient::new(channel.clone());
    let open = |token: Option<String>| {
        let mut events = events.clone();
        async move {
            let request = v1::WatchEventsRequest {
                types: vec![v1::EventType::SnapshotUpdated.into()],
                resume_token: token.unwrap_or_default(),
                ..Default::default()
            };
            Ok(events.watch_events(request).await?.into_inner())
        }
    };
    let token = |piece: &v1::WatchEventsResponse| Some(piece.resume_token.clone());
    let mut watch = Watch::new(WATCH, "events", None, open, token);
    ensure!(matches!(watch.next().await?, Seen::Piece(_)), "it begins");

    let rename = |number: usize| {
        let request = v1::UpdateSnapshotRequest {
            request_id: Uuid::new_v4().to_string(),
            snapshot_id: snapshot.clone(),
            description: Some(format!("change {number}")),
            ..Default::default()
        };
        let api = mesh.api();
        async move { anyhow::Ok(api?.snapshots.update_snapshot(request).await?) }
    };
    for number in 1..=2 {
        // The heartbeat is 15 s.
        let lost = tokio::time::timeout(LIMIT, watch.next()).await??;
        ensure!(matches!(lost, Seen::Lost(_)), "{lost:?}");
        rename(number).await?;
        let event = loop {
            match tokio::time::timeout(LIMIT, watch.next()).await?? {
                Seen::Piece(piece) if piece.event.is_some() => break piece.event,
                Seen::Piece(_) | Seen::Lost(_) => {}
                Seen::Afresh(status) => return Err(status.into()),
            }
        };
        let event = event.context("an event")?;
        ensure!(event.snapshot_id == snapshot, "{event:?}");
    }

    // An operation that stands still is quiet for 10 s.
    let delete = mesh.api()?.delete(&snapshot).await?;
    let operations = OperationServiceClient::new(channel);
    let open = |_: Option<()>| {
        let (mut operations, operation_id) = (operations.clone(), delete.id.clone());
        async move {
            let request = v1::WatchOperationRequest { operation_id };
            Ok(operations.watch_operation(request).await?.into_inner())
        }
    };
    let mut watch = Watch::new(WATCH, "operation", None, open, |_| None);
    let mut opened = 0;
    while opened < 2 {
        match tokio::time::timeout(LIMIT, watch.next()).await?? {
            Seen::Lost(_) => {
                // It is shown again from the beginning.
                let shown = tokio::time::timeout(LIMIT, watch.next()).await??;
                ensure!(matches!(shown, Seen::Piece(_)), "{shown:?}");
                opened += 1;
            }
            Seen::Piece(_) => {}
            Seen::Afresh(status) => return Err(status.into()),
        }
    }
    Ok(())
}
