//! The decisions of a merge, row by row, and what must hold for all of them.

use super::samples::{disk, job, mirror, now, record, seen};
use super::step::{Action, Machine, Observation, Outcome, PivotMode, Policy, Step, Told, step};
use super::types::{MergeRecord, Phase, Window};
use crate::hypervisor::{
    BlockJobKind, BlockJobOutcome, DiskView, JobProgress, MirrorState, VmState,
};
use livemerge_proto::reason::Reason;
use proptest::prelude::*;
use std::time::Duration;

const BEFORE: [&str; 3] = ["old", "base", "top"];
const AFTER: [&str; 2] = ["old", "base"];

fn decide(record: &MergeRecord, seen: &Observation) -> Step {
    step(record, seen, &Policy::default(), now())
}

fn at(phase: Phase) -> MergeRecord {
    MergeRecord {
        phase,
        ..record(true)
    }
}

fn copying() -> Phase {
    Phase::Copying {
        starts: 1,
        since: now(),
    }
}

fn pivoting(window: Window) -> Phase {
    Phase::Pivoting {
        window,
        since: now(),
        suspended_at: Some(now()),
    }
}

fn with_mirror(state: MirrorState) -> DiskView {
    DiskView {
        mirror: mirror(state),
        ..disk(&BEFORE)
    }
}

fn failed_with(step: &Step) -> Option<Reason> {
    match step {
        Step::Finish(Outcome::Failed(failure)) => Some(failure.reason),
        _ => None,
    }
}

#[test]
fn pending_starts_the_job_once_written_down() {
    let next = decide(&record(true), &seen(VmState::Running, disk(&BEFORE), None));
    assert_eq!(next, Step::Enter(copying(), Some(Action::StartCommit)));
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
        Some(Action::StartCommit),
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
fn the_pivot_stops_the_guest_first() {
    let ready = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    let next = decide(&at(Phase::Ready { not_before: now() }), &ready);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Suspending), Some(Action::Suspend))
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_put_the_pivot_off() {
    let ready = seen(VmState::Running, with_mirror(MirrorState::Ready), None);
    let after = |seconds| Phase::Ready {
        not_before: now() + jiff::SignedDuration::from_secs(seconds),
    };
    let next = decide(&at(after(1)), &ready);
    assert_eq!(next, Step::Wait(Policy::default().retry_after), "not yet");
    for earlier in [-86_400, 0, 86_400] {
        let next = decide(&at(after(earlier)), &ready);
        assert!(
            matches!(
                next,
                Step::Enter(Phase::Pivoting { .. }, Some(Action::Suspend))
            ),
            "{earlier} s: {next:?}"
        );
    }
}

#[test]
fn a_guest_that_stood_still_before_is_left_so() {
    let ready = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    let Step::Enter(phase, None) = decide(&at(Phase::Ready { not_before: now() }), &ready) else {
        panic!("nothing is to be done to the guest");
    };
    let Step::Enter(phase, Some(Action::Pivot)) = decide(&at(phase), &ready) else {
        panic!("pivots")
    };
    let done = seen(VmState::Paused, disk(&AFTER), None);
    let Step::Enter(phase, None) = decide(&at(phase), &done) else {
        panic!("does not resume")
    };
    assert_eq!(decide(&at(phase), &done), Step::Finish(Outcome::Merged));
}

#[test]
fn no_pivot_before_both_read_the_same() {
    let behind = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    assert!(matches!(
        decide(&at(pivoting(Window::Suspending)), &behind),
        Step::Wait(_)
    ));
    let running = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    assert!(matches!(
        decide(&at(pivoting(Window::Suspending)), &running),
        Step::Wait(_)
    ));
    let same = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    let next = decide(&at(pivoting(Window::Suspending)), &same);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Intent), Some(Action::Pivot))
    );
}

#[test]
fn a_pause_that_is_too_long_is_called_off_and_tried_later() {
    let behind = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    let late = Observation {
        in_phase: Policy::default().pause_limit,
        ..behind
    };
    let next = decide(&at(pivoting(Window::Suspending)), &late);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Releasing), Some(Action::Resume))
    );
    let running = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    let Step::Enter(Phase::Ready { not_before }, None) =
        decide(&at(pivoting(Window::Releasing)), &running)
    else {
        panic!("it is tried again");
    };
    assert!(not_before > now());
}

fn fresh(seen: Observation) -> Observation {
    Observation {
        fresh_start: true,
        ..seen
    }
}

fn late(seen: Observation) -> Observation {
    Observation {
        in_phase: Duration::from_secs(60),
        ..seen
    }
}

