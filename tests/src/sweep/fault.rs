//! Where a fault can happen, and which.

use std::fmt;

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

/// The calls that cross a port.
pub const CALLS: [Site; 28] = [
    "hypervisor::abort_job",
    "hypervisor::add_overlays",
    "hypervisor::freeze_guest",
    "hypervisor::job",
    "hypervisor::pivot",
    "hypervisor::references",
    "hypervisor::resume",
    "hypervisor::set_speed",
    "hypervisor::start_job",
    "hypervisor::suspend",
    "hypervisor::thaw_guest",
    "hypervisor::vm",
    "rpc::BatchDeleteSnapshots",
    "rpc::CancelMerge",
    "rpc::CancelOperation",
    "rpc::CreateOverlays",
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
    /// The line between the services breaks for a while.
    BreakLine,
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
            other => other,
        }
    }

    /// Whether an operation may fail of it; of anything else it must recover.
    pub fn may_fail_operations(self) -> bool {
        matches!(
            self,
            Self::KillVm | Self::StartVm | Self::Upset(Upset::Refused)
        )
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
            Self::BreakLine => "line breaks",
            Self::Error => "error",
            Self::Upset(Upset::Refused) => "refused",
            Self::Upset(Upset::Unreached) => "not reached",
            Self::Upset(Upset::Lost) => "reply lost",
            Self::Upset(Upset::Late) => "done late",
        })
    }
}

/// What QEMU does by itself. Between the last two it writes the base, and nobody knows.
pub const QEMU: [Site; 3] = ["qemu::copies", "qemu::switches", "qemu::notices"];

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
    use Upset::{Late, Lost, Refused, Unreached};
    let upsets: &[Upset] = match site {
        "hypervisor::vm" | "hypervisor::job" | "hypervisor::references" => &[Unreached],
        "storage::stat" | "storage::list" => &[Unreached],
        "storage::create" | "storage::remove" => &[Unreached, Lost],
        "store::accept" | "store::apply" | "store::repeated" | "store::put_vms" => {
            &[Unreached, Lost]
        }
        _ if site.starts_with("hypervisor::") => &[Refused, Unreached, Lost, Late],
        _ if site.starts_with("rpc::") => &[Unreached, Lost, Late],
        _ => &[],
    };
    if owner(site).is_none() && !QEMU.contains(&site) {
        return upsets.iter().copied().map(Fault::Upset).collect();
    }
    let mut faults = vec![
        Fault::Crash(Who::Server),
        Fault::Crash(Who::Agent),
        Fault::CrashBoth,
        Fault::KillVm,
        Fault::BreakLine,
    ];
    if site.ends_with("-journal") {
        faults.push(Fault::Error);
    }
    faults
}

/// How many passings of a site are tried at most: looks are repeated as often as time passes.
pub fn most_hits(site: Site) -> usize {
    match site {
        "hypervisor::vm" | "hypervisor::job" => 8,
        "storage::stat" | "storage::list" => 6,
        "qemu::copies" => 4,
        _ => usize::MAX,
    }
}
