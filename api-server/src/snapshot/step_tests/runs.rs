//! Which volumes go together in one job, and which jobs follow one another.

use super::plan::plan;
use super::*;

/// Snapshots `s1`, `s2`, ... each of one disk's volume.
fn of_vda(frozen: &[&str]) -> Vec<Snapshot> {
    let numbered = (1..).zip(frozen);
    let all = numbered.map(|(number, volume)| snapshot(&format!("s{number}"), &[("vda", volume)]));
    all.collect()
}

/// `disk round kept<removed,removed: deleted,deleted`, in the order of the plan.
fn drawn(deletes: &[Snapshot], tasks: &[DiskTask]) -> Vec<String> {
    let name = |mark: &Mark| mark.volume.name.as_str().replace(".qcow2", "");
    let drawn = tasks.iter().map(|task| {
        let removed: Vec<_> = task.removed.iter().map(|it| name(&it.volume)).collect();
        let of = |deleted: &Deleted| deletes.iter().find(|it| it.id == deleted.snapshot);
        let gone = task
            .deletes
            .iter()
            .map(|it| of(it).unwrap().name.to_string());
        format!(
            "{} {} {}<{}: {}",
            task.disk,
            task.round,
            name(&task.kept),
            removed.join(","),
            gone.collect::<Vec<_>>().join(",")
        )
    });
    drawn.collect()
}

fn planned(deletes: &[Snapshot], chains: Vec<Chain>) -> Vec<String> {
    drawn(deletes, &plan(deletes, &running(chains)).unwrap())
}

#[test]
fn neighbours_go_in_one_job_and_gaps_in_rounds() {
    let chain = || vec![chain("vda", &["a", "b", "c", "d", "e", "f"])];
    let cases: [(&[&str], &[&str]); 7] = [
        (&["a"], &["vda 0 a<b: s1"]),
        (&["e"], &["vda 0 e<f: s1"]),
        (&["a", "b"], &["vda 0 a<b,c: s1,s2"]),
        (
            &["a", "b", "c", "d", "e"],
            &["vda 0 a<b,c,d,e,f: s1,s2,s3,s4,s5"],
        ),
        (&["a", "c"], &["vda 0 a<b: s1", "vda 1 c<d: s2"]),
        (
            &["a", "b", "d", "e"],
            &["vda 0 a<b,c: s1,s2", "vda 1 d<e,f: s3,s4"],
        ),
        (
            &["a", "c", "e"],
            &["vda 0 a<b: s1", "vda 1 c<d: s2", "vda 2 e<f: s3"],
        ),
    ];
    for (frozen, wanted) in cases {
        assert_eq!(planned(&of_vda(frozen), chain()), wanted, "{frozen:?}");
    }
}

#[test]
fn the_chain_says_what_is_oldest_not_the_snapshots_ids() {
    let deletes = of_vda(&["d", "b", "a"]);
    let chains = vec![chain("vda", &["a", "b", "c", "d", "e"])];
    let wanted = ["vda 0 a<b,c: s3,s2", "vda 1 d<e: s1"];
    assert_eq!(planned(&deletes, chains), wanted);
}

#[test]
fn each_disk_has_its_own_neighbours_and_a_round_takes_one_job_of_each() {
    let deletes = [
        snapshot("s1", &[("vda", "a"), ("vdb", "m")]),
        snapshot("s2", &[("vda", "c"), ("vdb", "n")]),
        snapshot("s3", &[("vdc", "x")]),
    ];
    let chains = vec![
        chain("vda", &["a", "b", "c", "d"]),
        chain("vdb", &["m", "n", "o"]),
        chain("vdc", &["x", "y"]),
    ];
    let wanted = [
        "vda 0 a<b: s1",
        "vdb 0 m<n,o: s1,s2",
        "vdc 0 x<y: s3",
        "vda 1 c<d: s2",
    ];
    assert_eq!(planned(&deletes, chains), wanted);
}

#[test]
fn a_volume_that_two_snapshots_name_is_merged_once() {
    let chains = vec![chain("vda", &["a", "b", "c"])];
    let twice = of_vda(&["a", "a", "b"]);
    assert_eq!(planned(&twice, chains), ["vda 0 a<b,c: s1,s2,s3"]);
}

#[test]
fn the_job_is_told_by_where_the_run_lies() {
    let kinds = |frozen: &[&str]| {
        let vm = running(vec![chain("vda", &["a", "b", "c", "d"])]);
        let tasks = plan(&of_vda(frozen), &vm).unwrap();
        tasks.iter().map(|task| task.kind).collect::<Vec<_>>()
    };
    use MergeKind::{ActiveCommit, Commit};
    assert_eq!(kinds(&["a", "b"]), [Commit]);
    assert_eq!(kinds(&["b", "c"]), [ActiveCommit]);
    assert_eq!(kinds(&["a", "c"]), [Commit, ActiveCommit]);
}

#[test]
fn of_a_batch_what_was_merged_already_is_only_removed_and_the_rest_merged() {
    let mut deletes = of_vda(&["a", "a", "d"]);
    for snapshot in &mut deletes[..2] {
        snapshot.disks[0].merging = Some(merging("a", &["b", "c"]));
    }
    let vm = running(vec![chain("vda", &["a", "d", "e"])]);
    let tasks = plan(&deletes, &vm).unwrap();
    assert_eq!(
        drawn(&deletes, &tasks),
        ["vda 0 a<b,c: s1,s2", "vda 0 d<e: s3"]
    );
    assert!(matches!(
        tasks[0].state,
        DiskState::Removing { gone: 0, .. }
    ));
    assert_eq!(tasks[1].state, DiskState::Pending);
    let both = [
        tasks[0].deletes[0].earlier.clone(),
        tasks[0].deletes[1].earlier.clone(),
    ];
    assert_eq!(
        both,
        [
            Some(merging("a", &["b", "c"])),
            Some(merging("a", &["b", "c"]))
        ]
    );
}

#[test]
fn every_volume_that_leaves_has_a_removal_of_its_own() {
    let vm = running(vec![chain("vda", &["a", "b", "c", "d"])]);
    let tasks = plan(&of_vda(&["a", "b", "c"]), &vm).unwrap();
    let ids: std::collections::BTreeSet<_> = tasks[0]
        .removed
        .iter()
        .map(|leaving| leaving.removal.to_string())
        .collect();
    assert_eq!(ids.len(), 3);
}