fn released() -> Step {
    Step::Enter(pivoting(Window::Releasing), Some(Action::Resume))
}

fn stopped(mirror: MirrorState) -> Observation {
    let same = job(BlockJobKind::ActiveCommit, 9, 9);
    seen(VmState::Paused, with_mirror(mirror), same)
}

#[test]
fn a_restart_before_the_intent_releases_the_guest_first_thing() {
    for window in [Window::Suspending, Window::Releasing] {
        let next = decide(&at(pivoting(window)), &fresh(stopped(MirrorState::Ready)));
        assert_eq!(next, released(), "{window:?}");
    }
}

#[test]
fn a_restart_after_the_intent_asks_for_the_same_pivot_again() {
    let intent = at(pivoting(Window::Intent));
    let next = decide(&intent, &fresh(stopped(MirrorState::Ready)));
    let again = Step::Enter(pivoting(Window::Intent), Some(Action::Pivot));
    assert_eq!(next, again);
    // Somebody has let the guest write meanwhile: the volumes differ, and no pivot is on its way.
    let running = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 5, 9),
    );
    assert_eq!(decide(&intent, &fresh(running)), released());
}

#[test]
fn a_pivot_on_its_way_is_never_called_off() {
    let intent = at(pivoting(Window::Intent));
    let mut on_its_way = fresh(late(stopped(MirrorState::Pivoting)));
    on_its_way.told = Some(Told::Refused("a reply that was lost".to_owned()));
    assert!(matches!(decide(&intent, &on_its_way), Step::Wait(_)));
}

#[test]
fn a_pivot_without_effect_is_called_off() {
    let intent = at(pivoting(Window::Intent));
    for seen in [
        stopped(MirrorState::Ready),
        seen(VmState::Paused, disk(&BEFORE), None),
    ] {
        assert!(matches!(decide(&intent, &seen), Step::Wait(_)));
        assert_eq!(decide(&intent, &late(seen)), released());
    }
}

#[test]
fn a_switch_that_the_next_start_does_not_know_of_goes_forward_only() {
    let mut half = disk(&AFTER);
    half.next_start = disk(&BEFORE).next_start;
    let half = seen(VmState::Paused, half, None);
    let intent = at(pivoting(Window::Intent));
    assert!(matches!(decide(&intent, &half), Step::Wait(_)));
    let verifying = Phase::Verifying {
        suspended_at: Some(now()),
    };
    let next = decide(&intent, &late(half.clone()));
    assert_eq!(next, Step::Enter(verifying.clone(), Some(Action::Resume)));
    let resumed = Observation {
        machine: match half.machine {
            Machine::Seen { disk, job, .. } => Machine::Seen {
                state: VmState::Running,
                disk,
                job,
            },
            other => other,
        },
        ..half
    };
    assert!(matches!(
        decide(&at(verifying.clone()), &resumed),
        Step::Wait(_)
    ));
    let given_up = decide(&at(verifying), &late(resumed));
    assert_eq!(failed_with(&given_up), Some(Reason::ChainDiverged));
}

#[test]
fn a_guest_whose_disk_is_gone_runs_again_before_the_merge_fails() {
    let gone = |state| Observation {
        machine: Machine::Seen {
            state,
            disk: None,
            job: None,
        },
        ..late(stopped(MirrorState::Ready))
    };
    for window in [Window::Suspending, Window::Intent, Window::Releasing] {
        let record = at(pivoting(window));
        assert_eq!(decide(&record, &gone(VmState::Paused)), released());
        let running = decide(&record, &gone(VmState::Running));
        assert_eq!(failed_with(&running), Some(Reason::DiskNotFound));
    }
}

#[test]
fn a_restart_after_the_pivot_writes_it_down_before_the_guest_runs() {
    for window in [Window::Intent, Window::Releasing] {
        let done = seen(VmState::Paused, disk(&AFTER), None);
        let fresh = Observation {
            fresh_start: true,
            ..done
        };
        let next = decide(&at(pivoting(window)), &fresh);
        let verified = Phase::Verifying {
            suspended_at: Some(now()),
        };
        assert_eq!(
            next,
            Step::Enter(verified, Some(Action::Resume)),
            "{window:?}"
        );
    }
}

