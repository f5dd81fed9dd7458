//! What is done in a case. A new row is a new line here.

use livemerge_proto::reason::Reason;
use livemerge_proto::v1::MergeDirection;

/// What is asked for once the snapshots are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A snapshot of this name.
    Take(&'static str),
    /// The deletion of these snapshots, one request after the other.
    Delete(&'static [&'static str]),
    /// The deletion of these snapshots in one operation.
    Batch(&'static [&'static str]),
}

/// What else is asked for while the merges copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// Nothing.
    Nothing,
    /// That the operation ends. It ends as that, or as done.
    Cancel,
    /// That its jobs copy no more than so many bytes a second.
    Limit(i64),
}

/// A row of the sweep.
#[derive(Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// The machine's disks.
    pub disks: &'static [&'static str],
    /// The snapshots that it has at first, oldest first.
    pub snapshots: &'static [&'static str],
    /// What is done.
    pub work: Work,
    /// Which way merges shall go; unspecified for the cheaper one.
    pub direction: MergeDirection,
    /// What else is asked for.
    pub also: Also,
    /// Whether the machine is shut off.
    pub off: bool,
    /// What every volume takes on storage: only of large ones both ways are measured.
    pub allocated_bytes: u64,
    /// What stands beside the machine.
    pub beside: Beside,
    /// At how many passings of each point of a recovery second faults are tried.
    pub second_hits: usize,
}

/// What stands beside a row's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// Nothing that matters.
    Nothing,
    /// The guest writes faster than its disks are copied, as long as it is not held back.
    Rush,
    /// The same, and holding it back does not help: it gets a fresh overlay.
    Flood,
    /// Somebody else has frozen the machine's layers, twice; these are the snapshots that it has.
    Frozen,
    /// The host merges one machine at a time, and another one comes first.
    Queue,
    /// The same, of the storage domain.
    StorageQueue,
    /// The jobs of all machines share a rate, and another one merges, too.
    Rates,
    /// The agent lets the guest run while it is switched (`merge.pivot = "running"`).
    Running,
    /// The oldest image is raw, and the disk was made larger after its last snapshot.
    Grown,
    /// A volume that nobody names lies in the storage: it is told, and left alone.
    Leftover,
    /// Another volume is built on the first snapshot's: its merge is refused.
    Clone,
    /// libvirt has metadata of snapshots of its own: merges are refused.
    Metadata,
    /// The first disk's base is encrypted: merges are refused.
    Encrypted,
    /// The active layer keeps a dirty bitmap: that it is committed is refused.
    Bitmap,
}

impl Beside {
    /// What deletes are refused for.
    pub fn refuses(self) -> Option<Reason> {
        match self {
            Self::Clone => Some(Reason::SnapshotSharedBase),
            Self::Metadata | Self::Encrypted | Self::Bitmap => Some(Reason::StrategyUnsupported),
            _ => None,
        }
    }
}

/// The snapshots of layers that somebody else has frozen, as they are listed.
pub const FROZEN: [&str; 2] = ["discovered-vda-vm-vda", "discovered-vda-theirs"];

/// Large enough to be measured.
const LARGE: u64 = 64 << 20;

