//! A database that comes late, and one that is away for a while.

use crate::until;
use livemerge_api_server::config::Config;
use livemerge_api_server::server;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_runtime::{Client, Line};
use sqlx::{Connection as _, SqliteConnection};
use std::fs;
use std::time::Duration;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// All that health knows of: each service, and the server as a whole.
const NAMES: [&str; 5] = [
    "",
    "livemerge.v1.EventService",
    "livemerge.v1.InventoryService",
    "livemerge.v1.OperationService",
    "livemerge.v1.SnapshotService",
];

/// Waits until health says this of each.
async fn all_are(line: &Line, status: ServingStatus) {
    for name in NAMES {
        until(name, async || {
            let service = name.to_owned();
            let mut health = HealthClient::new(line.clone());
            let answer = health.check(HealthCheckRequest { service }).await.ok()?;
            (answer.get_ref().status() == status).then_some(())
        })
        .await;
    }
}

async fn list(line: &Line) -> Result<usize, Problem> {
    let request = v1::ListSnapshotsRequest {
        vm_id: "-".to_owned(),
        ..v1::ListSnapshotsRequest::default()
    };
    let mut client = SnapshotServiceClient::new(line.clone());
    let answer = client.list_snapshots(request).await;
    let answer = answer.map_err(|status| Problem::try_from(status).unwrap())?;
    Ok(answer.get_ref().snapshots.len())
}

#[tokio::test]
async fn the_server_is_there_before_its_database_and_outlives_its_absence() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("not-mounted-yet");
    let mut config = Config::default();
    config.store.path = home.join("api.db");
    let socket = format!("unix:{}", dir.path().join("api.sock").display());
    config.listen.address = socket.parse().unwrap();
    let database = config.store.path.clone();
    let serving = tokio::spawn(async move { server::run(&config, false).await });
    let line = Client::default()
        .line(&socket, |endpoint| endpoint)
        .unwrap();

    all_are(&line, ServingStatus::NotServing).await;
    let absent = list(&line).await.unwrap_err();
    assert_eq!(absent.reason, Reason::StoreUnavailable);
    assert_eq!(absent.retry_after, Some(Duration::from_secs(1)));

    fs::create_dir(&home).unwrap();
    all_are(&line, ServingStatus::Serving).await;
    assert_eq!(list(&line).await, Ok(0));

    // Nothing can be written while somebody else writes.
    let url = format!("sqlite://{}", database.display());
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    all_are(&line, ServingStatus::NotServing).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    all_are(&line, ServingStatus::Serving).await;
    serving.abort();
}
