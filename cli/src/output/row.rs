//! Answers as tables: one line of a list, and all of one.

use super::document::{
    EventDocument, HostDocument, OperationDocument, RemovalDocument, SnapshotDocument,
    StorageDocument, VmDocument, VolumeDocument, snapshot_consistency, snapshot_origin,
    snapshot_state,
};
use super::text::{escape, or_dash, seconds, size, time_or_dash, word};
use super::{Detailed, Extra, Listed};
use crate::wait::phase;
use livemerge_proto::v1;
use std::collections::BTreeMap;

impl Listed for v1::Host {
    type Document<'a> = HostDocument<'a>;

    const COLUMNS: &'static [&'static str] = &[
        "HOST",
        "STATUS",
        "HYPERVISOR",
        "VERSION",
        "GENERATION",
        "ENDPOINT",
        "LAST SEEN",
    ];

    fn document(&self) -> HostDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        self.details()
            .into_iter()
            .map(|(_name, value)| value)
            .collect()
    }
}

impl Detailed for v1::Host {
    fn details(&self) -> Vec<(&'static str, String)> {
        let hypervisor = if self.hypervisor_connected {
            "connected"
        } else {
            "not connected"
        };
        vec![
            ("host", or_dash(&self.id)),
            ("status", host_status(self)),
            ("hypervisor", hypervisor.to_owned()),
            ("version", or_dash(&self.version)),
            ("generation", self.generation.to_string()),
            ("endpoint", or_dash(&self.endpoint)),
            ("last seen", time_or_dash(self.last_seen_at.as_ref())),
        ]
    }
}

/// A silent host may be in maintenance, too.
fn host_status(host: &v1::Host) -> String {
    let status = word(host.status().as_str_name(), "HOST_STATUS_");
    if host.maintenance && host.status() != v1::HostStatus::Maintenance {
        return format!("{status}, maintenance");
    }
    status
}

impl Listed for v1::Vm {
    type Document<'a> = VmDocument<'a>;

    const COLUMNS: &'static [&'static str] = &["VM", "NAME", "HOST", "STATE", "DISKS"];

    fn document(&self) -> VmDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        let disks: Vec<String> = self.disks.iter().map(|disk| escape(&disk.target)).collect();
        vec![
            or_dash(&self.id),
            or_dash(&self.name),
            or_dash(&self.host_id),
            word(self.state().as_str_name(), "VM_STATE_"),
            or_dash(&disks.join(", ")),
        ]
    }
}

impl Detailed for v1::Vm {
    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![
            ("vm", or_dash(&self.id)),
            ("name", or_dash(&self.name)),
            ("host", or_dash(&self.host_id)),
            ("state", word(self.state().as_str_name(), "VM_STATE_")),
            ("observed", time_or_dash(self.observed_at.as_ref())),
        ];
        if self.still_frozen {
            let why = "the file systems may still be, after a snapshot";
            details.push(("frozen", why.to_owned()));
        }
        details.extend(self.disks.iter().map(|disk| {
            let active = volume(disk.active.as_ref());
            (
                "disk",
                format!(
                    "{} {active} {}",
                    escape(&disk.target),
                    escape(&disk.locator)
                ),
            )
        }));
        details
    }
}

impl Listed for v1::HostStorage {
    type Document<'a> = StorageDocument<'a>;

    const COLUMNS: &'static [&'static str] = &[
        "HOST", "STORAGE", "FREE", "PROMISED", "TOTAL", "KEEPS", "FOREIGN",
    ];

    fn document(&self) -> StorageDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        let storage = self.storage.clone().unwrap_or_default();
        let keeps = seconds(storage.keep_for.as_ref());
        vec![
            or_dash(&self.host_id),
            or_dash(&storage.id),
            size(storage.free_bytes),
            size(storage.promised_bytes),
            size(storage.total_bytes),
            keeps.map_or_else(|| "-".to_owned(), |time| format!("{time} s")),
            storage.foreign.len().to_string(),
            or_dash(&storage.problem),
        ]
    }
}

impl Listed for v1::Removal {
    type Document<'a> = RemovalDocument<'a>;

    const COLUMNS: &'static [&'static str] = &["REMOVAL", "VOLUME", "CONDEMNED", "KEPT UNTIL"];

    fn document(&self) -> RemovalDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        vec![
            or_dash(&self.id),
            volume(self.volume.as_ref()),
            time_or_dash(self.condemned_at.as_ref()),
            time_or_dash(self.keep_until.as_ref()),
        ]
    }
}

impl Listed for v1::VolumeRef {
    type Document<'a> = VolumeDocument<'a>;