#[test]
fn a_refused_pivot_is_cleared_before_the_guest_runs() {
    let mut refused = seen(
        VmState::Paused,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    refused.told = Some(Told::Refused("no".to_owned()));
    let next = decide(&at(pivoting(Window::Intent)), &refused);
    assert_eq!(
        next,
        Step::Enter(pivoting(Window::Releasing), Some(Action::Resume))
    );
}

#[test]
fn a_guest_that_does_not_run_again_is_asked_again() {
    let stopped = seen(VmState::Paused, disk(&AFTER), None);
    let record = at(Phase::Verifying {
        suspended_at: Some(now()),
    });
    assert!(matches!(decide(&record, &stopped), Step::Wait(_)));
    let late = Observation {
        in_phase: Duration::from_millis(100),
        ..stopped
    };
    assert!(matches!(
        decide(&record, &late),
        Step::Enter(_, Some(Action::Resume))
    ));
}

#[test]
fn a_dead_machine_fails_the_merge_in_every_phase_but_the_verified_one() {
    let mut off = disk(&["top"]);
    off.next_start = disk(&BEFORE).next_start;
    let off = seen(VmState::ShutOff, off, None);
    for phase in [
        Phase::Pending,
        copying(),
        Phase::Ready { not_before: now() },
        pivoting(Window::Suspending),
        pivoting(Window::Intent),
        pivoting(Window::Releasing),
        Phase::Verifying { suspended_at: None },
    ] {
        assert_eq!(
            failed_with(&decide(&at(phase.clone()), &off)),
            Some(Reason::VmDied),
            "{phase:?}"
        );
    }
    let base = seen(VmState::ShutOff, disk(&["base"]), None);
    let verified = at(Phase::Verifying { suspended_at: None });
    assert_eq!(decide(&verified, &base), Step::Finish(Outcome::Merged));
}

#[test]
fn running_mode_does_not_stop_the_guest() {
    let policy = Policy {
        pivot: PivotMode::Running,
        ..Policy::default()
    };
    let ready = seen(
        VmState::Running,
        with_mirror(MirrorState::Ready),
        job(BlockJobKind::ActiveCommit, 9, 9),
    );
    let record = at(Phase::Ready { not_before: now() });
    let Step::Enter(phase, Some(Action::Pivot)) = step(&record, &ready, &policy, now()) else {
        panic!("pivots at once");
    };
    assert!(matches!(
        phase,
        Phase::Pivoting {
            suspended_at: None,
            ..
        }
    ));
}

fn any_phase() -> impl Strategy<Value = Phase> {
    let window = prop_oneof![
        Just(Window::Suspending),
        Just(Window::Intent),
        Just(Window::Releasing)
    ];
    let suspended = any::<bool>().prop_map(|yes| yes.then(now));
    prop_oneof![
        Just(Phase::Pending),
        (1..5_u32).prop_map(|starts| Phase::Copying {
            starts,
            since: now()
        }),
        Just(Phase::Ready { not_before: now() }),
        (window, suspended.clone()).prop_map(|(window, suspended_at)| Phase::Pivoting {
            window,
            since: now(),
            suspended_at
        }),
        suspended.prop_map(|suspended_at| Phase::Verifying { suspended_at }),
    ]
}

fn any_disk() -> impl Strategy<Value = DiskView> {
    let chain = prop_oneof![
        Just(disk(&BEFORE)),
        Just(disk(&AFTER)),
        Just(disk(&["old", "base", "top", "newer"])),
        Just(disk(&["base", "newer"])),
        Just(disk(&["other"])),
    ];
    (chain, 0..4).prop_map(|(disk, mark)| DiskView {
        mirror: match mark {
            0 => None,
            1 => mirror(MirrorState::Copying),
            2 => mirror(MirrorState::Pivoting),
            _ => mirror(MirrorState::Ready),
        },
        ..disk
    })
}

fn any_job() -> impl Strategy<Value = Option<JobProgress>> {
    let kind = prop_oneof![
        Just(BlockJobKind::ActiveCommit),
        Just(BlockJobKind::Commit),
        Just(BlockJobKind::Other)
    ];
    proptest::option::of(
        (kind, 0..3_u64, 0..3_u64).prop_map(|(kind, cur, end)| JobProgress { kind, cur, end }),
    )
}

fn any_observation() -> impl Strategy<Value = Observation> {
    let state = prop_oneof![
        Just(VmState::Running),
        Just(VmState::Paused),
        Just(VmState::ShutOff)
    ];
    let machine = prop_oneof![
        1 => Just(Machine::Unknown),
        1 => Just(Machine::Gone),
        8 => (state, proptest::option::weighted(0.9, any_disk()), any_job())
            .prop_map(|(state, disk, job)| Machine::Seen { state, disk, job }),
    ];
    let told = proptest::option::of(prop_oneof![
        Just(Told::Job(BlockJobOutcome::Ready)),
        Just(Told::Job(BlockJobOutcome::Completed)),
        Just(Told::Job(BlockJobOutcome::Failed)),
        Just(Told::Job(BlockJobOutcome::Cancelled)),
        Just(Told::Refused("no".to_owned())),
    ]);
    let time = prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(60))];
    (machine, told, time.clone(), time, any::<bool>()).prop_map(
        |(machine, told, in_phase, job_missing_for, fresh_start)| Observation {
            machine,
            told,
            in_phase,
            job_missing_for,
            fresh_start,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn unknown_only_waits(phase in any_phase(), active: bool) {
        let record = MergeRecord { phase, ..record(active) };
        let mut unknown = seen(VmState::Running, disk(&BEFORE), None);
        unknown.machine = Machine::Unknown;
        prop_assert!(matches!(decide(&record, &unknown), Step::Wait(_)));
    }

    #[test]
    fn merged_is_said_only_of_a_chain_without_top(
        phase in any_phase(), active: bool, look in any_observation(),
    ) {
        let record = MergeRecord { phase, ..record(active) };
        if decide(&record, &look) == Step::Finish(Outcome::Merged) {
            let Machine::Seen { disk: Some(disk), .. } = &look.machine else { panic!("unseen") };
            prop_assert!(disk.position(&record.top).is_none());
            prop_assert!(disk.next_start.as_ref() != Some(&record.top));
        }
    }

    #[test]
    fn the_pivot_is_asked_for_only_when_both_read_the_same(
        phase in any_phase(), look in any_observation(),
    ) {
        let record = at(phase);
        if let Step::Enter(entered, Some(Action::Pivot)) = decide(&record, &look) {
            let is_intent = matches!(entered, Phase::Pivoting { window: Window::Intent, .. });
            prop_assert!(is_intent, "the intent is written down first");
            let Machine::Seen { state, job: Some(job), .. } = &look.machine else { panic!("unseen") };
            prop_assert_eq!(*state, VmState::Paused);
            prop_assert_eq!(job.cur, job.end);
        }
    }

    #[test]
    fn a_job_is_started_only_where_none_runs(phase in any_phase(), active: bool, look in any_observation()) {
        let record = MergeRecord { phase, ..record(active) };
        if let Step::Enter(_, Some(Action::StartCommit)) = decide(&record, &look) {
            let Machine::Seen { disk: Some(disk), job, .. } = &look.machine else { panic!("unseen") };
            prop_assert!(job.is_none() && disk.mirror.is_none());
        }
    }

    #[test]
    fn a_guest_that_we_may_have_stopped_is_never_left_behind(
        window in prop_oneof![Just(Window::Suspending), Just(Window::Intent), Just(Window::Releasing)],
        disk in any_disk(), job in any_job(),
    ) {
        // A paused guest of ours: the merge may not end before it was resumed.
        let record = at(pivoting(window));
        let next = decide(&record, &seen(VmState::Paused, disk, job));
        prop_assert!(!matches!(next, Step::Finish(_)), "{next:?}");
    }

    #[test]
    fn no_guest_runs_again_while_a_pivot_is_on_its_way(look in any_observation(), job in any_job()) {
        let state = VmState::Paused;
        let disk = Some(with_mirror(MirrorState::Pivoting));
        let look = Observation { machine: Machine::Seen { state, disk, job }, ..look };
        prop_assert!(matches!(decide(&at(pivoting(Window::Intent)), &look), Step::Wait(_)));
    }

    #[test]
    fn every_open_phase_has_a_way_out(phase in any_phase(), active: bool) {
        // The machine is well, nothing runs any more, and time passes: the merge ends.
        let mut record = MergeRecord { phase, ..record(active) };
        let policy = Policy::default();
        let layers = if active { &BEFORE[..] } else { &["old", "base", "top", "newer"] };
        let mut time = now();
        for _ in 0..20 {
            let mut look = seen(VmState::Running, disk(layers), None);
            look.job_missing_for = Duration::from_secs(60);
            look.in_phase = Duration::from_secs(60);
            match step(&record, &look, &policy, time) {
                Step::Enter(phase, _) => record.phase = phase,
                Step::Wait(wait) => time = time.saturating_add(jiff::SignedDuration::try_from(wait).unwrap()).unwrap(),
                Step::Finish(_) => return Ok(()),
            }
        }
        prop_assert!(false, "still {:?}", record.phase);
    }
}
