//! A pull or an intermediate commit whose QEMU dies before it has written out what it copied.

use super::*;

/// Of a machine that is off the chain is what the headers say.
fn off(chain: &[&str]) -> Observation {
    another(VmState::ShutOff, chain, false)
}

/// Another QEMU runs than the one that was asked for the job.
fn another(state: VmState, chain: &[&str], for_another: bool) -> Observation {
    let mut view = disk(chain);
    view.works_for = for_another.then(|| uuid::Uuid::now_v7().into());
    seen(state, view, None)
}

fn relinking() -> [Case; 3] {
    [pull_onto_another(), pull_of_all(), inner_of_three()]
}

/// Phases in which the job may have ended and nothing is written out for certain.
fn unwritten() -> [Phase; 6] {
    [
        copying(1),
        ready(),
        stops(Window::Suspending),
        stops(Window::Releasing),
        cancelling(),
        restoring(1),
    ]
}

#[test]
fn a_chain_that_lost_the_removed_is_made_whole_before_the_merge_fails() {
    for case in relinking() {
        for phase in unwritten() {
            let begun = matches!(phase, Phase::Restoring { .. });
            let lost = late(off(case.after));
            let next = decide(&case.at(phase.clone()), &lost);
            let tries = if begun { 2 } else { 1 };
            let restores = Step::Enter(restoring(tries), Some(Action::RestoreBacking));
            assert_eq!(next, restores, "{phase:?}");
            let whole = decide(&case.at(phase), &off(case.before));
            assert_eq!(failed_with(&whole), Some(Reason::VmDied));
        }
    }
}

#[test]
fn nothing_is_restored_that_no_job_of_ours_has_changed() {
    for case in relinking() {
        let lost = off(case.after);
        let pending = decide(&case.record, &lost);
        assert_eq!(failed_with(&pending), Some(Reason::VmDied));
        // Written out it was before.
        let verifying = Phase::Verifying { suspended_at: None };
        let verified = decide(&case.at(verifying), &lost);
        assert_eq!(verified, Step::Finish(Outcome::Merged));
        let gone = decide(&case.at(copying(1)), &off(&["other"]));
        assert_eq!(failed_with(&gone), Some(Reason::VmDied));
    }
    let case = active_of_three();
    let committed = decide(&case.at(copying(1)), &off(case.after));
    assert_eq!(failed_with(&committed), Some(Reason::VmDied));
}

#[test]
fn a_restoration_is_repeated_and_not_for_ever() {
    let case = pull_of_all();
    let lost = off(case.after);
    assert!(waits(&decide(&case.at(restoring(1)), &lost)), "just asked");
    let refused = told(late(lost), Told::Refused("it is open".to_owned()));
    let mut record = case.at(restoring(1));
    let mut asked = 1;
    let end = loop {
        match decide(&record, &refused) {
            Step::Enter(phase, Some(Action::RestoreBacking)) => record.phase = phase,
            end => break end,
        }
        asked += 1;
        assert!(asked < 1000, "for ever");
    };
    assert!(asked > 10, "{asked}");
    let Step::Finish(Outcome::Failed(failure)) = end else {
        panic!("{end:?}")
    };
    assert_eq!(failure.reason, Reason::ChainLacksData);
    assert!(failure.message.contains("it is open"), "{failure:?}");
}

/// The definition has the whole chain, and the header alone goes astray.
#[test]
fn a_header_that_names_another_image_than_the_definition_is_put_right() {
    for case in relinking() {
        let mut view = disk(case.before);
        view.astray = case.record.relinked.iter().cloned().collect();
        let astray = late(seen(VmState::ShutOff, view, None));
        let restores = Step::Enter(restoring(1), Some(Action::RestoreBacking));
        for phase in [copying(1), Phase::Verifying { suspended_at: None }] {
            assert_eq!(decide(&case.at(phase), &astray), restores);
        }
        let mut view = disk(case.before);
        view.astray = vec![locator("old")];
        let others = late(seen(VmState::ShutOff, view, None));
        let died = decide(&case.at(copying(1)), &others);
        assert_eq!(failed_with(&died), Some(Reason::VmDied), "not of ours");
    }
}

