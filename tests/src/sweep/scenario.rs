//! What is done in a case. A new row is a new line here.

/// What is asked for once the snapshots are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A snapshot of this name.
    Take(&'static str),
    /// The deletion of these snapshots, one request after the other.
    Delete(&'static [&'static str]),
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
    /// Whether second faults are tried: one row that has pivot, record and removal is enough.
    pub pairs: bool,
}

/// All rows.
pub const SCENARIOS: [Scenario; 5] = [
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
        pairs: false,
    }
}

impl Scenario {
    /// The snapshots that are left at the end, oldest first.
    pub fn left(&self) -> Vec<&'static str> {
        let mut left = self.snapshots.to_vec();
        match self.work {
            Work::Take(name) => left.push(name),
            Work::Delete(names) => left.retain(|name| !names.contains(name)),
        }
        left
    }
}

/// The row of that name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|row| row.name == name)
}
