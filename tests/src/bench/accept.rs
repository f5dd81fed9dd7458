//! Deletes that are accepted, from the call to the operation that is on disk, many at once;
//! beside as many rows that the SQLite library inserts and commits one by one, in the same mode of its
//! journal, as durably, on the same file system.
//!
//! Every delete is of another machine: the server looks at its chain on the host before it accepts, and
//! its lane plans the merge behind the acceptance, which counts, too: on two cores it takes its part.

use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use livemerge_proto::v1;
use tempfile::TempDir;

use super::figures::{Comparison, Figures};
use super::served::{Served, rate};
use crate::process::run;

const GOAL: f64 = 0.5;
const CONNECTIONS: usize = 4;
/// Calls under way at once, over all connections.
const AT_ONCE: usize = 64;
const DELETES: usize = 512;
/// As `SqliteStore` opens its file; a row is as large as an operation's record.
const INSERTS: &str = r#"
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
assert db.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal"
db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE operations (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT")
count, record = int(sys.argv[2]), "x" * 700
begun = time.monotonic()
for number in range(count):
    db.execute("INSERT INTO operations VALUES (?, ?)", (f"{number:032x}", record))
print(count / (time.monotonic() - begun))
"#;

pub(super) async fn measure(runs: usize, figures: &mut Figures) -> Result<()> {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for round in 0..=runs {
        let accepted = accepted().await?;
        let inserted = tokio::task::spawn_blocking(inserted).await??;
        if round > 0 {
            ours.push(accepted);
            peer.push(inserted);
        }
    }
    figures.add_rates(&Comparison {
        what: &format!("DeleteSnapshot accepted, {AT_ONCE} at once"),
        beside: "single-row commits of bare SQLite",
        goal: Some(GOAL),
        unit: "1/s",
        ours: &ours,
        peer: &peer,
    });
    Ok(())
}

/// How many a second are accepted by a server with an empty list of operations.
async fn accepted() -> Result<f64> {
    let served = Served::start(DELETES).await?;
    let ids: Arc<[String]> = served.snapshots.iter().map(ToString::to_string).collect();
    let connections = served.connections(CONNECTIONS).await?;
    let clients = connections.iter().cycle().take(AT_ONCE).cloned();
    let measured = rate(clients.collect(), DELETES, move |mut api, number| {
        let snapshot = ids[number].clone();
        async move {
            api.delete(&snapshot).await?;
            Ok(())
        }
    });
    let measured = measured.await?;
    let mut api = served.connections(1).await?.pop().context("a connection")?;
    let request = v1::ListOperationsRequest {
        page_size: 1_000,
        ..Default::default()
    };
    let listed = api.operations.list_operations(request).await?;
    let count = listed.into_inner().operations.len();
    ensure!(count == DELETES, "{count} of {DELETES} operations");
    Ok(measured)
}

fn inserted() -> Result<f64> {
    let dir = TempDir::with_prefix_in("lb", "/var/tmp")?;
    let mut command = Command::new("python3");
    command
        .args(["-c", INSERTS])
        .arg(dir.path().join("bare.db"));
    let rate = run(command.arg(DELETES.to_string()))?;
    Ok(rate.trim().parse()?)
}
