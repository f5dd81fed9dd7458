//! Volumes of one chain that are removed together, on a group that is files.

use super::scripted::{Scripted, order};
use crate::{Removal, RemovalOrder, RemovalState, StorageError, VolumeStore as _};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(24 * 3600);

type Answers = Vec<Result<Removal, StorageError>>;

/// `base ◀─ middle ◀─ top`, and an order for each, the base's first.
fn chain(group: &Scripted, keep_for: Duration) -> Vec<RemovalOrder> {
    let ids = [
        ("base", group.volume("base", None)),
        ("middle", group.volume("middle", Some("/dev/vg/base"))),
        ("top", group.volume("top", Some("/dev/vg/middle"))),
    ];
    let orders = ids.iter().map(|(name, id)| order(name, id, keep_for));
    orders.collect()
}

async fn removed(group: &Scripted, orders: &[RemovalOrder]) -> Answers {
    group.open().await.remove_all(orders).await
}

fn gone(answer: &Result<Removal, StorageError>) -> bool {
    matches!(answer, Ok(removal) if removal.state == RemovalState::Gone)
}

fn held_by(answer: &Result<Removal, StorageError>, by: &str) {
    match answer {
        Err(StorageError::InUse { by: said, .. }) => assert!(said.contains(by), "{said}"),
        other => panic!("{other:?}"),
    }
}

fn names(group: &Scripted, orders: &[RemovalOrder]) -> Vec<String> {
    let name = |order: &RemovalOrder| group.get(order.identity.as_str(), "name");
    orders.iter().map(name).collect()
}

#[tokio::test]
async fn a_chain_goes_in_one_change_children_first() {
    let group = Scripted::new();
    let orders = chain(&group, Duration::ZERO);
    let answers = removed(&group, &orders).await;
    assert!(answers.iter().all(gone), "{answers:?}");
    let volumes: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap().volume.name.to_string())
        .collect();
    assert_eq!(volumes, ["base", "middle", "top"], "as they were ordered");
    let calls = group.calls();
    let [closed, one] = calls.as_slice() else {
        panic!("{calls:?}");
    };
    assert!(closed.starts_with("lvchange --activate n"), "{closed}");
    assert!(one.starts_with("lvremove"), "{one}");
    assert!(one.ends_with("-- vg/top vg/middle vg/base"), "{one}");
    // And again, as whoever has lost the answers asks.
    let again = removed(&group, &orders).await;
    assert!(again.iter().all(gone), "{again:?}");
    assert_eq!(group.calls().len(), 2);
}

#[tokio::test]
async fn one_that_stays_holds_what_it_is_built_on_and_nothing_else() {
    let group = Scripted::new();
    let orders = chain(&group, Duration::ZERO);
    let other = group.volume("other", None);
    let more = [&orders[..], &[order("other", &other, Duration::ZERO)]].concat();
    let snapshot = group.foreign("theirs");
    group.set(&snapshot, "origin", "middle");
    let answers = removed(&group, &more).await;
    held_by(&answers[0], "middle");
    held_by(&answers[1], "vg/theirs");
    assert!(gone(&answers[2]) && gone(&answers[3]), "{answers:?}");
    group.set(&snapshot, "origin", "another");
    // Somebody outside the batch needs the base.
    group.volume("clone", Some("/dev/vg/base"));
    let answers = removed(&group, &orders).await;
    held_by(&answers[0], "vg/clone");
    assert!(gone(&answers[1]), "{answers:?}");
}

/// LVM would leave it and take what it is built on.
#[tokio::test]
async fn one_that_is_opened_at_the_last_moment_loses_nothing_below_it() {
    let group = Scripted::new();
    let orders = chain(&group, Duration::ZERO);
    let in_use = "echo 'Logical volume vg/top in use.' >&2; exit 5";
    group.on("lvchange", in_use);
    let answers = removed(&group, &orders).await;
    // LVM does not say which of them.
    held_by(&answers[2], "a process that has it open");
    held_by(&answers[1], "a process that has it open");
    held_by(&answers[0], "middle");
    let calls = group.calls();
    assert!(
        !calls.iter().any(|call| call.starts_with("lvremove")),
        "{calls:?}"
    );
    group.on("lvchange", "");
    let answers = removed(&group, &orders).await;
    assert!(answers.iter().all(gone), "{answers:?}");
}

#[tokio::test]
async fn one_that_is_kept_for_longer_than_what_it_is_built_on_holds_that() {
    let group = Scripted::new();
    let mut orders = chain(&group, LONG);
    orders[0].keep_for = Duration::ZERO;
    let answers = removed(&group, &orders).await;
    held_by(&answers[0], "middle");
    for answer in &answers[1..] {
        let state = answer.as_ref().unwrap().state;
        assert!(matches!(state, RemovalState::Condemned { .. }), "{state:?}");
    }
    assert_eq!(names(&group, &orders)[0], "base");
}

/// Condemned one after the other: whatever is seen at the second look brings back all that it needs.
#[tokio::test]
async fn one_that_comes_back_at_the_second_look_brings_back_what_it_is_built_on() {
    let group = Scripted::new();
    let orders = chain(&group, LONG);
    let clone = group.foreign("clone");
    // As soon as the last of them is condemned, by whoever had read its name before.
    group.image(&clone, Some("/dev/vg/top"));
    let at = group.get(&clone, "at");
    group.set(&clone, "at", "900");
    let last = format!("livemerge.removed.{}", orders[0].id);
    let made = format!("case \"$*\" in *' {last}') echo {at} >lv/{clone}/at ;; esac");
    group.on("lvrename", &made);
    let answers = removed(&group, &orders).await;
    held_by(&answers[2], "vg/clone");
    held_by(&answers[1], "top");
    held_by(&answers[0], "middle");
    assert_eq!(names(&group, &orders), ["base", "middle", "top"]);
}

/// A process that dies with some of them condemned: the next one ends all, by the same orders.
#[tokio::test]
async fn removals_that_were_cut_short_are_ended_together() {
    for condemned in 1..=3 {
        let group = Scripted::new();
        let mut orders = chain(&group, Duration::ZERO);
        for order in &mut orders {
            order.keep_for = Duration::from_millis(1);
        }
        // The next rename does not happen any more.
        let fails = format!("[ $(grep -c ^lvrename calls) -le {condemned} ] || exit 5");
        group.on("lvrename", &fails);
        let first = removed(&group, &orders).await;
        assert_eq!(first[0].is_err(), condemned < 3, "{first:?}");
        let there = names(&group, &orders);
        let is_named = |name: &&String| !name.is_empty() && !name.starts_with("livemerge.removed.");
        let named = there.iter().filter(is_named);
        assert!(named.count() <= 3 - condemned, "{there:?}");
        group.on("lvrename", "");
        let begun = std::time::Instant::now();
        loop {
            let answers = removed(&group, &orders).await;
            if answers.iter().all(gone) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{answers:?}");
        }
    }
}
