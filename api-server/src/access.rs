//! Who may call which of this server's methods, once callers need a role.

use livemerge_runtime::{Role, Rules};

const SNAPSHOTS: &str = "livemerge.v1.SnapshotService";
const OPERATIONS: &str = "livemerge.v1.OperationService";
const INVENTORY: &str = "livemerge.v1.InventoryService";
const EVENTS: &str = "livemerge.v1.EventService";

const READ: &[Role] = &[Role::Viewer, Role::Operator];
const CHANGE: &[Role] = &[Role::Operator];
/// By hand as well, where an agent does not do it.
const REGISTER: &[Role] = &[Role::Agent, Role::Operator];

/// The rules of the server. A method that is not here is refused.
#[must_use]
pub fn rules() -> Rules {
    Rules::new()
        .permit(
            SNAPSHOTS,
            &["GetSnapshot", "ListSnapshots", "PlanDeleteSnapshot"],
            READ,
        )
        .permit(
            SNAPSHOTS,
            &[
                "CreateSnapshot",
                "DeleteSnapshot",
                "BatchDeleteSnapshots",
                "UpdateSnapshot",
            ],
            CHANGE,
        )
        .permit(
            OPERATIONS,
            &[
                "GetOperation",
                "ListOperations",
                "WatchOperation",
                "WaitOperation",
            ],
            READ,
        )
        .permit(OPERATIONS, &["CancelOperation", "UpdateOperation"], CHANGE)
        .permit(
            INVENTORY,
            &[
                "ListHosts",
                "GetHost",
                "ListVms",
                "GetVm",
                "GetVolumeChain",
                "ListStorages",
                "ListRemovals",
                "CheckConsistency",
            ],
            READ,
        )
        .permit(
            INVENTORY,
            &["SetHostMaintenance", "RestoreVolume", "ApplyRepair"],
            CHANGE,
        )
        .permit(INVENTORY, &["RegisterHost"], REGISTER)
        .permit(EVENTS, &["ListEvents", "WatchEvents"], READ)
}

#[cfg(test)]
mod tests;
