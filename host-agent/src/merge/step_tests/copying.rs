//! Pending and Copying: one job, adopted or asked for again.

use super::*;
use livemerge_proto::problem::Problem;

#[test]
fn pending_starts_the_job_once_written_down() {
    let next = decide(&record(true), &seen(VmState::Running, disk(&BEFORE), None));
    assert_eq!(next, Step::Enter(copying(), Some(Action::StartJob)));
}

#[test]
fn pending_never_doubles_a_job() {
    let busy = seen(
        VmState::Running,
        disk(&BEFORE),
        job(BlockJobKind::Other, 0, 1),
    );
    assert_eq!(
        failed_with(&decide(&record(true), &busy)),
        Some(Reason::ConcurrentChange)
    );
}

#[test]
fn pending_refuses_another_chain() {
    for layers in [
        &["base", "top", "newer"][..],
        &["base", "middle", "top"],
        &["top", "base"],
        &["top"],
    ] {
        let other = seen(VmState::Running, disk(layers), None);
        assert_eq!(
            failed_with(&decide(&record(true), &other)),
            Some(Reason::ChainDiverged),
            "{layers:?}"
        );
    }
}

#[test]
fn a_running_job_is_adopted() {
    let running = seen(
        VmState::Running,
        with_mirror(MirrorState::Copying),
        job(BlockJobKind::ActiveCommit, 1, 2),
    );
    let next = decide(
        &at(copying()),
        &Observation {
            fresh_start: true,
            ..running
        },
    );
    assert!(matches!(next, Step::Wait(_)), "{next:?}");
}

/// libvirt was killed between the job's start and its mark.
#[test]
fn a_job_that_libvirt_never_marked_is_pivoted_once_it_has_caught_up() {
    let copying = at(copying());
    let caught_up = job(BlockJobKind::ActiveCommit, 9, 9);
    let unmarked = |state, job| late(seen(state, disk(&BEFORE), job));
    let just_started = seen(VmState::Running, disk(&BEFORE), caught_up);
    assert!(matches!(decide(&copying, &just_started), Step::Wait(_)));
    let behind = unmarked(VmState::Running, job(BlockJobKind::ActiveCommit, 5, 9));
    assert!(matches!(decide(&copying, &behind), Step::Wait(_)));
    let Step::Enter(ready, None) = decide(&copying, &unmarked(VmState::Running, caught_up)) else {
        panic!("it is ready");
    };
    let running = seen(VmState::Running, disk(&BEFORE), caught_up);
    let Step::Enter(suspending, Some(Action::Suspend)) = decide(&at(ready), &running) else {
        panic!("the guest stands still first");
    };
    let still = seen(VmState::Paused, disk(&BEFORE), caught_up);
    let next = decide(&at(suspending), &still);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Intent), Some(Action::Pivot))
    );
}

#[test]
fn a_missing_job_is_asked_for_again_only_after_a_while_and_not_for_ever() {
    let gone = seen(VmState::Running, disk(&BEFORE), None);
    assert!(matches!(decide(&at(copying()), &gone), Step::Wait(_)));
    let settled = Observation {
        job_missing_for: Policy::default().settle,
        ..gone
    };
    let again = Step::Enter(
        Phase::Copying {
            starts: 2,
            since: now(),
        },
        Some(Action::StartJob),
    );
    assert_eq!(decide(&at(copying()), &settled), again);
    let last = at(Phase::Copying {
        starts: 3,
        since: now(),
    });
    assert_eq!(
        failed_with(&decide(&last, &settled)),
        Some(Reason::MergeIoError)
    );
}

#[test]
fn a_failed_job_fails_the_merge_at_once() {
    for outcome in [BlockJobOutcome::Failed, BlockJobOutcome::Cancelled] {
        let mut gone = seen(VmState::Running, disk(&BEFORE), None);
        gone.told = Some(Told::Job(outcome));
        assert_eq!(
            failed_with(&decide(&at(copying()), &gone)),
            Some(Reason::MergeIoError)
        );
    }
}

#[test]
fn completed_is_believed_only_when_the_chain_shows_it() {
    let mut told = seen(VmState::Running, disk(&BEFORE), None);
    told.told = Some(Told::Job(BlockJobOutcome::Completed));
    assert!(matches!(decide(&at(copying()), &told), Step::Wait(_)));
}

#[test]
fn an_intermediate_commit_ends_by_itself() {
    let mut merge = record(false);
    merge.phase = copying();
    let done = seen(VmState::Running, disk(&["base", "newer"]), None);
    let next = decide(&merge, &done);
    assert_eq!(
        next,
        Step::Enter(Phase::Verifying { suspended_at: None }, None)
    );
    merge.phase = Phase::Verifying { suspended_at: None };
    assert_eq!(decide(&merge, &done), Step::Finish(Outcome::Merged));
}

#[test]
fn a_job_without_room_waits_for_storage_and_ends_where_there_is_none() {
    // To ask may have taken as long as it likes.
    let seen_with = |reason, told_for| Observation {
        told: Some(Told::NotStarted(Problem::new(reason, "no"))),
        told_for,
        ..late(seen(VmState::Running, disk(&BEFORE), None))
    };
    let record = at(copying());
    let full = decide(
        &record,
        &seen_with(Reason::InsufficientSpace, Duration::ZERO),
    );
    assert_eq!(failed_with(&full), Some(Reason::InsufficientSpace));
    let silent = |told_for| seen_with(Reason::StorageUnreachable, told_for);
    let next = decide(&record, &silent(Duration::ZERO));
    assert!(matches!(next, Step::Wait(_)), "{next:?}");
    // As often as it takes: it is the same start.
    for starts in [1, 3] {
        let phase = Phase::Copying {
            starts,
            since: now(),
        };
        let next = decide(&at(phase.clone()), &silent(Duration::from_secs(60)));
        assert_eq!(next, Step::Enter(phase, Some(Action::StartJob)));
    }
    // Meanwhile somebody has put another layer on.
    let moved = Observation {
        machine: seen(
            VmState::Running,
            disk(&["old", "base", "other", "top"]),
            None,
        )
        .machine,
        ..silent(Duration::from_secs(60))
    };
    assert_eq!(
        failed_with(&decide(&record, &moved)),
        Some(Reason::ChainDiverged)
    );
}
