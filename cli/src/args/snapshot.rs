//! `livemerge snapshot`

use super::Age;
use super::label::label;
use super::rate::rate;
use clap::{Args, Subcommand, ValueEnum};
use livemerge_proto::v1;

/// `livemerge snapshot`
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Takes a snapshot of all disks of a machine
    Create(CreateArgs),
    /// Shows one snapshot
    Get(SnapshotArgs),
    /// Lists the snapshots of a machine, oldest first
    List {
        /// The machine's id or name; `-` for all machines
        vm: String,
    },
    /// Changes a snapshot's name, description, labels or protection
    Update(UpdateArgs),
    /// Deletes snapshots of a machine by live merge; from then on their points in time are gone
    Delete(DeleteArgs),
    /// Shows what a delete would do, and changes nothing; exits 1 when it would be refused
    Plan(PlanArgs),
}

/// `livemerge snapshot create`
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The machine's id or name
    pub(crate) vm: String,
    /// The snapshot's name, unique among the machine's snapshots
    #[arg(long)]
    pub(crate) name: String,
    /// Free text
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    pub(crate) description: String,
    /// A label of the snapshot; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Refuses deletes until `livemerge snapshot update --unprotect`
    #[arg(long)]
    pub(crate) protect: bool,
    /// Whether the guest's agent freezes its file systems for it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) quiesce: Quiesce,
    /// Waits for the end, and shows the progress
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Whether a guest's file systems are frozen while its snapshot is taken.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Quiesce {
    /// If its agent answers in time
    #[default]
    IfPossible,
    /// Or no snapshot is taken
    Required,
    /// Its agent is not asked
    Never,
}

impl From<Quiesce> for v1::Quiesce {
    fn from(quiesce: Quiesce) -> Self {
        match quiesce {
            Quiesce::IfPossible => Self::IfPossible,
            Quiesce::Required => Self::Required,
            Quiesce::Never => Self::Never,
        }
    }
}

/// Which snapshot.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// The snapshot's id or name
    pub(crate) snapshot: String,
    /// Looks for the name among this machine's snapshots only
    #[arg(long)]
    pub(crate) vm: Option<String>,
}

/// `livemerge snapshot update`
#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = true, args = ["name", "description", "labels", "no_labels", "protect", "unprotect"])]
pub(crate) struct UpdateArgs {
    /// Which one.
    #[command(flatten)]
    pub(crate) which: SnapshotArgs,
    /// The new name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The new text
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A label in place of all that the snapshot has; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Takes all labels off
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Refuses deletes from now on
    #[arg(long)]
    protect: bool,
    /// Allows deletes again
    #[arg(long, conflicts_with = "protect")]
    unprotect: bool,
    /// Refuses unless the snapshot still has this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) etag: String,
}

impl UpdateArgs {
    /// The labels that the snapshot shall have; `None` for those that it has.
    pub(crate) fn all_labels(&self) -> Option<v1::SnapshotLabels> {
        let labels = self.labels.iter().cloned().collect();
        (self.no_labels || !self.labels.is_empty()).then_some(v1::SnapshotLabels { labels })
    }

    /// Whether deletes shall be refused; `None` for no change.
    pub(crate) fn protection(&self) -> Option<bool> {
        (self.protect || self.unprotect).then_some(self.protect)
    }
}

/// `livemerge snapshot delete`
#[derive(Debug, Args)]
#[command(after_help = "\
Several snapshots go in one operation; neighbours are merged together, so nothing is copied twice.

Examples:
  livemerge snapshot delete tuesday --vm demo --wait
  livemerge snapshot delete monday tuesday --vm demo --direction commit --bandwidth 50MiB
  livemerge snapshot delete --older-than 7d --vm demo --dry-run")]
pub(crate) struct DeleteArgs {
    /// Which ones.
    #[command(flatten)]
    pub(crate) which: DeletedArgs,
    /// Their machine's id or name; names are looked for among its snapshots only
    #[arg(long)]
    pub(crate) vm: Option<String>,
    /// How.
    #[command(flatten)]
    pub(crate) merge: MergeArgs,
    /// Refuses unless the snapshot still has this etag; for one snapshot
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        conflicts_with_all = ["all", "older_than", "dry_run"]
    )]
    pub(crate) etag: String,
    /// A snapshot that does not exist is no error
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) allow_missing: bool,
    /// Does not ask before --all or --older-than delete
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Changes nothing, and shows what would be done, as `livemerge snapshot plan`
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Waits for the end, and shows the progress
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Which snapshots are deleted.
#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false)]
pub(crate) struct DeletedArgs {
    /// The snapshots' ids or names, all of one machine
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// All snapshots of the machine that --vm names, but those that others took
    #[arg(long, requires = "vm")]
    pub(crate) all: bool,
    /// Those of the machine that --vm names that were taken so long ago, such as `12h`, `7d` or
    /// `2w`, or before a time such as `2026-01-31T12:00:00Z`; not those that others took
    #[arg(long, requires = "vm", value_name = "AGE")]
    pub(crate) older_than: Option<Age>,
}

/// `livemerge snapshot plan`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  livemerge snapshot plan monday tuesday --vm demo")]
pub(crate) struct PlanArgs {
    /// Which ones.
    #[command(flatten)]
    pub(crate) which: SnapshotsArgs,
    /// How.
    #[command(flatten)]
    pub(crate) merge: MergeArgs,
}

/// Which snapshots of one machine.
#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    /// The snapshots' ids or names, all of one machine
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// Their machine's id or name; names are looked for among its snapshots only
    #[arg(long)]
    pub(crate) vm: Option<String>,
}

/// How a delete merges.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Which way the data go [default: the cheaper one of those that are possible]
    #[arg(long)]
    direction: Option<Direction>,
    /// All block jobs together copy no more than so much a second, such as `50MiB`; 0 for no limit
    #[arg(long, value_name = "RATE", value_parser = rate)]
    bandwidth: Option<i64>,
}

impl MergeArgs {
    /// As the API has it; `None` when nothing was said.
    pub(crate) fn options(&self) -> Option<v1::MergeOptions> {
        if self.direction.is_none() && self.bandwidth.is_none() {
            return None;
        }
        let direction = self.direction.map(v1::MergeDirection::from);
        Some(v1::MergeOptions {
            direction: direction.unwrap_or_default().into(),
            bytes_per_second: self.bandwidth.unwrap_or(0),
        })
    }
}

/// Which way the data go.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Direction {
    /// Down, into the oldest volume
    Commit,
    /// Up, into the layer that the guest writes
    Pull,
}

impl From<Direction> for v1::MergeDirection {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Commit => Self::Commit,
            Direction::Pull => Self::Pull,
        }
    }
}