    const COLUMNS: &'static [&'static str] = &["STORAGE", "VOLUME"];

    fn document(&self) -> VolumeDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        vec![or_dash(&self.storage), or_dash(&self.name)]
    }
}

impl Detailed for v1::VolumeRef {
    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("storage", or_dash(&self.storage)),
            ("volume", or_dash(&self.name)),
        ]
    }
}

impl Listed for v1::Snapshot {
    type Document<'a> = SnapshotDocument<'a>;

    const COLUMNS: &'static [&'static str] =
        &["SNAPSHOT", "NAME", "STATE", "CONSISTENCY", "CREATED", "VM"];
    const EXTRA: Option<Extra<Self>> = Some(("ORIGIN", was_not_asked_for, snapshot_origin));

    fn document(&self) -> SnapshotDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        vec![
            or_dash(&self.id),
            or_dash(&self.name),
            snapshot_state(self),
            consistency_or_dash(self),
            time_or_dash(self.created_at.as_ref()),
            or_dash(&self.vm_id),
        ]
    }
}

fn consistency_or_dash(snapshot: &v1::Snapshot) -> String {
    or_dash(&snapshot_consistency(snapshot).unwrap_or_default())
}

fn was_not_asked_for(snapshot: &v1::Snapshot) -> bool {
    use v1::SnapshotOrigin::{Discovered, LeftByMerge};
    matches!(snapshot.origin(), Discovered | LeftByMerge)
}

impl Detailed for v1::Snapshot {
    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![
            ("snapshot", or_dash(&self.id)),
            ("name", or_dash(&self.name)),
            ("description", or_dash(&self.description)),
            ("state", snapshot_state(self)),
            ("consistency", consistency_or_dash(self)),
            ("vm", or_dash(&self.vm_id)),
            ("created", time_or_dash(self.created_at.as_ref())),
            ("etag", or_dash(&self.etag)),
        ];
        if was_not_asked_for(self) {
            details.push(("origin", snapshot_origin(self)));
        }
        if self.deletion_protected {
            details.push(("protected", "against deletion".to_owned()));
        }
        let labels: BTreeMap<_, _> = self.labels.iter().collect();
        let label = |(key, value): (&String, &String)| format!("{}={}", escape(key), escape(value));
        details.extend(labels.into_iter().map(|pair| ("label", label(pair))));
        details.extend(self.disks.iter().map(|disk| {
            (
                "disk",
                format!("{} {}", escape(&disk.disk), volume(disk.volume.as_ref())),
            )
        }));
        details
    }
}

impl Listed for v1::Operation {
    type Document<'a> = OperationDocument<'a>;

    const COLUMNS: &'static [&'static str] =
        &["OPERATION", "KIND", "STATE", "SNAPSHOT", "CREATED", "ENDED"];

    fn document(&self) -> OperationDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        vec![
            or_dash(&self.id),
            word(self.kind().as_str_name(), "OPERATION_KIND_"),
            word(self.state().as_str_name(), "OPERATION_STATE_"),
            snapshots(self),
            time_or_dash(self.created_at.as_ref()),
            time_or_dash(self.ended_at.as_ref()),
        ]
    }
}

impl Detailed for v1::Operation {
    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details = vec![
            ("operation", or_dash(&self.id)),
            ("kind", word(self.kind().as_str_name(), "OPERATION_KIND_")),
            (
                "state",
                word(self.state().as_str_name(), "OPERATION_STATE_"),
            ),
            ("now", phase::describe(self)),
            (
                "snapshot",
                format!(
                    "{} {}",
                    or_dash(&self.snapshot_id),
                    escape(&self.snapshot_name)
                ),
            ),
        ];
        // The first of them is the one above.
        let others = self.snapshot_ids.iter().skip(1);
        details.extend(others.map(|id| ("snapshot", or_dash(id))));
        details.push(("vm", or_dash(&self.vm_id)));
        if self.bytes_per_second > 0 {
            details.push(("limit", format!("{}/s", size(self.bytes_per_second))));
        }
        details.extend([
            ("request id", or_dash(&self.request_id)),
            ("requested by", or_dash(&self.requested_by)),
            ("created", time_or_dash(self.created_at.as_ref())),
            ("started", time_or_dash(self.started_at.as_ref())),
            ("ended", time_or_dash(self.ended_at.as_ref())),
        ]);
        for disk in &self.disks {
            details.push(("disk", disk_progress(disk)));
            details.extend(planned(disk).map(|plan| ("planned", plan)));
        }
        details.extend(self.waiting.iter().map(|waiting| ("waits", wait(waiting))));
        details.extend(
            self.failure
                .iter()
                .map(|failed| ("failure", failure(failed))),
        );
        details
    }
}

