//! Several layers at once, down and up.

use super::*;

#[test]
fn a_chain_that_lies_otherwise_is_not_touched() {
    let wrong: [&[&[&str]]; 4] = [
        &[
            &["old", "base", "one", "two", "three", "newer"],
            &["base", "one", "three"],
            &["base", "two", "one", "three"],
            &["base", "one", "two", "between", "three"],
            &["one", "two", "three"],
        ],
        &[
            &["old", "base", "one", "two", "three"],
            &["base", "one", "three", "newer"],
            &["old", "one", "base", "two", "three", "newer"],
        ],
        &[
            &["one", "two", "top"],
            &["other", "one", "two", "top"],
            &["old", "other", "one", "two", "top"],
            &["old", "two", "top"],
            &["old", "two", "one", "top"],
            &["old", "one", "two", "top", "newer"],
        ],
        &[
            &["old", "one", "two", "top"],
            &["two", "top"],
            &["one", "top", "two"],
        ],
    ];
    for (case, chains) in cases().iter().zip(wrong) {
        let right = case.quiet(case.before, Duration::ZERO);
        let starts = Step::Enter(copying(1), Some(Action::StartJob));
        assert_eq!(decide(&case.record, &right), starts, "{case:?}");
        for chain in chains {
            let first = decide(&case.record, &case.quiet(chain, Duration::ZERO));
            let again = decide(&case.at(copying(1)), &case.quiet(chain, settle()));
            for next in [first, again] {
                let reason = failed_with(&next);
                assert_eq!(reason, Some(Reason::ChainDiverged), "{chain:?}");
            }
        }
    }
}

#[test]
fn merged_is_a_chain_without_any_of_the_removed_that_nothing_names() {
    for case in cases() {
        let (copies, verified) = (
            case.at(copying(1)),
            case.at(Phase::Verifying { suspended_at: None }),
        );
        let done = case.quiet(case.after, Duration::ZERO);
        assert_eq!(decide(&copies, &done), verifies(&case), "{case:?}");
        assert_eq!(decide(&verified, &done), Step::Finish(Outcome::Merged));
        for removed in &case.record.removed {
            let mut half = disk(case.before);
            half.chain.retain(|layer| {
                layer.locator == *removed || !case.record.removed.contains(&layer.locator)
            });
            let mut named = disk(case.after);
            named.next_start = Some(removed.clone());
            for view in [half, named] {
                let look = seen(VmState::Running, view, None);
                assert!(waits(&decide(&copies, &look)), "{look:?}");
                assert!(waits(&decide(&verified, &look)), "{look:?}");
            }
        }
        let mut marked = disk(case.after);
        marked.mirror = mirror(MirrorState::Ready);
        let marked = seen(VmState::Running, marked, None);
        assert!(waits(&decide(&verified, &marked)), "a job is left");
    }
}

#[test]
fn a_pull_ends_by_itself_and_is_never_ready() {
    for case in [pull_onto_another(), pull_of_all(), inner_of_three()] {
        assert!(waits(&decide(&case.at(copying(1)), &case.running(0))));
        let foreign = seen(
            VmState::Running,
            disk(case.before),
            job(BlockJobKind::ActiveCommit, 0, 9),
        );
        let next = decide(&case.at(copying(1)), &foreign);
        assert_eq!(failed_with(&next), Some(Reason::ConcurrentChange));
    }
}

/// What QEMU has pulled is in its memory alone until it is flushed, and the guest may not do so.
#[test]
fn a_pull_is_merged_when_the_guest_was_stopped_after_it() {
    for case in [pull_onto_another(), pull_of_all()] {
        let running = case.quiet(case.after, Duration::ZERO);
        let paused = seen(VmState::Paused, disk(case.after), None);
        let suspending = case.at(stops(Window::Suspending));
        assert!(
            waits(&decide(&case.at(copying(1)), &paused)),
            "somebody else's"
        );
        assert!(waits(&decide(&suspending, &running)));
        let verifying = Phase::Verifying {
            suspended_at: Some(now()),
        };
        let resumes = Step::Enter(verifying.clone(), Some(Action::Resume));
        for fresh_start in [false, true] {
            let stopped = Observation {
                fresh_start,
                peers: Peers {
                    ready: false,
                    ..LOST
                },
                ..paused.clone()
            };
            for window in [Window::Suspending, Window::Releasing] {
                assert_eq!(decide(&case.at(stops(window)), &stopped), resumes);
            }
        }
        let done = decide(&case.at(verifying), &running);
        assert_eq!(done, Step::Finish(Outcome::Merged));
        // The guest did not stop, or nobody knows whether it did.
        let released = Step::Enter(stops(Window::Releasing), Some(Action::Resume));
        let fresh = Observation {
            fresh_start: true,
            ..running.clone()
        };
        let late = Observation {
            in_phase: Policy::default().pause_limit,
            ..running.clone()
        };
        let refused = told(running.clone(), Told::Refused("no".to_owned()));
        for again in [fresh, late, refused] {
            assert_eq!(decide(&suspending, &again), released);
        }
        let next = decide(&case.at(stops(Window::Releasing)), &running);
        let Step::Enter(Phase::Ready { not_before }, None) = next else {
            panic!("{next:?}")
        };
        assert!(not_before > now());
        let put_off = case.at(Phase::Ready { not_before });
        assert!(waits(&decide(&put_off, &running)));
        assert_eq!(decide(&case.at(ready()), &running), verifies(&case));
    }
}
