//! Two thousand watches that are open at once: what they take of the server's memory, and how late a
//! change arrives at them.
//!
//! ```text
//!   100 operations, each watched 20 times ◀── UpdateOperation, one after the other
//!   a delay: from before that call to a watch that shows the change, its commit included
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use livemerge_proto::v1;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::Streaming;

use super::figures::{Comparison, Figures};
use super::served::Served;
use super::{LIMIT, median};
use crate::api::Api;

const OPERATIONS: usize = 100;
const WATCHES: usize = 2_000;
const CONNECTIONS: usize = 10;
const MEMORY: f64 = 64.0;
const DELAY_MS: f64 = 100.0;

type Watch = Streaming<v1::WatchOperationResponse>;

/// A watch has shown a limit.
struct Shown {
    limit: i64,
    at: Instant,
}

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let served = Served::start(OPERATIONS).await?;
    let connections = served.connections(CONNECTIONS).await?;
    let operations = begin(&served, &connections).await?;
    settle(&served).await?;
    let before = served.memory()?;
    let (told, mut shown) = mpsc::unbounded_channel();
    let mut watching = JoinSet::new();
    for number in 0..WATCHES {
        let mut api = connections[number % CONNECTIONS].clone();
        let operation_id = operations[number % OPERATIONS].clone();
        let request = v1::WatchOperationRequest { operation_id };
        let mut watch = api.operations.watch_operation(request).await?.into_inner();
        watch.message().await?.context("the operation")?;
        watching.spawn(follow(watch, told.clone()));
    }
    let (mut held, mut delays) = (Vec::new(), Vec::new());
    for round in 1..=runs {
        let mut of_round = Vec::with_capacity(WATCHES);
        for (place, id) in operations.iter().enumerate() {
            let limit = i64::try_from((round * OPERATIONS + place) << 20)?;
            let mut api = connections[place % CONNECTIONS].clone();
            let request = v1::UpdateOperationRequest {
                operation_id: id.clone(),
                bytes_per_second: limit,
            };
            let begun = Instant::now();
            api.operations.update_operation(request).await?;
            for _ in 0..WATCHES / OPERATIONS {
                let arrived = next(&mut shown, limit).await?;
                of_round.push(arrived.duration_since(begun).as_secs_f64() * 1000.0);
            }
        }
        ensure!(watching.try_join_next().is_none(), "a watch has ended");
        delays.push(median(&of_round));
        held.push(served.memory()?.saturating_sub(before) as f64 / f64::from(1 << 20));
    }
    tell(figures, &held, &delays);
    Ok(())
}

fn tell(figures: &mut Figures, held: &[f64], delays: &[f64]) {
    figures.add(&Comparison {
        what: &format!("memory of {WATCHES} watches"),
        beside: "64 MiB",
        goal: Some(1.0),
        unit: "MiB",
        ours: held,
        peer: &vec![MEMORY; held.len()],
    });
    figures.add(&Comparison {
        what: &format!("a change shown by one of {WATCHES} watches"),
        beside: "100 ms",
        goal: Some(1.0),
        unit: "ms",
        ours: delays,
        peer: &vec![DELAY_MS; delays.len()],
    });
}

/// Deletes that stay open: their jobs never move, or they wait for a place on the host.
async fn begin(served: &Served, connections: &[Api]) -> Result<Arc<[String]>> {
    let mut ids = Vec::with_capacity(OPERATIONS);
    let mut api = connections.first().context("a connection")?.clone();
    for snapshot in &served.snapshots {
        ids.push(api.delete(&snapshot.to_string()).await?.id);
    }
    Ok(ids.into())
}

/// Until the lanes rest, and what calls have taken is as large as it will be.
async fn settle(served: &Served) -> Result<()> {
    let mut last = served.memory()?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = served.memory()?;
        if now <= last {
            return Ok(());
        }
        last = now;
    }
}

async fn follow(mut watch: Watch, told: mpsc::UnboundedSender<Shown>) -> Result<()> {
    let mut last = 0;
    while let Some(message) = watch.message().await? {
        let at = Instant::now();
        let limit = message.operation.unwrap_or_default().bytes_per_second;
        if limit != last {
            // Nobody listens any more at the end.
            let _ = told.send(Shown { limit, at });
            last = limit;
        }
    }
    Ok(())
}

/// When the next watch has shown a limit.
async fn next(shown: &mut mpsc::UnboundedReceiver<Shown>, limit: i64) -> Result<Instant> {
    let next = async {
        loop {
            let shown = shown.recv().await.context("the watches have ended")?;
            if shown.limit == limit {
                return Ok(shown.at);
            }
        }
    };
    let next = tokio::time::timeout(LIMIT, next).await;
    next.context("a change does not arrive")?
}
