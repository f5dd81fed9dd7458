//! Neighbouring volumes of a disk that go in one job: which they are, which way they go, and what
//! refuses it. Pure.

use super::{Mint, about, mark};
use crate::hosts::{Chain, Layer, LayerFormat, Measured, VmState};
use crate::snapshot::foreseen::Foreseen;
use crate::snapshot::types::{
    Deleted, Direction, DiskState, DiskTask, Leaving, MergeKind, MergeOptions, Snapshot,
    SnapshotDisk, Told,
};
use livemerge_proto::ids::MergeId;
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::RemovalId;

/// What holds no more than this is committed: a pull would save next to nothing.
const LITTLE: u64 = 16 << 20;

/// Neighbouring volumes of a disk that go together, and what may be done to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run<'a> {
    chain: &'a Chain,
    /// The volumes that the deleted snapshots froze, oldest first; the layer above them is there.
    pub(super) frozen: &'a [Layer],
    pub(super) above: &'a Layer,
    deletes: Vec<Deleted>,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Live { active: bool },
    Off,
}

/// A disk of a snapshot that is to be merged, and where its volume lies.
pub(super) struct Site<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) disk: &'a SnapshotDisk,
    pub(super) place: usize,
}

/// Neighbours together.
pub(super) fn runs<'a>(
    mut sites: Vec<Site<'a>>,
    chain: &'a Chain,
    state: Option<VmState>,
) -> Result<Vec<Run<'a>>, Problem> {
    sites.sort_by_key(|site| (site.place, site.snapshot.id));
    let mut groups: Vec<Vec<Site<'a>>> = Vec::new();
    for site in sites {
        match groups.last_mut() {
            Some(group) if group[group.len() - 1].place + 1 >= site.place => group.push(site),
            _ => groups.push(vec![site]),
        }
    }
    groups
        .into_iter()
        .map(|group| run(&group, chain, state))
        .collect()
}

fn run<'a>(
    group: &[Site<'a>],
    chain: &'a Chain,
    state: Option<VmState>,
) -> Result<Run<'a>, Problem> {
    let (first, last) = (&group[0], &group[group.len() - 1]);
    let layers = &chain.layers[first.place..=last.place + 1];
    for layer in layers {
        if !layer.shared_with.is_empty() {
            let by = layer.shared_with.join(", ");
            let text = format!("{} is also needed by {by}", layer.locator);
            let reason = Reason::SnapshotSharedBase;
            return Err(about(first.snapshot, first.disk, reason, text).with("shared_with", by));
        }
    }
    let deletes = group.iter().map(|site| Deleted {
        snapshot: site.snapshot.id,
        earlier: site.disk.merging.clone(),
    });
    let way = match state {
        Some(VmState::ShutOff) => Way::Off,
        _ => Way::Live {
            active: last.place + 2 == chain.layers.len(),
        },
    };
    Ok(Run {
        chain,
        frozen: &layers[..layers.len() - 1],
        above: &layers[layers.len() - 1],
        deletes: deletes.collect(),
        way,
    })
}