/// The agent was down meanwhile, or somebody was faster.
#[test]
fn a_qemu_that_has_not_done_the_job_is_not_merged() {
    for case in relinking() {
        for for_another in [false, true] {
            for phase in [
                ready(),
                copying(1),
                cancelling(),
                restoring(1),
                Phase::Pending,
            ] {
                for state in [VmState::Running, VmState::Paused] {
                    let other = another(state, case.after, for_another);
                    let next = decide(&case.at(phase.clone()), &other);
                    let Step::Finish(Outcome::Failed(failure)) = next else {
                        panic!("{phase:?} {next:?}")
                    };
                    assert_eq!(failure.reason, Reason::ChainLacksData);
                    let backing = &case.record.removed[case.record.removed.len() - 1];
                    let relinked = case.record.relinked.as_ref().unwrap();
                    let command = format!("`qemu-img rebase -u -F qcow2 -b {backing} {relinked}`");
                    assert!(failure.message.contains(&command), "{failure:?}");
                }
            }
            // First of all the guest runs again, if it was us who stopped it.
            for (window, state) in [
                (Window::Suspending, VmState::Running),
                (Window::Suspending, VmState::Paused),
                (Window::Releasing, VmState::Paused),
            ] {
                let other = late(another(state, case.after, for_another));
                let released = Step::Enter(stops(Window::Releasing), Some(Action::Resume));
                assert_eq!(decide(&case.at(stops(window)), &other), released);
            }
        }
        // Whole, it has only died.
        let restored = another(VmState::Running, case.before, false);
        let next = decide(&case.at(restoring(1)), &restored);
        assert_eq!(failed_with(&next), Some(Reason::VmDied));
    }
}

fn late(seen: Observation) -> Observation {
    Observation {
        in_phase: Duration::from_secs(60),
        ..seen
    }
}

fn any_phase_of_these() -> impl Strategy<Value = Phase> {
    prop_oneof![6 => any_phase(), 1 => (0..60_u32).prop_map(restoring)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// On the way to Merged a job that changes a header is seen to be done by the QEMU that did it.
    #[test]
    fn nothing_of_another_qemu_is_merged(
        case in proptest::sample::select(relinking().to_vec()), phase in any_phase_of_these(), paused: bool, for_another: bool, lost: bool,
        fresh_start: bool, times in any::<[bool; 2]>(), refused: bool, peers in any_peers(),
    ) {
        prop_assume!(!matches!(phase, Phase::Verifying { .. }));
        let state = if paused { VmState::Paused } else { VmState::Running };
        let chain = if lost { case.after } else { case.before };
        let [in_phase, job_missing_for] = times.map(|long| Duration::from_secs(60 * u64::from(long)));
        let look = Observation {
            fresh_start,
            in_phase,
            job_missing_for,
            told: refused.then(|| Told::Refused("no".to_owned())),
            ..with(&another(state, chain, for_another), peers)
        };
        let next = decide(&case.at(phase), &look);
        let merges = matches!(
            next,
            Step::Enter(Phase::Verifying { .. }, _) | Step::Finish(Outcome::Merged)
        );
        prop_assert!(!merges, "{next:?}");
    }
}

/// An earlier job may have left the base open for writing: QEMU does not write it out by itself then.
#[test]
fn a_base_that_qemu_still_writes_is_merged_once_the_guest_stood_still() {
    let case = inner_of_three();
    let open = |state| {
        let mut view = disk(case.after);
        view.unflushed = vec![case.record.kept.clone()];
        seen(state, view, None)
    };
    let stopped = Step::Enter(stops(Window::Suspending), Some(Action::Suspend));
    let next = decide(&case.at(copying(1)), &open(VmState::Running));
    assert_eq!(next, stopped);
    let resumed = Step::Enter(
        Phase::Verifying {
            suspended_at: Some(now()),
        },
        Some(Action::Resume),
    );
    let next = decide(&case.at(stops(Window::Suspending)), &open(VmState::Paused));
    assert_eq!(next, resumed);
    let others = decide(&case.at(copying(1)), &open(VmState::Paused));
    assert!(waits(&others), "somebody else has stopped it");
}

#[test]
fn a_machine_that_nobody_defines_any_more_is_told_to_lack_data() {
    let gone = Observation {
        machine: Machine::Gone,
        ..off(&[])
    };
    for case in relinking() {
        let begun = decide(&case.at(copying(1)), &gone);
        assert_eq!(failed_with(&begun), Some(Reason::ChainLacksData));
        assert_eq!(
            failed_with(&decide(&case.record, &gone)),
            Some(Reason::VmDied)
        );
        let verified = Phase::Verifying { suspended_at: None };
        let merged = decide(&case.at(verified), &gone);
        assert_eq!(merged, Step::Finish(Outcome::Merged));
    }
}
