//! What a snapshot's owner may change of it: its name, description, labels and protection. Its data,
//! and what operations write of it, stay as they are.

use super::service::{Snapshots, no_snapshot, settled, unchanged};
use super::types::{EventKind, NewEvent, Severity, Snapshot};
use crate::store::SnapshotChange;
use jiff::Timestamp;
use livemerge_proto::ids::{SnapshotId, SnapshotName};
use livemerge_proto::problem::Problem;
use std::collections::BTreeMap;

/// Asks for a change of what is noted of a snapshot. What is `None` stays.
#[derive(Debug, Clone)]
pub struct UpdateOrder {
    /// Who asks.
    pub caller: String,
    /// Of which snapshot.
    pub snapshot: SnapshotId,
    /// The revision that it must have, if any.
    pub revision: Option<u64>,
    /// Its new name.
    pub name: Option<SnapshotName>,
    /// Its new description.
    pub description: Option<String>,
    /// All its labels from now on.
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether deletes are refused from now on.
    pub deletion_protected: Option<bool>,
}

impl Snapshots {
    /// Changes what is noted of a snapshot. One that is as asked for already is the answer to a
    /// repetition, whatever the revision.
    ///
    /// # Errors
    /// Says why not; nothing was changed then.
    pub async fn update(&self, order: UpdateOrder) -> Result<Snapshot, Problem> {
        let found = self.around.store.snapshot(order.snapshot).await?;
        let known = found.ok_or_else(|| no_snapshot(order.snapshot))?;
        let wanted = order.applied(&known);
        if wanted == known {
            return Ok(known);
        }
        unchanged(&known, order.revision)?;
        settled(&known)?;
        let event = updated(&known, &wanted, order.caller, self.around.clock.now());
        let change = [SnapshotChange::Put(wanted.clone())];
        self.around.store.put_snapshots(&change, &[event]).await?;
        Ok(Snapshot {
            revision: known.revision.saturating_add(1),
            ..wanted
        })
    }
}

impl UpdateOrder {
    fn applied(&self, known: &Snapshot) -> Snapshot {
        let mut wanted = known.clone();
        if let Some(name) = &self.name {
            wanted.name = name.clone();
        }
        if let Some(description) = &self.description {
            wanted.description.clone_from(description);
        }
        if let Some(labels) = &self.labels {
            wanted.labels = labels.clone();
        }
        if let Some(protected) = self.deletion_protected {
            wanted.deletion_protected = protected;
        }
        wanted
    }
}

fn updated(before: &Snapshot, after: &Snapshot, caller: String, now: Timestamp) -> NewEvent {
    let mut details = BTreeMap::new();
    let mut what = Vec::new();
    if before.name != after.name {
        what.push("name");
        details.insert("name".to_owned(), after.name.to_string());
    }
    if before.description != after.description {
        what.push("description");
    }
    if before.labels != after.labels {
        what.push("labels");
    }
    if before.deletion_protected != after.deletion_protected {
        what.push("protection");
        let protected = after.deletion_protected.to_string();
        details.insert("deletion_protected".to_owned(), protected);
    }
    NewEvent {
        kind: EventKind::SnapshotUpdated,
        severity: Severity::Info,
        occurred_at: now,
        host: None,
        vm: Some(before.vm),
        snapshot: Some(before.id),
        operation: None,
        actor: Some(caller),
        message: format!("snapshot {}: changed {}", before.name, what.join(", ")),
        details,
    }
}
