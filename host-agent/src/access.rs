//! Who may call which of this agent's methods, once callers need a role. Orders are the API
//! server's alone: it knows the record, and an operator who asks does so there.

use livemerge_runtime::{Role, Rules};

const MERGES: &str = "livemerge.v1.MergeService";
const HOST: &str = "livemerge.v1.HostService";
const VOLUMES: &str = "livemerge.v1.VolumeService";

const READ: &[Role] = &[Role::Server, Role::Viewer, Role::Operator];
const ORDER: &[Role] = &[Role::Server];

/// The rules of the agent. A method that is not here is refused.
#[must_use]
pub fn rules() -> Rules {
    Rules::new()
        .permit(
            MERGES,
            &["GetMerge", "ListMerges", "WatchMerges", "GetVolumeChain"],
            READ,
        )
        // A plan reads whole allocation maps: it is no order, and still the server's.
        .permit(
            MERGES,
            &[
                "PlanMerge",
                "StartMerge",
                "CancelMerge",
                "SetMergeBandwidth",
            ],
            ORDER,
        )
        .permit(HOST, &["GetHost", "WatchHost"], READ)
        .permit(HOST, &["CreateOverlays"], ORDER)
        .permit(
            VOLUMES,
            &["ListStorages", "ListVolumes", "ListRemovals"],
            READ,
        )
        .permit(
            VOLUMES,
            &["RemoveVolume", "RestoreVolume", "GrowVolume"],
            ORDER,
        )
}

#[cfg(test)]
mod tests;
