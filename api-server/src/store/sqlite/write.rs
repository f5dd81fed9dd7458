//! Changes the record: each call is one transaction, begun as a writing one. Those of operations are made
//! in [`together`](super::together).

use super::open::unavailable;
use super::read;
use super::statement::{Statement, execute};
use super::writer::Writer;
use crate::snapshot::{HostRecord, NewEvent, Operation, OperationState, Snapshot, VmRecord};
use crate::store::{Change, RequestRecord, SnapshotChange, StateName, StoreError};
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, SnapshotId};
use serde::Serialize;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

pub(super) async fn next_generation(writer: &Writer) -> Result<u64, StoreError> {
    let mut tx = writer.begin().await?;
    let query = "UPDATE meta SET value = value + 1 WHERE key = 'generation' RETURNING value";
    let row = sqlx::query(query)
        .fetch_one(&mut *tx)
        .await
        .map_err(unavailable)?;
    let generation: i64 = row.try_get("value").map_err(unavailable)?;
    writer.commit(tx).await?;
    u64::try_from(generation)
        .map_err(|_| StoreError::Corrupt(format!("the generation is {generation}")))
}

pub(super) async fn put_host(
    writer: &Writer,
    host: &HostRecord,
    event: Option<&NewEvent>,
) -> Result<(), StoreError> {
    let mut tx = writer.begin().await?;
    let known = sqlx::query("SELECT generation FROM hosts WHERE id = ?").bind(host.id.as_str());
    if let Some(row) = known.fetch_optional(&mut *tx).await.map_err(unavailable)? {
        let known: i64 = row.try_get("generation").map_err(unavailable)?;
        let known = known.cast_unsigned();
        if known > host.generation {
            return Err(StoreError::Stale {
                given: host.generation,
                known,
            });
        }
    }
    let query = "INSERT INTO hosts (id, endpoint, generation, version) VALUES (?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET endpoint = excluded.endpoint,
         generation = excluded.generation, version = excluded.version";
    let query = sqlx::query(query)
        .bind(host.id.as_str())
        .bind(&host.endpoint);
    let query = query
        .bind(host.generation.cast_signed())
        .bind(&host.version);
    query.execute(&mut *tx).await.map_err(unavailable)?;
    if let Some(event) = event {
        add_event(&mut tx, event).await?;
    }
    writer.commit_log(tx).await
}

pub(super) async fn set_maintenance(
    writer: &Writer,
    host: &HostId,
    maintenance: bool,
    event: &NewEvent,
) -> Result<(), StoreError> {
    let mut tx = writer.begin().await?;
    let query = match maintenance {
        true => "INSERT INTO maintenance (host_id) VALUES (?) ON CONFLICT (host_id) DO NOTHING",
        false => "DELETE FROM maintenance WHERE host_id = ?",
    };
    let query = sqlx::query(query).bind(host.as_str());
    query.execute(&mut *tx).await.map_err(unavailable)?;
    add_event(&mut tx, event).await?;
    writer.commit_log(tx).await
}

pub(super) async fn put_vms(writer: &Writer, vms: &[VmRecord]) -> Result<(), StoreError> {
    let mut tx = writer.begin().await?;
    for vm in vms {
        let query = "INSERT INTO vms (id, name, host_id) VALUES (?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, host_id = excluded.host_id";
        let query = sqlx::query(query)
            .bind(vm.id.to_string())
            .bind(&vm.name)
            .bind(vm.host.as_str());
        query.execute(&mut *tx).await.map_err(unavailable)?;
    }
    writer.commit(tx).await
}

pub(super) async fn add_events(writer: &Writer, events: &[NewEvent]) -> Result<(), StoreError> {
    if events.is_empty() {
        return writer.try_change().await;
    }
    let mut tx = writer.begin().await?;
    for event in events {
        add_event(&mut tx, event).await?;
    }
    writer.commit_log(tx).await
}

pub(super) async fn put_snapshots(
    writer: &Writer,
    snapshots: &[SnapshotChange],
    events: &[NewEvent],
) -> Result<(), StoreError> {
    let mut tx = writer.begin().await?;
    change_snapshots(&mut tx, snapshots, events).await?;
    writer.commit_log(tx).await
}

pub(super) async fn prune_requests(writer: &Writer, before: Timestamp) -> Result<u64, StoreError> {
    let mut tx = writer.begin().await?;
    let query = "DELETE FROM requests WHERE accepted_at < ? AND operation_id IN
         (SELECT id FROM operations WHERE state NOT IN ('queued', 'running'))";
    let done = sqlx::query(query)
        .bind(before.as_second())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    writer.commit(tx).await?;
    Ok(done.rows_affected())
}

/// An operation with what belongs to it, and the request that it was accepted with.
pub(super) async fn change_all(
    tx: &mut SqliteConnection,
    request: Option<&RequestRecord>,
    change: &Change,
) -> Result<Operation, StoreError> {
    let (operation, statement) = operation_put(&change.operation)?;
    let rows = execute(tx, &[statement]).await.map_err(unavailable)?;
    changed(rows, || format!("operation {}", operation.id))?;
    change_snapshots(tx, &change.snapshots, &change.events).await?;
    if let Some(request) = request {
        let noted = execute(tx, &[request_note(request, &operation)]).await;
        noted.map_err(unavailable)?;
    }
    Ok(operation)
}

