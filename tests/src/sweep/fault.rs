//! Where a fault can happen, and which.

use std::fmt;

use livemerge_api_server::hosts::is_a_no;
use livemerge_proto::reason::Reason;

use crate::cluster::{Upset, Who};

/// A place that a run passes, by name: a point in the code of a service (`agent::…`, `api::…`), a
/// call that crosses a port (`hypervisor::…`, `storage::…`, `store::…`, `rpc::…`), or a step of
/// QEMU (`qemu::…`).
pub type Site = &'static str;

/// The points in the services' code (`fail::fail_point!`).
pub const POINTS: [Site; 21] = [
    "agent::before-persist",
    "agent::after-persist",
    "agent::before-act",
    "agent::after-act",
    "agent::before-journal",
    "agent::after-journal",
    "agent::before-removal",
    "agent::after-removal",
    "agent::before-overlay",
    "agent::before-freeze",
    "agent::after-freeze",
    "agent::before-overlays-on",
    "agent::after-overlays-on",
    "agent::before-thaw",
    "agent::after-thaw",
    "api::before-enter",
    "api::after-enter",
    "api::before-note",
    "api::after-note",
    "api::before-ask",
    "api::after-ask",
];

/// The points that only a request passes.
pub const ACCEPTANCE: [Site; 2] = ["api::before-accept", "api::after-accept"];

/// The calls that cross a port, of a run without faults. All machines (`hypervisor::vms`) are looked at only
/// when a service has come back.
pub const CALLS: [Site; 34] = [
    "hypervisor::abort_job",
    "hypervisor::add_overlays",
    "hypervisor::freeze_guest",
    "hypervisor::job",
    "hypervisor::kept_snapshots",
    "hypervisor::limit_writes",
    "hypervisor::migrates",
    "hypervisor::pivot",
    "hypervisor::references",
    "hypervisor::resume",
    "hypervisor::set_speed",
    "hypervisor::start_job",
    "hypervisor::suspend",
    "hypervisor::thaw_guest",
    "hypervisor::vm",
    "hypervisor::write_limit",
    "rpc::BatchDeleteSnapshots",
    "rpc::CancelMerge",
    "rpc::CancelOperation",
    "rpc::CreateOverlays",
    "rpc::CreateSnapshot",
    "rpc::DeleteSnapshot",
    "rpc::GetVolumeChain",
    "rpc::PlanMerge",
    "rpc::RemoveVolume",
    "rpc::SetMergeBandwidth",
    "rpc::StartMerge",
    "rpc::UpdateOperation",
    "storage::create",
    "storage::remove",
    "storage::stat",
    "store::accept",
    "store::apply",
    "store::repeated",
];

/// The calls that a service makes only when it has come back, or after QEMU's death.
pub const OF_RECOVERY: [Site; 3] = [
    "hypervisor::restore_backing",
    "hypervisor::set_next_start",
    "hypervisor::vms",
];

/// What happens at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A service dies.
    Crash(Who),
    /// Both services die.
    CrashBoth,
    /// QEMU dies.
    KillVm,
    /// Somebody starts the machine.
    StartVm,
    /// The host loses its power: the agent dies, and QEMU with it.
    HostDies,
    /// The line between the services breaks for a while.
    BreakLine,
    /// libvirt is gone for a while. QEMU goes on; its events are lost.
    Disconnect,
    /// The agent dies, and libvirt within it, when the guest is switched: the definition still names
    /// the image that the guest was switched from.
    HalfWritten,
    /// The block job fails.
    JobFails,
    /// Somebody else cancels the block job.
    JobCancelled,
    /// QEMU dies at the end of an intermediate commit: the overlay names the base already, and what was
    /// committed is lost.
    DiesAtTheEnd,
    /// The step ends in an error, and whether it was done cannot be told.
    Error,
    /// The call goes wrong.
    Upset(Upset),
}

