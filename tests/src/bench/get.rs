//! `GetSnapshot` of the API server's process, beside a process of tonic alone that answers the same
//! message from memory: calls a second, by the same clients on the same two cores.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use livemerge_proto::ids::SnapshotId;
use livemerge_proto::v1;

use super::echo::EchoProcess;
use super::figures::{Comparison, Figures};
use super::served::{Served, connections, rate};
use crate::api::Api;

const GOAL: f64 = 0.6;
const SNAPSHOTS: usize = 1_000;
const CONNECTIONS: usize = 4;
/// Calls under way at once, over all connections.
const AT_ONCE: usize = 64;
const CALLS: usize = 20_000;

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let served = Served::start(SNAPSHOTS).await?;
    let first = served.snapshots.first().context("a snapshot")?.to_string();
    let echo = EchoProcess::start(&served.server.endpoint(), &first)?;
    let (ours, bare) = (
        served.connections(CONNECTIONS).await?,
        connections(&echo.endpoint, CONNECTIONS).await?,
    );
    let (mut got, mut echoed) = (Vec::new(), Vec::new());
    for round in 0..=runs {
        let a = calls(&ours, &served.snapshots).await?;
        let b = calls(&bare, &served.snapshots).await?;
        if round > 0 {
            got.push(a);
            echoed.push(b);
        }
    }
    figures.add_rates(&Comparison {
        what: &format!("GetSnapshot, {AT_ONCE} at once"),
        beside: "bare tonic, the same answer",
        goal: Some(GOAL),
        unit: "calls/s",
        ours: &got,
        peer: &echoed,
    });
    Ok(())
}

async fn calls(connections: &[Api], snapshots: &[SnapshotId]) -> Result<f64> {
    let clients = connections.iter().cycle().take(AT_ONCE).cloned();
    let ids: Arc<[String]> = snapshots.iter().map(ToString::to_string).collect();
    rate(clients.collect(), CALLS, move |mut api, number| {
        let snapshot_id = ids[number % ids.len()].clone();
        async move {
            let request = v1::GetSnapshotRequest { snapshot_id };
            api.snapshots.get_snapshot(request).await?;
            Ok(())
        }
    })
    .await
}
