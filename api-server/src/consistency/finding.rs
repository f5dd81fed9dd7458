//! One difference, what may be done about it, and the id by which it is found again.

use crate::snapshot::{Mark, Severity, Snapshot};
use livemerge_proto::ids::{DiskTarget, HostId, SnapshotId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_storage::{RemovalId, VolumeRef};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// How record, chain, header and storage differ. Each is explained in `consistency.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    LeakedVolume,
    CondemnedLeftover,
    ChainUnknownToRecord,
    RecordWithoutVolume,
    SnapshotNotInChain,
    SnapshotStuck,
    SnapshotIncomplete,
    HeaderDiffersFromChain,
    JournalDamaged,
    Unknown,
}

/// What a repair does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// The host removes the volume, by its identity and past its own gate.
    RemoveVolume(HostId, Mark),
    /// The host goes on with a removal.
    ResumeRemoval(HostId, RemovalId, Mark),
    /// The snapshot is deleted again.
    DeleteSnapshot(SnapshotId, u64),
    /// The snapshot, as it was read, becomes INCOMPLETE.
    MarkIncomplete(Box<Snapshot>),
    /// The snapshot, as it was read, no longer names a volume on that disk. The volume stays.
    ForgetDisk(Box<Snapshot>, DiskTarget),
}

/// What may be done about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// This is safe.
    Safe(Repair),
    /// Nothing is, and why.
    Nothing(String),
    /// Whether anything is cannot be told: something could not be looked at.
    Unclear(Problem),
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What differs.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Where it is seen.
    pub hosts: Vec<HostId>,
    /// The machine it is about.
    pub vm: Option<VmId>,
    /// The disk it is about.
    pub disk: Option<DiskTarget>,
    /// The snapshot it is about.
    pub snapshot: Option<SnapshotId>,
    /// The volume it is about.
    pub volume: Option<VolumeRef>,
    /// The removal it is about.
    pub removal: Option<RemovalId>,
    /// Text for people.
    pub message: String,
    /// The text's dynamic values.
    pub details: BTreeMap<String, String>,
    /// What may be done about it.
    pub remedy: Remedy,
    /// What makes it this very one: a volume's identity, a record's revision.
    evidence: String,
}

impl Finding {
    /// A finding without a subject. What may be done about it comes with it, so that none is
    /// forgotten.
    pub(super) fn new(kind: Kind, severity: Severity, message: String, remedy: Remedy) -> Self {
        Self {
            kind,
            severity,
            hosts: vec![],
            vm: None,
            disk: None,
            snapshot: None,
            volume: None,
            removal: None,
            message,
            details: BTreeMap::new(),
            remedy,
            evidence: String::new(),
        }
    }

    pub(super) fn on(mut self, hosts: impl IntoIterator<Item = HostId>) -> Self {
        self.hosts.extend(hosts);
        self
    }

    pub(super) fn of_vm(mut self, vm: VmId) -> Self {
        self.vm = Some(vm);
        self.detail("vm", vm)
    }

    pub(super) fn of_disk(mut self, disk: &DiskTarget) -> Self {
        self.disk = Some(disk.clone());
        self.detail("disk", disk)
    }

    /// About a snapshot as it was read; one that changes makes another finding.
    pub(super) fn of_snapshot(mut self, snapshot: &Snapshot) -> Self {
        self.snapshot = Some(snapshot.id);
        self.evidence = format!("r{}", snapshot.revision);
        self.of_vm(snapshot.vm).detail("snapshot", &snapshot.name)
    }

    pub(super) fn of_volume(mut self, volume: &VolumeRef) -> Self {
        self.volume = Some(volume.clone());
        self.detail("volume", volume)
    }

    /// About a very volume; another one of that name makes another finding.
    pub(super) fn of_mark(mut self, mark: &Mark) -> Self {
        self.evidence = mark.identity.to_string();
        self.of_volume(&mark.volume)
            .detail("identity", &mark.identity)
    }

    pub(super) fn of_removal(mut self, removal: RemovalId) -> Self {
        self.removal = Some(removal);
        self.detail("removal", removal)
    }

    /// About a file of an agent's; another file makes another finding.
    pub(super) fn of_file(mut self, file: &str) -> Self {
        file.clone_into(&mut self.evidence);
        self.detail("journal", file)
    }

    pub(super) fn detail(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.details.insert(key.to_owned(), value.to_string());
        self
    }

    /// Its id: the same as long as the very same thing is found.
    pub fn id(&self) -> FindingId {
        let text = |part: Option<&dyn fmt::Display>| part.map(ToString::to_string);
        // A leaked volume is no machine's; that the record knows whose it was makes it no other.
        let vm = self.vm.filter(|_| self.kind != Kind::LeakedVolume);
        let mut subject = vec![
            Some(format!("{:?}", self.kind)),
            text(vm.as_ref().map(|part| part as _)),
            text(self.disk.as_ref().map(|part| part as _)),
            text(self.snapshot.as_ref().map(|part| part as _)),
            text(self.volume.as_ref().map(|part| part as _)),
            text(self.removal.as_ref().map(|part| part as _)),
        ];
        // Only there the host is the subject; elsewhere it is where somebody has looked.
        if self.kind == Kind::Unknown {
            subject.extend(self.hosts.iter().map(|host| Some(host.to_string())));
            subject.push(self.details.get("storage").cloned());
        }
        FindingId {
            subject: hash(&subject),
            evidence: hash(&[Some(self.evidence.clone())]),
        }
    }
}

fn hash(parts: &[Option<String>]) -> u64 {
    let mut digest = Sha256::new();
    for part in parts {
        let part = part.as_deref();
        digest.update([u8::from(part.is_some())]);
        digest.update((part.map_or(0, str::len) as u64).to_le_bytes());
        digest.update(part.unwrap_or_default());
    }
    let first = digest.finalize();
    first
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Finds a finding again: its subject, and what makes it this very one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FindingId {
    subject: u64,
    evidence: u64,
}

impl FindingId {
    /// Whether both are about the same thing, as it is or as it was.
    pub fn same_subject(&self, other: &Self) -> bool {
        self.subject == other.subject
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.subject, self.evidence)
    }
}

/// Says that a text is no finding's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of a finding as CheckConsistency gives it")]
pub struct InvalidFindingId;

impl FromStr for FindingId {
    type Err = InvalidFindingId;

    fn from_str(text: &str) -> Result<Self, InvalidFindingId> {
        let part = |text: &str| u64::from_str_radix(text, 16).map_err(|_| InvalidFindingId);
        let (subject, evidence) = text.split_once('-').ok_or(InvalidFindingId)?;
        let id = Self {
            subject: part(subject)?,
            evidence: part(evidence)?,
        };
        // One id has one spelling.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(InvalidFindingId)
        }
    }
}
