//! What was asked of the fake, and what it shall answer instead of doing.

use std::collections::{HashMap, VecDeque};

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;

use crate::hypervisor::{HypervisorError, JobOrder, Overlay};

/// A call of the port, as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the methods of the port, with their arguments")]
pub enum Call {
    Vms,
    Vm(VmId),
    Job(VmId, DiskTarget),
    Migrates(VmId),
    AddOverlays(VmId, Vec<Overlay>),
    StartJob(VmId, JobOrder),
    Pivot(VmId, DiskTarget),
    AbortJob(VmId, DiskTarget),
    SetSpeed(VmId, DiskTarget, u64),
    WriteLimit(VmId, DiskTarget),
    LimitWrites(VmId, DiskTarget, u64),
    SetNextStart(VmId, DiskTarget, Locator),
    RestoreBacking(VmId, DiskTarget, Locator, Locator),
    Suspend(VmId),
    Resume(VmId),
    ResumeIfLacksRoom(VmId),
    FreezeGuest(VmId),
    ThawGuest(VmId),
    References(Vec<Locator>),
    KeptSnapshots(VmId),
    Fill(VmId),
    WatchFill(VmId, DiskTarget, Locator, u64),
}

impl Call {
    const NAMES: [&'static str; 22] = [
        "vms",
        "vm",
        "job",
        "migrates",
        "add_overlays",
        "start_job",
        "pivot",
        "abort_job",
        "set_speed",
        "write_limit",
        "limit_writes",
        "set_next_start",
        "restore_backing",
        "suspend",
        "resume",
        "resume_if_lacks_room",
        "freeze_guest",
        "thaw_guest",
        "references",
        "kept_snapshots",
        "fill",
        "watch_fill",
    ];

    /// The method's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vms => "vms",
            Self::Vm(_) => "vm",
            Self::Job(..) => "job",
            Self::Migrates(_) => "migrates",
            Self::AddOverlays(..) => "add_overlays",
            Self::StartJob(..) => "start_job",
            Self::Pivot(..) => "pivot",
            Self::AbortJob(..) => "abort_job",
            Self::SetSpeed(..) => "set_speed",
            Self::WriteLimit(..) => "write_limit",
            Self::LimitWrites(..) => "limit_writes",
            Self::SetNextStart(..) => "set_next_start",
            Self::RestoreBacking(..) => "restore_backing",
            Self::Suspend(_) => "suspend",
            Self::Resume(_) => "resume",
            Self::ResumeIfLacksRoom(_) => "resume_if_lacks_room",
            Self::FreezeGuest(_) => "freeze_guest",
            Self::ThawGuest(_) => "thaw_guest",
            Self::References(_) => "references",
            Self::KeptSnapshots(_) => "kept_snapshots",
            Self::Fill(_) => "fill",
            Self::WatchFill(..) => "watch_fill",
        }
    }

    /// Whether it changes something.
    pub fn mutates(&self) -> bool {
        !matches!(
            self,
            Self::Vms
                | Self::Vm(_)
                | Self::Job(..)
                | Self::Migrates(_)
                | Self::References(_)
                | Self::KeptSnapshots(_)
                | Self::WriteLimit(..)
        )
    }
}

/// How a call goes wrong.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Nothing is done.
    Fail(HypervisorError),
    /// It is done, and nobody is told.
    LoseReply,
}

/// The faults that are still to come, and the calls that came.
#[derive(Debug, Default)]
pub(super) struct Script {
    faults: HashMap<&'static str, VecDeque<Fault>>,
    pub(super) calls: Vec<Call>,
}

impl Script {
    /// # Panics
    /// When the port has no such call: a fault that cannot happen would prove nothing.
    pub(super) fn plan(&mut self, call: &str, fault: Fault) {
        let known = Call::NAMES.into_iter().find(|name| *name == call);
        let name = known.unwrap_or_else(|| panic!("the hypervisor has no call {call:?}"));
        self.faults.entry(name).or_default().push_back(fault);
    }

    /// Notes the call, and tells what shall go wrong with it.
    pub(super) fn begin(&mut self, call: Call) -> Option<Fault> {
        let fault = self
            .faults
            .get_mut(call.name())
            .and_then(VecDeque::pop_front);
        self.calls.push(call);
        fault
    }
}
