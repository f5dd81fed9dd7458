//! What holds in every phase, whatever is seen.

use super::*;
use crate::merge::step::Peers;
use crate::merge::types::{MergeKind, Overlaying};
use proptest::prelude::*;

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
        any::<bool>().prop_map(|adding| Phase::Overlaying {
            stage: if adding {
                Overlaying::Adding
            } else {
                Overlaying::Ending
            },
            since: now()
        }),
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
            .prop_map(|(state, disk, job)| Machine::Seen { state, disk: disk.map(Box::new), job }),
    ];
    let told = proptest::option::of(prop_oneof![
        Just(Told::Job(BlockJobOutcome::Ready)),
        Just(Told::Job(BlockJobOutcome::Completed)),
        Just(Told::Job(BlockJobOutcome::Failed)),
        Just(Told::Job(BlockJobOutcome::Cancelled)),
        Just(Told::Refused("no".to_owned())),
    ]);
    let time = prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(60))];
    let peers = any::<[bool; 3]>().prop_map(|[ready, lost, passed]| Peers {
        ready,
        lost,
        passed,
    });
    let flags = any::<[bool; 3]>();
    (machine, told, time.clone(), time, peers, flags).prop_map(
        |(machine, told, in_phase, job_missing_for, peers, [overlaid, fresh_start, lacks_room])| {
            Observation {
                machine,
                lacks_room,
                told,
                told_for: in_phase,
                in_phase,
                job_missing_for,
                mark_alone_for: job_missing_for,
                of_no_kind_for: in_phase,
                stalled_for: Duration::ZERO,
                can_help: true,
                help_waits: false,
                inherited_help: false,
                overlaid,
                peers,
                fresh_start,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn unknown_only_waits(phase in any_phase(), active: bool, given_room: bool) {
        let record = MergeRecord { phase, given_room, ..record(active) };
        let mut unknown = seen(VmState::Running, disk(&BEFORE), None);
        unknown.machine = Machine::Unknown;
        prop_assert!(matches!(decide(&record, &unknown), Step::Wait(_)));
    }

    #[test]
    fn merged_is_said_only_of_a_chain_without_top(
        phase in any_phase(), active: bool, given_room: bool, look in any_observation(),
    ) {
        let record = MergeRecord { phase, given_room, ..record(active) };
        if decide(&record, &look) == Step::Finish(Outcome::Merged) {
            let Machine::Seen { disk: Some(disk), .. } = &look.machine else { panic!("unseen") };
            for removed in &record.removed {
                prop_assert!(disk.position(removed).is_none());
                prop_assert!(disk.next_start.as_ref() != Some(removed));
            }
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
            prop_assert!(!look.lacks_room, "it may be let run");
            prop_assert_eq!(job.cur, job.end);
        }
    }

    #[test]
    fn a_job_is_started_only_where_none_runs(phase in any_phase(), active: bool, given_room: bool, look in any_observation()) {
        let record = MergeRecord { phase, given_room, ..record(active) };
        if let Step::Enter(_, Some(Action::StartJob)) = decide(&record, &look) {
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
    fn no_guest_runs_again_while_a_pivot_is_on_its_way(look in any_observation(), cur in 0..9_u64) {
        let job = job(BlockJobKind::ActiveCommit, cur, 9);
        let state = VmState::Paused;
        let disk = Some(with_mirror(MirrorState::Pivoting));
        let look = Observation { machine: Machine::Seen { state, disk: disk.map(Box::new), job }, ..look };
        prop_assert!(matches!(decide(&at(pivoting(Window::Intent)), &look), Step::Wait(_)));
    }

    #[test]
    fn every_open_phase_has_a_way_out(phase in any_phase(), active: bool, given_room: bool) {
        // The machine is well, nothing runs any more, and time passes: the merge ends.
        let mut record = MergeRecord { phase, given_room, ..record(active) };
        let policy = Policy::default();
        let below = ["old", "base", "top", "newer"];
        let mut layers = if active { &BEFORE[..] } else { &below };
        let mut overlaid = false;
        let mut time = now();
        for _ in 0..20 {
            let mut look = seen(VmState::Running, disk(layers), None);
            look.job_missing_for = Duration::from_secs(60);
            look.in_phase = Duration::from_secs(60);
            look.overlaid = overlaid;
            match step(&record, &look, &policy, time) {
                Step::Enter(phase, action) => {
                    record.phase = phase;
                    if action == Some(Action::AddOverlay) {
                        (layers, overlaid, record.kind) = (&below, true, MergeKind::Commit);
                    }
                }
                Step::Help(help) => record.help = help,
                Step::Wait(wait) => time = time.saturating_add(jiff::SignedDuration::try_from(wait).unwrap()).unwrap(),
                Step::Finish(_) => return Ok(()),
            }
        }
        prop_assert!(false, "still {:?}", record.phase);
    }
}
