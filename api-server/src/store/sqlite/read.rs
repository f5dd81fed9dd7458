//! Reads the record.

use super::open::unavailable;
use crate::snapshot::{Event, HostRecord, NewEvent, Operation, Severity, Snapshot, VmRecord};
use crate::store::{
    EventFilter, LogEnd, OperationFilter, Page, RequestRecord, StateName, StoreError, VmFilter,
};
use livemerge_proto::ids::{HostId, OperationId, SnapshotId, VmId};
use livemerge_storage::VolumeRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Decode, QueryBuilder, Row as _, Type};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

pub(super) async fn hosts(readers: &SqlitePool) -> Result<Vec<HostRecord>, StoreError> {
    let rows = sqlx::query("SELECT id, endpoint, generation, version FROM hosts ORDER BY id");
    rows.fetch_all(readers)
        .await
        .map_err(unavailable)?
        .iter()
        .map(host)
        .collect()
}

fn host(row: &SqliteRow) -> Result<HostRecord, StoreError> {
    named("host", row, || {
        Ok(HostRecord {
            id: id(row, "id")?,
            endpoint: column(row, "endpoint")?,
            generation: column::<i64>(row, "generation")?.cast_unsigned(),
            version: column(row, "version")?,
        })
    })
}

pub(super) async fn maintenance(readers: &SqlitePool) -> Result<BTreeSet<HostId>, StoreError> {
    let rows = sqlx::query("SELECT host_id AS id FROM maintenance");
    let rows = rows.fetch_all(readers).await.map_err(unavailable)?;
    let host = |row| named("maintenance of host", row, || id(row, "id"));
    rows.iter().map(host).collect()
}

pub(super) async fn vm(readers: &SqlitePool, id: VmId) -> Result<Option<VmRecord>, StoreError> {
    let row = sqlx::query("SELECT id, name, host_id FROM vms WHERE id = ?").bind(id.to_string());
    row.fetch_optional(readers)
        .await
        .map_err(unavailable)?
        .as_ref()
        .map(vm_record)
        .transpose()
}

pub(super) async fn vms(
    readers: &SqlitePool,
    filter: &VmFilter,
    page: &Page<VmId>,
) -> Result<Vec<VmRecord>, StoreError> {
    let mut query = QueryBuilder::new("SELECT id, name, host_id FROM vms WHERE 1");
    only(&mut query, " AND host_id = ", filter.host.as_ref());
    only(&mut query, " AND name = ", filter.name.as_ref());
    only(&mut query, " AND id > ", page.after);
    rows(query, " ORDER BY id", page.limit, readers)
        .await?
        .iter()
        .map(vm_record)
        .collect()
}

fn vm_record(row: &SqliteRow) -> Result<VmRecord, StoreError> {
    named("virtual machine", row, || {
        Ok(VmRecord {
            id: id(row, "id")?,
            name: column(row, "name")?,
            host: id(row, "host_id")?,
        })
    })
}

pub(super) async fn snapshot(
    readers: &SqlitePool,
    id: SnapshotId,
) -> Result<Option<Snapshot>, StoreError> {
    let row =
        sqlx::query("SELECT id, revision, record FROM snapshots WHERE id = ?").bind(id.to_string());
    row.fetch_optional(readers)
        .await
        .map_err(unavailable)?
        .as_ref()
        .map(snapshot_record)
        .transpose()
}

pub(super) async fn snapshots(
    readers: &SqlitePool,
    vm: Option<VmId>,
    page: &Page<SnapshotId>,
) -> Result<Vec<Snapshot>, StoreError> {
    let mut query = QueryBuilder::new("SELECT id, revision, record FROM snapshots WHERE 1");
    only(&mut query, " AND vm_id = ", vm);
    only(&mut query, " AND id > ", page.after);
    rows(query, " ORDER BY id", page.limit, readers)
        .await?
        .iter()
        .map(snapshot_record)
        .collect()
}