impl Fault {
    /// The same, of a machine that is shut off.
    #[must_use]
    pub fn of_off(self) -> Self {
        match self {
            Self::KillVm => Self::StartVm,
            // There is no QEMU to die with it.
            Self::HostDies => Self::Crash(Who::Agent),
            other => other,
        }
    }

    /// Whether an operation may fail of it; of anything else it must recover.
    pub fn may_fail_operations(self) -> bool {
        match self {
            Self::KillVm | Self::StartVm | Self::HostDies => true,
            Self::JobFails | Self::JobCancelled | Self::DiesAtTheEnd => true,
            Self::Upset(Upset::Refused) => true,
            Self::Upset(Upset::Answers(reason)) => is_a_no(reason),
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash(Who::Server) => "server crashes",
            Self::Crash(Who::Agent) => "agent crashes",
            Self::CrashBoth => "both crash",
            Self::KillVm => "machine killed",
            Self::StartVm => "machine started",
            Self::HostDies => "host dies",
            Self::BreakLine => "line breaks",
            Self::Disconnect => "libvirt gone",
            Self::HalfWritten => "libvirt dies half-way",
            Self::JobFails => "job fails",
            Self::JobCancelled => "job cancelled by another",
            Self::DiesAtTheEnd => "machine killed at the commit's end",
            Self::Error => "error",
            Self::Upset(Upset::Refused) => "refused",
            Self::Upset(Upset::Unreached) => "not reached",
            Self::Upset(Upset::Lost) => "reply lost",
            Self::Upset(Upset::Late) => "done late",
            Self::Upset(Upset::Answers(reason)) => return write!(f, "answers {reason}"),
        })
    }
}

/// What QEMU does by itself: it has copied, it has switched, and that is known. Between the last two it
/// writes the base, and nobody knows.
pub const QEMU: [Site; 3] = ["qemu::copies", "qemu::switches", "qemu::notices"];

/// A block job is about to go on; an intermediate commit.
pub const JOBS: [Site; 2] = ["qemu::works", "qemu::commits"];

/// All sites that some row passes in any run.
pub fn sites() -> impl Iterator<Item = Site> {
    let points = POINTS.into_iter().chain(ACCEPTANCE);
    points.chain(QEMU).chain(JOBS).chain(CALLS)
}

/// Whether a call changes something: of what is refused none is made.
pub fn changes_a_guest_or_volume(site: Site) -> bool {
    matches!(
        site,
        "hypervisor::abort_job"
            | "hypervisor::add_overlays"
            | "hypervisor::limit_writes"
            | "hypervisor::pivot"
            | "hypervisor::set_speed"
            | "hypervisor::start_job"
            | "hypervisor::suspend"
            | "storage::create"
            | "storage::remove"
    )
}

/// The service whose code has a point.
pub fn owner(site: Site) -> Option<Who> {
    match site.split_once("::")?.0 {
        "agent" => Some(Who::Agent),
        "api" => Some(Who::Server),
        _ => None,
    }
}

/// What can happen at a site.
pub fn faults_at(site: Site) -> Vec<Fault> {
    match site {
        "qemu::works" => return vec![Fault::JobFails, Fault::JobCancelled],
        "qemu::commits" => return vec![Fault::DiesAtTheEnd],
        _ => {}
    }
    if owner(site).is_none() && !QEMU.contains(&site) {
        let upsets = upsets_at(site).iter().copied();
        return upsets.map(Fault::Upset).collect();
    }
    let mut faults = vec![
        Fault::Crash(Who::Server),
        Fault::Crash(Who::Agent),
        Fault::CrashBoth,
        Fault::KillVm,
        Fault::HostDies,
        Fault::BreakLine,
        Fault::Disconnect,
    ];
    if site.ends_with("-journal") {
        faults.push(Fault::Error);
    }
    if site == "qemu::switches" {
        faults.push(Fault::HalfWritten);
    }
    faults
}