impl Listed for v1::Event {
    type Document<'a> = EventDocument<'a>;

    const COLUMNS: &'static [&'static str] =
        &["REVISION", "TIME", "SEVERITY", "TYPE", "ACTOR", "MESSAGE"];

    fn document(&self) -> EventDocument<'_> {
        self.into()
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.revision.to_string(),
            time_or_dash(self.occurred_at.as_ref()),
            word(self.severity().as_str_name(), "EVENT_SEVERITY_"),
            word(self.r#type().as_str_name(), "EVENT_TYPE_"),
            or_dash(&self.actor),
            or_dash(&self.message),
        ]
    }
}

/// The snapshot's name; of a batch, how many more there are.
fn snapshots(operation: &v1::Operation) -> String {
    let name = or_dash(&operation.snapshot_name);
    match operation.snapshot_ids.len() {
        0 | 1 => name,
        several => format!("{name} and {} more", several - 1),
    }
}

fn failure(failure: &v1::Failure) -> String {
    let (reason, message) = (escape(&failure.reason), escape(&failure.message));
    format!("{reason}: {message}")
}

/// What is in the way, and what is done about it.
fn wait(waiting: &v1::Waiting) -> String {
    let (reason, message) = (escape(&waiting.reason), escape(&waiting.message));
    let mut text = format!("{reason}: {message}");
    if waiting.queue_position > 0 {
        text.push_str(&format!(", place in the queue: {}", waiting.queue_position));
    }
    if waiting.attempts > 0 {
        text.push_str(&format!(", tries: {}", waiting.attempts));
    }
    if let Some(at) = &waiting.next_try_at {
        text.push_str(&format!(", next: {}", time_or_dash(Some(at))));
    }
    text
}

/// What is not known yet is left out.
fn disk_progress(disk: &v1::DiskProgress) -> String {
    let mut parts = vec![format!(
        "{} {}",
        escape(&disk.disk),
        phase::of_disk(disk.phase())
    )];
    if disk.total_bytes > 0 {
        parts.push(format!(
            "{} of {}",
            size(disk.done_bytes),
            size(disk.total_bytes)
        ));
    } else if disk.planned_bytes > 0 && disk.phase() == v1::MergePhase::Pending {
        parts.push(format!("{} to copy", size(disk.planned_bytes)));
    }
    if let (false, Some(kept)) = (disk.removed.is_empty(), &disk.kept) {
        let removed: Vec<String> = disk.removed.iter().map(|v| volume(Some(v))).collect();
        parts.push(format!(
            "{} into {}",
            removed.join(" and "),
            volume(Some(kept))
        ));
    }
    if let Some(time) = seconds(disk.copy_time.as_ref()).filter(|time| *time > 0.0) {
        parts.push(format!("copied in {time:.1} s"));
    }
    if let Some(pause) = seconds(disk.longest_pause.as_ref()) {
        parts.push(format!("paused {pause:.3} s"));
    }
    if disk.freed_bytes > 0 {
        parts.push(format!("freed {}", size(disk.freed_bytes)));
    }
    parts.extend(disk.failure.as_ref().map(failure));
    parts.join(", ")
}

/// What was planned, to be read beside what became of it.
fn planned(disk: &v1::DiskProgress) -> Option<String> {
    if disk.planned_bytes == 0 {
        return None;
    }
    let guessed = if disk.planned_bytes_guessed {
        " at most"
    } else {
        ""
    };
    let mut parts = vec![format!(
        "{} {} to copy{guessed}",
        escape(&disk.disk),
        size(disk.planned_bytes)
    )];
    parts.extend(seconds(disk.planned_time.as_ref()).map(|time| format!("in about {time:.1} s")));
    let numbers = [
        ("needs", disk.space_needed_bytes),
        ("free", disk.space_free_bytes),
        ("gives back", disk.planned_freed_bytes),
        ("the other way", disk.other_way_bytes),
    ];
    let known = numbers.into_iter().filter(|(_, bytes)| *bytes > 0);
    parts.extend(known.map(|(name, bytes)| format!("{name} {}", size(bytes))));
    Some(parts.join(", "))
}

fn volume(volume: Option<&v1::VolumeRef>) -> String {
    let text = |v: &v1::VolumeRef| format!("{}/{}", escape(&v.storage), escape(&v.name));
    volume.map_or_else(|| "-".to_owned(), text)
}
