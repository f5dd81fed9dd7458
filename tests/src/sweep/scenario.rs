//! What is done in a case. A new row is a new line here.

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
    /// Whether second faults are tried: one row that has pivot, record and removal is enough.
    pub pairs: bool,
}

/// Large enough to be measured.
const LARGE: u64 = 64 << 20;

/// All rows.
pub const SCENARIOS: [Scenario; 13] = [
    Scenario {
        pairs: true,
        ..row("active", &["vda"], &["a"], Work::Delete(&["a"]))
    },
    row("middle", &["vda"], &["a", "b", "c"], Work::Delete(&["b"])),
    row("two-disks", &["vda", "vdb"], &["a"], Work::Delete(&["a"])),
    row(
        "both-ends",
        &["vda"],
        &["a", "b", "c"],
        Work::Delete(&["a", "c"]),
    ),
    row("take", &["vda", "vdb"], &["a"], Work::Take("b")),
    // Three neighbours in one job, and after a gap one more in a second round.
    row(
        "batch",
        &["vda"],
        &["a", "b", "c", "d", "e"],
        Work::Batch(&["a", "b", "c", "e"]),
    ),
    Scenario {
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
        pairs: false,
    }
}

impl Scenario {
    /// The snapshots that are left at the end, oldest first.
    pub fn left(&self) -> Vec<&'static str> {
        let mut left = self.snapshots.to_vec();
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
