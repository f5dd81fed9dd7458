//! What must hold in every phase, whatever is seen.

use super::*;

fn any_disk(case: &Case) -> impl Strategy<Value = DiskView> + use<> {
    let others = ["newer", "one", "top"].map(|name| disk(&[name]));
    let mut chains = vec![disk(case.before); 4];
    chains.extend([disk(case.after), disk(case.after)]);
    chains.extend(others);
    let marks = [
        MirrorState::Copying,
        MirrorState::Ready,
        MirrorState::Pivoting,
    ];
    let mark = proptest::option::of(proptest::sample::select(marks.to_vec()));
    let lacking = proptest::option::weighted(0.2, 0..6_usize);
    (proptest::sample::select(chains), mark, lacking).prop_map(|(mut disk, mark, lacking)| {
        disk.mirror = mark.and_then(mirror);
        if let Some(place) = lacking.filter(|place| *place < disk.chain.len()) {
            disk.chain.remove(place);
        }
        disk
    })
}

fn any_job() -> impl Strategy<Value = Option<JobProgress>> {
    let kinds = vec![
        BlockJobKind::ActiveCommit,
        BlockJobKind::Commit,
        BlockJobKind::Pull,
        BlockJobKind::Other,
    ];
    let job = (proptest::sample::select(kinds), 0..3_u64, 0..3_u64);
    proptest::option::of(job.prop_map(|(kind, cur, end)| JobProgress { kind, cur, end }))
}

fn any_told() -> impl Strategy<Value = Option<Told>> {
    let told = vec![
        Told::Job(BlockJobOutcome::Ready),
        Told::Job(BlockJobOutcome::Completed),
        Told::Job(BlockJobOutcome::Failed),
        Told::Job(BlockJobOutcome::Cancelled),
        Told::Refused("no".to_owned()),
    ];
    proptest::option::of(proptest::sample::select(told))
}

/// A merge in any phase, and anything that may be seen of it.
fn any_look() -> impl Strategy<Value = (Case, MergeRecord, Observation)> {
    any_case().prop_flat_map(|case| {
        let states = vec![VmState::Running, VmState::Paused, VmState::ShutOff];
        let machine = (
            proptest::sample::select(states),
            any_disk(&case),
            any_job(),
            any_told(),
        );
        let time = prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(60))];
        let rest = (time.clone(), time, any_peers(), any::<bool>());
        (Just(case), any_phase(), machine, rest).prop_map(|(case, phase, machine, rest)| {
            let (state, disk, job, told) = machine;
            let (in_phase, job_missing_for, peers, fresh_start) = rest;
            let look = Observation {
                told,
                in_phase,
                job_missing_for,
                peers,
                fresh_start,
                ..seen(state, disk, job)
            };
            let record = case.at(phase);
            (case, record, look)
        })
    })
}

fn given_up(phase: &Phase) -> bool {
    matches!(phase, Phase::Cancelling { .. })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn nothing_of_a_pivot_begins_before_all_are_ready((_, record, look) in any_look()) {
        let next = decide(&record, &look);
        let pivots = matches!(next, Step::Enter(_, Some(Action::Suspend | Action::Pivot)));
        if pivots && record.pivots() && !begun(&record.phase) {
            prop_assert!(look.peers.ready, "{next:?}");
        }
        prop_assert!(record.pivots() || !matches!(next, Step::Enter(_, Some(Action::Pivot))));
        let forward = matches!(&next, Step::Enter(phase, _) if begun(phase));
        if forward && !begun(&record.phase) {
            prop_assert!(look.peers.ready, "{next:?}");
        }
    }

    #[test]
    fn no_job_is_given_up_once_one_has_passed((_, record, look) in any_look()) {
        let next = decide(&record, &look);
        if !given_up(&record.phase) && matches!(next, Step::Enter(_, Some(Action::AbortJob))) {
            prop_assert!(look.peers.lost && !look.peers.passed);
            prop_assert!(!record.phase.passed());
        }
    }

    #[test]
    fn a_job_is_aborted_in_no_phase_but_the_one_that_says_so((_, record, look) in any_look()) {
        if let Step::Enter(entered, Some(Action::AbortJob)) = decide(&record, &look) {
            prop_assert!(given_up(&entered));
            let Machine::Seen { job, .. } = &look.machine else { panic!("unseen") };
            prop_assert!(job.is_none_or(|job| job.kind == job_of(record.kind)), "another's job");
        }
    }

    #[test]
    fn cancelled_is_said_only_of_a_chain_as_before((case, record, look) in any_look()) {
        if decide(&record, &look) == Step::Finish(Outcome::Cancelled) {
            let Machine::Seen { state, disk: Some(view), job } = &look.machine else { panic!("unseen") };
            prop_assert!(*state != VmState::ShutOff);
            prop_assert!(job.is_none() && view.mirror.is_none());
            let untouched = record.phase == Phase::Pending;
            prop_assert!(given_up(&record.phase) || (untouched && look.peers.lost));
            let has = |name: &&str| view.position(&locator(name));
            let places: Option<Vec<_>> = case.before.iter().filter(|name| **name != "old").map(has).collect();
            let places = places.expect("no layer is gone");
            prop_assert!(places.is_sorted());
        }
    }
}