impl Run<'_> {
    fn can_pull(&self) -> bool {
        self.way == Way::Live { active: true }
    }

    /// More than this a commit does not copy.
    fn upper_bound(&self) -> u64 {
        let above = self.frozen[1..].iter().chain([self.above]);
        above.map(|layer| layer.allocated_bytes).sum()
    }

    pub(super) fn task(
        &self,
        wanted: &MergeOptions,
        costs: &[Measured],
        mint: Mint<'_>,
    ) -> Result<DiskTask, Problem> {
        let oldest = mark(&self.frozen[0])?;
        let measured = costs
            .iter()
            .find(|cost| cost.disk == self.chain.disk && cost.oldest == oldest.volume);
        let cost = |direction| {
            let way = measured.and_then(|measured| measured.way(direction));
            way.filter(|way| way.blocker.is_none())
                .map(|way| way.copy_bytes)
        };
        let (commit, pull) = (cost(Direction::Commit), cost(Direction::Pull));
        let pull_is_cheaper = match (commit, pull) {
            (Some(commit), Some(pull)) => pull < commit,
            (None, Some(_)) => true,
            _ => false,
        };
        let pulls = match wanted.direction {
            Some(Direction::Pull) if !self.can_pull() => return Err(self.no_pull()),
            Some(direction) => direction == Direction::Pull,
            None => {
                let little = commit.is_some() && self.upper_bound() <= LITTLE;
                let pulls = self.can_pull() && pull_is_cheaper && !little;
                // What refuses the one way need not refuse the other.
                match self.refusal(pulls) {
                    Some(_) if self.can_pull() => !pulls,
                    _ => pulls,
                }
            }
        };
        if let Some(refusal) = self.refusal(pulls) {
            return Err(refusal);
        }
        let mut volumes = Vec::new();
        for layer in self.frozen.iter().chain([self.above]) {
            volumes.push(mark(layer)?);
        }
        let (kind, kept) = match self.way {
            _ if pulls => (MergeKind::Pull, volumes.pop()),
            Way::Live { active: true } => (MergeKind::ActiveCommit, Some(volumes.remove(0))),
            Way::Live { active: false } => (MergeKind::Commit, Some(volumes.remove(0))),
            Way::Off => (MergeKind::OfflineCommit, Some(volumes.remove(0))),
        };
        let frozen = || self.frozen.iter().map(|layer| layer.allocated_bytes).sum();
        let planned_bytes = if pulls {
            pull.unwrap_or_else(frozen)
        } else {
            commit.unwrap_or_else(|| self.upper_bound())
        };
        let leaving = volumes.into_iter().map(|volume| Leaving {
            volume,
            removal: RemovalId::from(mint()),
        });
        let kept = kept.expect("a run has at least two volumes");
        let mut layers = self.chain.layers.iter();
        let layer = layers.find(|layer| layer.mark.as_ref() == Some(&kept));
        let kept_bytes = layer.map_or(0, |layer| layer.allocated_bytes);
        let raw = layer.is_some_and(|layer| layer.format == LayerFormat::Raw);
        let foreseen = Foreseen {
            guest_discards: self.chain.guest_discards && self.way != Way::Off && !raw,
            ..Foreseen::of(measured, kind.direction(), kept_bytes)
        };
        Ok(DiskTask {
            disk: self.chain.disk.clone(),
            round: 0,
            kind,
            kept,
            removed: leaving.collect(),
            deletes: self.deletes.clone(),
            merge: MergeId::from(mint()),
            planned_bytes,
            foreseen,
            state: DiskState::Pending,
            told: Told::default(),
        })
    }

    /// What the layers' own headers have against a merge that way: nobody has the key of an encrypted
    /// one, and the dirty bitmaps of one that leaves would go with it.
    fn refusal(&self, pulls: bool) -> Option<Problem> {
        let leaves = |place: usize| match pulls {
            true => place < self.frozen.len(),
            false => place > 0,
        };
        let layers = self.frozen.iter().chain([self.above]).enumerate();
        let mut refusals = layers.filter_map(|(place, layer)| {
            encrypted(layer).or_else(|| bitmaps(layer).filter(|_| leaves(place)))
        });
        let refusal = refusals.next()?;
        Some(refusal.with("disk", &self.chain.disk))
    }

    fn no_pull(&self) -> Problem {
        let why = match self.way {
            Way::Off => "the virtual machine does not run",
            Way::Live { .. } => "the layer above is not the one that the guest writes",
        };
        let text = format!("disk {} cannot be merged by a pull: {why}", self.chain.disk);
        Problem::new(Reason::StrategyUnsupported, text).with("disk", &self.chain.disk)
    }
}

/// That a layer is encrypted, if it is.
pub(in crate::snapshot) fn encrypted(layer: &Layer) -> Option<Problem> {
    let name = name(layer);
    layer.encrypted.then(|| {
        let text = format!("{name} is encrypted: LiveMerge has no keys");
        Problem::new(Reason::StrategyUnsupported, text).with("volume", name)
    })
}

/// That a layer keeps dirty bitmaps, if it does.
fn bitmaps(layer: &Layer) -> Option<Problem> {
    let (name, bitmaps) = (name(layer), layer.bitmaps.join(", "));
    (!layer.bitmaps.is_empty()).then(|| {
        let text = format!(
            "{name} keeps the dirty bitmaps {bitmaps}, which would go with it: delete the backup's \
             checkpoints first, or remove the bitmaps with `qemu-img bitmap --remove` while the machine \
             is off"
        );
        let problem = Problem::new(Reason::StrategyUnsupported, text);
        problem.with("volume", name).with("bitmaps", bitmaps)
    })
}

fn name(layer: &Layer) -> String {
    let mark = layer.mark.as_ref();
    mark.map_or_else(|| layer.locator.clone(), |mark| mark.volume.to_string())
}