/// The name is searched for in the whole record: it is written there as it is.
pub(super) async fn snapshots_that_need(
    readers: &SqlitePool,
    volume: &VolumeRef,
) -> Result<Vec<Snapshot>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, revision, record FROM snapshots WHERE instr(record, ?) > 0 ORDER BY id",
    );
    let rows = rows.bind(volume.name.to_string()).fetch_all(readers).await;
    let found = rows.map_err(unavailable)?;
    let mut found: Vec<Snapshot> = found
        .iter()
        .map(snapshot_record)
        .collect::<Result<_, _>>()?;
    found.retain(|snapshot| snapshot.needs(volume));
    Ok(found)
}

fn snapshot_record(row: &SqliteRow) -> Result<Snapshot, StoreError> {
    named("snapshot", row, || {
        Ok(Snapshot {
            revision: number(row, "revision")?,
            ..json(row)?
        })
    })
}

pub(super) async fn operation(
    reader: &mut SqliteConnection,
    id: OperationId,
) -> Result<Option<Operation>, StoreError> {
    let row = sqlx::query("SELECT id, revision, record FROM operations WHERE id = ?")
        .bind(id.to_string());
    row.fetch_optional(reader)
        .await
        .map_err(unavailable)?
        .as_ref()
        .map(operation_record)
        .transpose()
}

pub(super) async fn operations(
    readers: &SqlitePool,
    filter: &OperationFilter,
    page: &Page<OperationId>,
) -> Result<Vec<Operation>, StoreError> {
    let mut query = QueryBuilder::new("SELECT id, revision, record FROM operations WHERE 1");
    only(&mut query, " AND vm_id = ", filter.vm);
    only(&mut query, " AND id < ", page.after);
    if !filter.states.is_empty() {
        query.push(" AND ");
        one_of(
            &mut query,
            "state",
            filter
                .states
                .iter()
                .map(|state| state_text(*state).to_owned()),
        );
    }
    rows(query, " ORDER BY id DESC", page.limit, readers)
        .await?
        .iter()
        .map(operation_record)
        .collect()
}

pub(super) async fn open_operations(readers: &SqlitePool) -> Result<Vec<Operation>, StoreError> {
    // By the order of acceptance: an id is as old as the clock said, and clocks jump back.
    let rows = sqlx::query(
        "SELECT id, revision, record FROM operations WHERE state IN ('queued', 'running') ORDER BY rowid",
    );
    rows.fetch_all(readers)
        .await
        .map_err(unavailable)?
        .iter()
        .map(operation_record)
        .collect()
}

fn operation_record(row: &SqliteRow) -> Result<Operation, StoreError> {
    named("operation", row, || {
        Ok(Operation {
            revision: number(row, "revision")?,
            ..json(row)?
        })
    })
}

pub(super) async fn events(
    readers: &SqlitePool,
    filter: &EventFilter,
    page: &Page<u64>,
) -> Result<Vec<Event>, StoreError> {
    let mut query = QueryBuilder::new("SELECT revision, record FROM events WHERE 1");
    only(&mut query, " AND vm_id = ", filter.vm);
    only(&mut query, " AND operation_id = ", filter.operation);
    if let Some(after) = page.after {
        let beyond = match filter.newest_first {
            true => " AND revision < ",
            false => " AND revision > ",
        };
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        query.push(beyond).push_bind(after);
    }
    if let Some(least) = filter.least {
        let all = [Severity::Info, Severity::Warning, Severity::Error];
        let enough = all.into_iter().filter(|severity| *severity >= least);
        or_unreadable(&mut query, "severity", enough);
    }
    if !filter.kinds.is_empty() {
        or_unreadable(&mut query, "kind", filter.kinds.iter());
    }
    let order = match filter.newest_first {
        true => " ORDER BY revision DESC",
        false => " ORDER BY revision",
    };
    rows(query, order, page.limit, readers)
        .await?
        .iter()
        .map(event)
        .collect()
}

fn event(row: &SqliteRow) -> Result<Event, StoreError> {
    named("event", row, || {
        Ok(Event {
            revision: number(row, "revision")?,
            entry: json::<NewEvent>(row)?,
        })
    })
}

