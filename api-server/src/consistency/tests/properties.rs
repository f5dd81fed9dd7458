//! What holds of any world: random volumes, headers, chains, records and blind spots.

use super::*;
use crate::consistency::Repair;
use proptest::prelude::*;
use std::collections::BTreeSet;

const VOLUMES: u128 = 6;

/// A world of a few volumes: each may be listed, have a parent, lie in a chain, be a snapshot's,
/// be an ended or open operation's.
#[derive(Debug, Clone)]
struct Parts {
    listed: Vec<(bool, Option<u128>)>,
    chain: Vec<u128>,
    frozen: Vec<(u128, u8)>,
    ended: Vec<u128>,
    open: Vec<u128>,
    off: bool,
    silent: bool,
}

fn parts() -> impl Strategy<Value = Parts> {
    let number = 0..VOLUMES;
    let some = |most: usize| prop::collection::vec(0..VOLUMES, 0..most);
    (
        prop::collection::vec((any::<bool>(), prop::option::of(number)), VOLUMES as usize),
        prop::sample::subsequence((0..VOLUMES).collect::<Vec<_>>(), 1..4).prop_shuffle(),
        prop::collection::vec((0..VOLUMES, 0_u8..4), 0..4),
        some(4),
        some(2),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(listed, chain, frozen, ended, open, off, silent)| Parts {
            listed,
            chain,
            frozen,
            ended,
            open,
            off,
            silent,
        })
}

fn world(parts: &Parts) -> World {
    let mut world = World::sound();
    let there = (0..).zip(&parts.listed).filter(|(_, (there, _))| *there);
    let volumes =
        there.map(|(number, (_, parent))| listed(&ours(number), parent.map(ours).as_deref()));
    *world.volumes() = volumes.collect();
    let names: Vec<String> = parts.chain.iter().copied().map(ours).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    *world.chain() = chain("vda", &names);
    world.vm().active = vec![locator(names[names.len() - 1])];
    if parts.off {
        world.vm().state = VmState::ShutOff;
    }
    let snapshots = (1..).zip(&parts.frozen).map(|(id, (number, state))| {
        let state = match state {
            0 => SnapshotState::Creating,
            1 => SnapshotState::Deleting,
            2 => SnapshotState::Incomplete,
            _ => SnapshotState::Ready,
        };
        Snapshot {
            state,
            ..frozen(id, &ours(*number))
        }
    });
    world.record.snapshots = snapshots.collect();
    let ended = (50..).zip(&parts.ended);
    let ended = ended.map(|(id, number)| failed_create(id, 1, &ours(*number)));
    world.record.ended = ended.collect();
    let open = (70..).zip(&parts.open).map(|(id, number)| Operation {
        state: OperationState::Running,
        ..failed_create(id, 2, &ours(*number))
    });
    world.record.at_work = open.collect();
    if parts.silent {
        world.add_host("host-2", Err(silent()));
    }
    world
}

proptest! {
    #[test]
    fn no_removal_of_what_anybody_names(parts in parts()) {
        let removable: BTreeSet<String> = world(&parts)
            .findings()
            .into_iter()
            .filter_map(|finding| match finding.remedy {
                Remedy::Safe(Repair::RemoveVolume(_, mark)) => Some(mark.volume.name.to_string()),
                _ => None,
            })
            .collect();
        prop_assert!(removable.is_empty() || !parts.silent);
        let parents = parts.listed.iter().filter(|(there, _)| *there);
        let named = parents
            .filter_map(|(_, parent)| *parent)
            .chain(parts.chain.clone())
            .chain(parts.frozen.iter().map(|(number, _)| *number))
            .chain(parts.open.clone());
        for number in named {
            prop_assert!(!removable.contains(&ours(number)));
        }
        for number in 0..VOLUMES {
            let explained = parts.ended.contains(&number);
            prop_assert!(explained || !removable.contains(&ours(number)));
        }
    }

    #[test]
    fn ids_are_unique_and_stay(parts in parts()) {
        let findings = world(&parts).findings();
        let ids: BTreeSet<_> = findings.iter().map(Finding::id).collect();
        prop_assert_eq!(ids.len(), findings.len(), "{:?}", findings);
        prop_assert_eq!(world(&parts).findings(), findings);
    }

    #[test]
    fn the_gravest_come_first(parts in parts()) {
        let findings = world(&parts).findings();
        let severities: Vec<Severity> = findings.iter().map(|f| f.severity).collect();
        prop_assert!(severities.is_sorted_by(|a, b| a >= b));
    }

    /// A host that falls silent takes findings away or makes them unclear; it never makes a repair
    /// safe that was not.
    #[test]
    fn less_sight_is_less_repair(parts in parts()) {
        let safe = |parts: &Parts| -> BTreeSet<_> {
            let safe = world(parts).findings().into_iter();
            safe.filter(|f| matches!(f.remedy, Remedy::Safe(_))).map(|f| f.id()).collect()
        };
        let all_seen = safe(&Parts { silent: false, ..parts.clone() });
        let one_silent = safe(&Parts { silent: true, ..parts });
        prop_assert!(one_silent.is_subset(&all_seen));
    }
}