/// How a call goes wrong: it does not arrive, its reply is lost or late, or it is answered with an
/// error, of those that whoever answers has.
fn upsets_at(site: Site) -> &'static [Upset] {
    use Upset::{Answers, Late, Lost, Refused, Unreached};
    const BUSY: Upset = Answers(Reason::ConcurrentChange);
    const DRAINING: Upset = Answers(Reason::ServerDraining);
    const FULL: Upset = Answers(Reason::InsufficientSpace);
    const HYPERVISOR: Upset = Answers(Reason::HypervisorUnreachable);
    const IN_USE: Upset = Answers(Reason::VolumeInUse);
    const STALE: Upset = Answers(Reason::StaleGeneration);
    const STORAGE: Upset = Answers(Reason::StorageUnreachable);
    const STORE: Upset = Answers(Reason::StoreUnavailable);
    match site {
        "hypervisor::vm"
        | "hypervisor::vms"
        | "hypervisor::job"
        | "hypervisor::references"
        | "hypervisor::kept_snapshots"
        | "hypervisor::migrates" => &[Unreached],
        "hypervisor::write_limit" => &[Refused, Unreached],
        "storage::stat" | "storage::list" => &[Unreached],
        "storage::create" => &[Unreached, Lost, FULL],
        "storage::remove" => &[Unreached, Lost, IN_USE, FULL],
        "store::accept" | "store::apply" => &[Unreached, Lost, BUSY],
        "store::repeated" | "store::put_vms" => &[Unreached],
        "rpc::StartMerge" => &[Unreached, Lost, Late, BUSY, FULL, HYPERVISOR, STALE],
        "rpc::RemoveVolume" => &[Unreached, Lost, Late, IN_USE, STORAGE, STALE],
        "rpc::CreateOverlays" => &[Unreached, Lost, Late, FULL, HYPERVISOR, STALE],
        "rpc::GetVolumeChain" | "rpc::PlanMerge" => &[Unreached, Lost, Late, STORAGE],
        "rpc::CancelMerge" | "rpc::SetMergeBandwidth" => &[Unreached, Lost, Late, DRAINING, STALE],
        _ if site.starts_with("rpc::") => &[Unreached, Lost, Late, STORE],
        _ if site.starts_with("hypervisor::") => &[Refused, Unreached, Lost, Late],
        _ => &[],
    }
}

/// How many passings of a site a run has for certain, whatever its timing: looks and notes are repeated as
/// time passes, what asks again while it waits is counted once more, and on a busy machine a pivot may be
/// put off and tried again.
pub fn certain_hits(site: Site) -> usize {
    match site {
        "agent::after-act" | "agent::before-act" | "hypervisor::set_speed" => 4,
        "agent::after-persist" | "agent::before-persist" => 6,
        "hypervisor::abort_job" => 1,
        "hypervisor::pivot" | "hypervisor::resume" | "hypervisor::suspend" => 1,
        _ if site.starts_with("rpc::") => 1,
        "api::after-note" | "api::before-note" => 1,
        "qemu::commits" | "qemu::copies" | "qemu::works" => 1,
        "storage::list" | "storage::stat" => 1,
        "hypervisor::job"
        | "hypervisor::kept_snapshots"
        | "hypervisor::limit_writes"
        | "hypervisor::migrates"
        | "hypervisor::references"
        | "hypervisor::vm"
        | "hypervisor::vms"
        | "hypervisor::write_limit" => 1,
        "api::after-ask" | "api::before-ask" | "store::apply" => 2,
        _ => usize::MAX,
    }
}

/// How many passings of a site are tried at most: looks are repeated as often as time passes.
pub fn most_hits(site: Site) -> usize {
    match site {
        "hypervisor::vm" | "hypervisor::job" => 8,
        "hypervisor::vms" | "storage::stat" | "storage::list" => 6,
        "qemu::commits" | "qemu::copies" | "qemu::works" => 4,
        _ => usize::MAX,
    }
}