pub(super) async fn log_end(readers: &SqlitePool) -> Result<LogEnd, StoreError> {
    let row = sqlx::query(
        "SELECT value AS log, (SELECT coalesce(max(revision), 0) FROM events) AS revision
         FROM meta WHERE key = 'log'",
    );
    let row = row.fetch_one(readers).await.map_err(unavailable)?;
    named("audit log", &row, || {
        Ok(LogEnd {
            log: number(&row, "log")?,
            revision: number(&row, "revision")?,
        })
    })
}

/// The operation of an earlier request of this id.
pub(super) async fn repeated(
    reader: &mut SqliteConnection,
    request: &RequestRecord,
) -> Result<Option<Operation>, StoreError> {
    let row = sqlx::query(
        "SELECT operations.id, operations.revision, operations.record, requests.fingerprint
         FROM requests JOIN operations ON operations.id = requests.operation_id
         WHERE requests.id = ?",
    );
    let row = row
        .bind(request.id.to_string())
        .fetch_optional(reader)
        .await
        .map_err(unavailable)?;
    let Some(row) = row else { return Ok(None) };
    let fingerprint = named("request of operation", &row, || {
        column::<String>(&row, "fingerprint")
    })?;
    if fingerprint != request.fingerprint {
        return Err(StoreError::RequestIdReused);
    }
    operation_record(&row).map(Some)
}

pub(super) fn state_text(state: StateName) -> &'static str {
    match state {
        StateName::Queued => "queued",
        StateName::Running => "running",
        StateName::Succeeded => "succeeded",
        StateName::Failed => "failed",
        StateName::Cancelled => "cancelled",
    }
}

fn only(query: &mut QueryBuilder<Sqlite>, condition: &'static str, value: Option<impl ToString>) {
    if let Some(value) = value {
        query.push(condition).push_bind(value.to_string());
    }
}

fn one_of(
    query: &mut QueryBuilder<Sqlite>,
    column: &'static str,
    values: impl Iterator<Item = String>,
) {
    query.push(column).push(" IN (");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    query.push(")");
}

/// A row that cannot be read is not left out: it fails the call, by its name.
fn or_unreadable(
    query: &mut QueryBuilder<Sqlite>,
    column: &'static str,
    values: impl Iterator<Item = impl Serialize>,
) {
    query.push(" AND (").push(column).push(" IS NULL OR ");
    let word = |value| match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Some(word),
        _ => None,
    };
    one_of(query, column, values.filter_map(word));
    query.push(")");
}

async fn rows(
    mut query: QueryBuilder<Sqlite>,
    order: &'static str,
    limit: usize,
    readers: &SqlitePool,
) -> Result<Vec<SqliteRow>, StoreError> {
    query
        .push(order)
        .push(" LIMIT ")
        .push_bind(i64::try_from(limit).unwrap_or(i64::MAX))
        // A bare parameter is part of the plan: SQLite would prepare the query anew each time it is bound.
        .push(" + 0");
    query.build().fetch_all(readers).await.map_err(unavailable)
}

/// What `read` finds in a row; an error names the row, whose key is its first column.
fn named<T>(
    what: &str,
    row: &SqliteRow,
    read: impl FnOnce() -> Result<T, String>,
) -> Result<T, StoreError> {
    read().map_err(|why| {
        let number = || row.try_get::<i64, _>(0).map(|key| key.to_string());
        let key = row.try_get::<String, _>(0).or_else(|_| number());
        StoreError::Corrupt(format!("{what} {}: {why}", key.unwrap_or_default()))
    })
}

fn column<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, String>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(column).map_err(|error| error.to_string())
}

fn id<T: FromStr<Err: Display>>(row: &SqliteRow, name: &str) -> Result<T, String> {
    let text: &str = column(row, name)?;
    text.parse()
        .map_err(|error| format!("{name} {text:?} {error}"))
}

fn number(row: &SqliteRow, name: &str) -> Result<u64, String> {
    let number: i64 = column(row, name)?;
    u64::try_from(number).map_err(|_| format!("{name} is {number}"))
}

fn json<T: DeserializeOwned>(row: &SqliteRow) -> Result<T, String> {
    serde_json::from_str(column(row, "record")?).map_err(|error| error.to_string())
}
