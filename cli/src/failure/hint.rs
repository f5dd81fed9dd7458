//! What a person does next about a reason.

use livemerge_proto::reason::Reason;

/// One line, with a command where one helps. Otherwise what the list of reasons itself advises.
pub(super) fn hint(reason: Reason) -> &'static str {
    match reason {
        Reason::FieldInvalid => "correct what the `field:` lines name",
        Reason::RequestIdReused => {
            "leave --request-id out for a fresh one, or repeat the first command word for word"
        }
        Reason::HostNotFound => "`livemerge host list` lists the hosts",
        Reason::VmNotFound => "`livemerge vm list` lists the machines that hosts have reported",
        Reason::DiskNotFound => "`livemerge vm get VM` lists the machine's disks",
        Reason::SnapshotNotFound => "`livemerge snapshot list VM` lists what there is",
        Reason::OperationNotFound => "`livemerge operation list` lists the operations",
        Reason::SnapshotAlreadyExists => {
            "choose another name; `livemerge snapshot list VM` lists those that are taken"
        }
        Reason::EtagMismatch => {
            "the snapshot changed; look with `livemerge snapshot get SNAPSHOT` and decide again"
        }
        Reason::SnapshotIsActiveLayer => {
            "nothing lies above this snapshot to be merged; `livemerge vm chain VM` draws the chain"
        }
        Reason::SnapshotSharedBase => {
            "delete what shares the volume first; `livemerge vm chain VM` names it"
        }
        Reason::SnapshotProtected => {
            "`livemerge snapshot update SNAPSHOT --unprotect` allows it, if it may go"
        }
        Reason::SnapshotNotReady => {
            "wait for its operation: `livemerge operation list --state queued --state running`"
        }
        Reason::VmStateUnknown => {
            "bring the machine's host back; `livemerge host list` says which ones answer"
        }
        Reason::HostInMaintenance => {
            "`livemerge host maintenance HOST off` ends it; what was accepted before goes on then"
        }
        Reason::AgentIncompatible => {
            "`livemerge host list` names the versions; upgrade the server first, then its agents"
        }
        Reason::GuestAgentUnavailable => {
            "see to the agent in the guest, or take the snapshot with `--quiesce if-possible`"
        }
        Reason::VmNotRunning => "start the machine, then try again",
        Reason::StrategyUnsupported => {
            "`livemerge snapshot plan SNAPSHOT` says what is possible, with --direction or without"
        }
        Reason::PointOfNoReturn => {
            "it goes on to its end; `livemerge operation watch OPERATION` shows it"
        }
        Reason::ChainDiverged => "`livemerge vm chain VM` draws the chain as it is",
        Reason::ChainLacksData => {
            "put the named volumes back into the chain while the machine is off; docs/operations.md says how"
        }
        Reason::ConcurrentChange => {
            "something else works on it, or it changed; look again and decide again"
        }
        Reason::InsufficientSpace => {
            "free space in the storage domain, then repeat with the same --request-id"
        }
        Reason::HostUnreachable => {
            "nothing was changed; `livemerge host list` says which hosts answer, then try again"
        }
        Reason::VmDied => "no acknowledged write is lost; start the machine and delete again",
        other => other.advice(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_hint_of_one_line() {
        for reason in Reason::ALL {
            let hint = hint(*reason);
            assert!(!hint.is_empty() && !hint.contains('\n'), "{reason}");
        }
    }
}
