//! Changes the record: each call is one transaction, begun as a writing one. Those of operations are made
//! in [`together`](super::together).

use super::open::unavailable;
use super::read;
use super::writer::Writer;
use crate::snapshot::{HostRecord, NewEvent, Operation, OperationState, Snapshot, VmRecord};
use crate::store::{Change, RequestRecord, SnapshotChange, StateName, StoreError};
use jiff::Timestamp;
use livemerge_proto::ids::HostId;
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

/// An operation with what belongs to it.
pub(super) async fn change_all(
    tx: &mut SqliteConnection,
    change: &Change,
) -> Result<Operation, StoreError> {
    let operation = put_operation(tx, &change.operation).await?;
    change_snapshots(tx, &change.snapshots, &change.events).await?;
    Ok(operation)
}

/// Notes what a request got.
pub(super) async fn note_request(
    tx: &mut SqliteConnection,
    request: &RequestRecord,
    operation: &Operation,
) -> Result<(), StoreError> {
    let query =
        "INSERT INTO requests (id, fingerprint, operation_id, accepted_at) VALUES (?, ?, ?, ?)";
    let query = sqlx::query(query)
        .bind(request.id.to_string())
        .bind(&request.fingerprint);
    let query = query
        .bind(operation.id.to_string())
        .bind(operation.created_at.as_second());
    query.execute(tx).await.map_err(unavailable)?;
    Ok(())
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
                let query = sqlx::query("DELETE FROM snapshots WHERE id = ?").bind(id.to_string());
                query.execute(&mut *tx).await.map_err(unavailable)?;
            }
        }
    }
    for event in events {
        add_event(tx, event).await?;
    }
    Ok(())
}

async fn put_operation(
    tx: &mut SqliteConnection,
    operation: &Operation,
) -> Result<Operation, StoreError> {
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
    let query = if operation.revision == 0 {
        "INSERT INTO operations (id, vm_id, state, revision, record) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO NOTHING"
    } else {
        "UPDATE operations SET state = ?3, revision = ?4, record = ?5 WHERE id = ?1 AND revision = ?6"
    };
    let query = sqlx::query(query)
        .bind(next.id.to_string())
        .bind(next.vm.to_string())
        .bind(state);
    let query = query
        .bind(integer(next.revision))
        .bind(json(&next)?)
        .bind(integer(operation.revision));
    let done = query.execute(&mut *tx).await.map_err(unavailable)?;
    changed(done.rows_affected(), || {
        format!("operation {}", operation.id)
    })?;
    Ok(next)
}

async fn put_snapshot(tx: &mut SqliteConnection, snapshot: &Snapshot) -> Result<(), StoreError> {
    let next = Snapshot {
        revision: snapshot.revision.saturating_add(1),
        ..snapshot.clone()
    };
    let query = if snapshot.revision == 0 {
        "INSERT INTO snapshots (id, vm_id, name, revision, record) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO NOTHING"
    } else {
        "UPDATE snapshots SET name = ?3, revision = ?4, record = ?5 WHERE id = ?1 AND revision = ?6"
    };
    let query = sqlx::query(query)
        .bind(next.id.to_string())
        .bind(next.vm.to_string());
    let query = query
        .bind(next.name.as_str())
        .bind(integer(next.revision))
        .bind(json(&next)?);
    let done = query
        .bind(integer(snapshot.revision))
        .execute(&mut *tx)
        .await;
    let done = done.map_err(|error| match error.as_database_error() {
        Some(violation) if violation.is_unique_violation() => StoreError::NameTaken,
        _ => unavailable(error),
    })?;
    changed(done.rows_affected(), || format!("snapshot {}", snapshot.id))
}

/// No row: the record is not the one that was read.
fn changed(rows: u64, what: impl FnOnce() -> String) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict(what()))
    }
}

async fn add_event(tx: &mut SqliteConnection, event: &NewEvent) -> Result<(), StoreError> {
    let query = sqlx::query("INSERT INTO events (vm_id, operation_id, record) VALUES (?, ?, ?)")
        .bind(event.vm.map(|id| id.to_string()))
        .bind(event.operation.map(|id| id.to_string()))
        .bind(json(event)?);
    query.execute(&mut *tx).await.map_err(unavailable)?;
    Ok(())
}

fn json(record: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