/// All rows.
pub const SCENARIOS: [Scenario; 33] = [
    Scenario {
        second_hits: 2,
        ..row("active", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    row("middle", &["vda"], &["a", "b", "c"], Work::Delete(&["b"])),
    row(
        "middle-two-disks",
        &["vda", "vdb"],
        &["a", "b", "c"],
        Work::Batch(&["b"]),
    ),
    Scenario {
        second_hits: 1,
        ..row("two-disks", &["vda", "vdb"], &["a"], Work::Delete(&["a"]))
    },
    row(
        "both-ends",
        &["vda"],
        &["a", "b", "c"],
        Work::Delete(&["a", "c"]),
    ),
    row("take", &["vda", "vdb"], &["a"], Work::Take("b")),
    // Three neighbours in one job, and after a gap one more in a second round.
    Scenario {
        second_hits: 1,
        ..row(
            "batch",
            &["vda"],
            &["a", "b", "c", "d", "e"],
            Work::Batch(&["a", "b", "c", "e"]),
        )
    },
    Scenario {
        second_hits: 1,
        direction: MergeDirection::Pull,
        ..row("pull", &["vda"], &["a", "b", "c"], Work::Batch(&["b", "c"]))
    },
    // Nothing lies below afterwards.
    Scenario {
        direction: MergeDirection::Pull,
        ..row("pull-base", &["vda", "vdb"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        allocated_bytes: LARGE,
        ..row("cheaper", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        also: Also::Cancel,
        ..row("cancel", &["vda", "vdb"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        also: Also::Cancel,
        ..row("cancel-middle", &["vda"], &["a", "b"], Work::Delete(&["a"]))
    },
    Scenario {
        also: Also::Cancel,
        direction: MergeDirection::Pull,
        ..row("cancel-pull", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        also: Also::Limit(1_000_000),
        ..row("limit", &["vda", "vdb"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        off: true,
        ..row(
            "offline",
            &["vda"],
            &["a", "b", "c"],
            Work::Batch(&["a", "c"]),
        )
    },
    Scenario {
        off: true,
        ..row(
            "offline-two-disks",
            &["vda", "vdb"],
            &["a"],
            Work::Delete(&["a"]),
        )
    },
    Scenario {
        also: Also::Cancel,
        off: true,
        ..row(
            "offline-cancel",
            &["vda"],
            &["a", "b"],
            Work::Delete(&["a"]),
        )
    },
    Scenario {
        off: true,
        ..row("offline-take", &["vda", "vdb"], &["a"], Work::Take("b"))
    },
    Scenario {
        beside: Beside::Rush,
        ..row("rush", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    // What is left by the merge is listed, and deleted once the guest writes less.
    Scenario {
        beside: Beside::Flood,
        ..row("overlay", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Frozen,
        ..row("discovered", &["vda"], &[], Work::Batch(&FROZEN))
    },
    Scenario {
        beside: Beside::Queue,
        ..row("queue", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::StorageQueue,
        ..row("storage-queue", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Rates,
        ..row("rates", &["vda", "vdb"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Running,
        ..row("pivot-running", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Grown,
        ..row("grown-raw", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Grown,
        direction: MergeDirection::Pull,
        ..row("grown-raw-pull", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Grown,
        off: true,
        ..row("grown-raw-offline", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Leftover,
        ..row("leftover", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Clone,
        ..row("shared-base", &["vda"], &["a", "b"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Metadata,
        ..row("metadata", &["vda"], &["a", "b"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Encrypted,
        ..row("encrypted", &["vda"], &["a", "b"], Work::Delete(&["a"]))
    },
    Scenario {
        beside: Beside::Bitmap,
        direction: MergeDirection::Commit,
        ..row("bitmap", &["vda"], &["a"], Work::Delete(&["a"]))
    },
];

const fn row(
    name: &'static str,
    disks: &'static [&'static str],
    snapshots: &'static [&'static str],
    work: Work,
) -> Scenario {
    Scenario {
        name,
        disks,
        snapshots,
        work,
        direction: MergeDirection::Unspecified,
        also: Also::Nothing,
        off: false,
        allocated_bytes: 1 << 16,
        beside: Beside::Nothing,
        second_hits: 0,
    }
}

impl Scenario {
    /// The snapshots that are left at the end, oldest first.
    pub fn left(&self) -> Vec<&'static str> {
        let mut left = self.snapshots.to_vec();
        if self.beside.refuses().is_some() {
            return left;
        }
        match self.work {
            Work::Take(name) => left.push(name),
            Work::Delete(names) | Work::Batch(names) => left.retain(|name| !names.contains(name)),
        }
        left
    }
}

/// The row of that name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|row| row.name == name)
}