/// The same as statements. Where each of them changes one row nothing stands in the way of the change.
pub(super) fn statements(
    request: Option<&RequestRecord>,
    change: &Change,
) -> Result<(Operation, Vec<Statement>), StoreError> {
    let (operation, put) = operation_put(&change.operation)?;
    let mut all = vec![put];
    for snapshot in &change.snapshots {
        all.push(match snapshot {
            SnapshotChange::Put(snapshot) => snapshot_put(snapshot)?,
            SnapshotChange::Delete(id) => snapshot_delete(*id),
        });
    }
    for event in &change.events {
        all.push(event_add(event)?);
    }
    all.extend(request.map(|request| request_note(request, &operation)));
    Ok((operation, all))
}

async fn change_snapshots(
    tx: &mut SqliteConnection,
    snapshots: &[SnapshotChange],
    events: &[NewEvent],
) -> Result<(), StoreError> {
    for snapshot in snapshots {
        match snapshot {
            SnapshotChange::Put(snapshot) => put_snapshot(tx, snapshot).await?,
            SnapshotChange::Delete(id) => {
                let deleted = execute(tx, &[snapshot_delete(*id)]).await;
                deleted.map_err(unavailable)?;
            }
        }
    }
    for event in events {
        add_event(tx, event).await?;
    }
    Ok(())
}

async fn put_snapshot(tx: &mut SqliteConnection, snapshot: &Snapshot) -> Result<(), StoreError> {
    let done = execute(tx, &[snapshot_put(snapshot)?]).await;
    let rows = done.map_err(|error| match error.as_database_error() {
        Some(violation) if violation.is_unique_violation() => StoreError::NameTaken,
        _ => unavailable(error),
    })?;
    changed(rows, || format!("snapshot {}", snapshot.id))
}

async fn add_event(tx: &mut SqliteConnection, event: &NewEvent) -> Result<(), StoreError> {
    execute(tx, &[event_add(event)?])
        .await
        .map_err(unavailable)?;
    Ok(())
}

/// And the operation as it is in the record afterwards.
fn operation_put(operation: &Operation) -> Result<(Operation, Statement), StoreError> {
    let next = Operation {
        revision: operation.revision.saturating_add(1),
        ..operation.clone()
    };
    let state = read::state_text(match next.state {
        OperationState::Queued => StateName::Queued,
        OperationState::Running => StateName::Running,
        OperationState::Succeeded => StateName::Succeeded,
        OperationState::Failed(_) => StateName::Failed,
        OperationState::Cancelled => StateName::Cancelled,
    });
    let put = |text| {
        let put = Statement::new(text).text(state.to_owned());
        Ok::<_, StoreError>(put.integer(integer(next.revision)).text(json(&next)?))
    };
    let id = next.id.to_string();
    let statement = if operation.revision == 0 {
        let text =
            "INSERT INTO operations (state, revision, record, id, vm_id) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (id) DO NOTHING";
        put(text)?.text(id).text(next.vm.to_string())
    } else {
        let text = "UPDATE operations SET state = ?, revision = ?, record = ? WHERE id = ? AND revision = ?";
        put(text)?.text(id).integer(integer(operation.revision))
    };
    Ok((next, statement))
}

fn snapshot_put(snapshot: &Snapshot) -> Result<Statement, StoreError> {
    let next = Snapshot {
        revision: snapshot.revision.saturating_add(1),
        ..snapshot.clone()
    };
    let put = |text| {
        let put = Statement::new(text).text(next.name.as_str().to_owned());
        Ok::<_, StoreError>(put.integer(integer(next.revision)).text(json(&next)?))
    };
    let id = next.id.to_string();
    Ok(if snapshot.revision == 0 {
        let text =
            "INSERT INTO snapshots (name, revision, record, id, vm_id) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (id) DO NOTHING";
        put(text)?.text(id).text(next.vm.to_string())
    } else {
        let text =
            "UPDATE snapshots SET name = ?, revision = ?, record = ? WHERE id = ? AND revision = ?";
        put(text)?.text(id).integer(integer(snapshot.revision))
    })
}

fn snapshot_delete(id: SnapshotId) -> Statement {
    Statement::new("DELETE FROM snapshots WHERE id = ?").text(id.to_string())
}

fn event_add(event: &NewEvent) -> Result<Statement, StoreError> {
    let add = Statement::new("INSERT INTO events (vm_id, operation_id, record) VALUES (?, ?, ?)");
    Ok(add
        .text(event.vm.map(|id| id.to_string()))
        .text(event.operation.map(|id| id.to_string()))
        .text(json(event)?))
}

/// What a request got.
fn request_note(request: &RequestRecord, operation: &Operation) -> Statement {
    let text =
        "INSERT INTO requests (id, fingerprint, operation_id, accepted_at) VALUES (?, ?, ?, ?)";
    Statement::new(text)
        .text(request.id.to_string())
        .text(request.fingerprint.clone())
        .text(operation.id.to_string())
        .integer(operation.created_at.as_second())
}

/// No row: the record is not the one that was read.
fn changed(rows: u64, what: impl FnOnce() -> String) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict(what()))
    }
}

fn json(record: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
