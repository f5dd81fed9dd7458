//! A copy that nothing lets catch up: the guest gets a fresh overlay.

use super::*;
use crate::merge::step::Peers;
use crate::merge::types::{Help, MergeKind, Overlaying, Throttle};

fn with_spare(phase: Phase) -> MergeRecord {
    let mut record = MergeRecord {
        phase,
        ..record(true)
    };
    let top = &record.order.removed[0].volume;
    record.order.spare = Some(livemerge_storage::VolumeRef {
        storage: top.storage.clone(),
        name: "spare.qcow2".parse().unwrap(),
    });
    record
}

fn at(stage: Overlaying) -> MergeRecord {
    with_spare(Phase::Overlaying {
        stage,
        since: now(),
    })
}

/// A copy that stands still.
fn behind() -> Observation {
    let copies = DiskView {
        mirror: mirror(MirrorState::Copying),
        ..disk(&BEFORE)
    };
    Observation {
        stalled_for: Policy::default().stalled_after,
        ..seen(
            VmState::Running,
            copies,
            job(BlockJobKind::ActiveCommit, 5, 9),
        )
    }
}

fn quiet() -> Observation {
    Observation {
        job_missing_for: Duration::from_secs(60),
        ..seen(VmState::Running, disk(&BEFORE), None)
    }
}

/// The spare on top, as the chain shows it.
fn overlaid() -> Observation {
    let chain = [BEFORE.as_slice(), &["spare"]].concat();
    Observation {
        overlaid: true,
        ..seen(VmState::Running, disk(&chain), None)
    }
}

fn enters(step: &Step, wanted: Overlaying, action: Action) -> bool {
    matches!(step, Step::Enter(Phase::Overlaying { stage, .. }, Some(acts))
        if *stage == wanted && *acts == action)
}

fn fails(step: &Step, reason: Reason) -> bool {
    matches!(step, Step::Finish(Outcome::Failed(failure)) if failure.reason == reason)
}

#[test]
fn it_comes_after_all_else_and_only_to_who_was_given_a_name_for_it() {
    let least = Help {
        unlimited: false,
        throttle: Some(Throttle {
            before: 0,
            bytes_per_second: Policy::default().least_guest_bytes,
        }),
    };
    let exhausted = |phase| MergeRecord {
        help: least,
        pivot_attempts: 100,
        ..with_spare(phase)
    };
    let gives_up = |step: &Step| enters(step, Overlaying::Ending, Action::AbortJob);
    assert!(gives_up(&decide(&exhausted(copying()), &behind())));
    let mut nameless = exhausted(copying());
    nameless.order.spare = None;
    assert!(matches!(decide(&nameless, &behind()), Step::Wait(_)));
    let helped = decide(&with_spare(copying()), &behind());
    assert!(matches!(helped, Step::Help(_)));

    // A pivot that is put off for ever, and a guest that cannot be held back.
    let mut ready = behind();
    let Machine::Seen {
        disk: Some(disk), ..
    } = &mut ready.machine
    else {
        panic!("seen")
    };
    disk.mirror = mirror(MirrorState::Ready);
    let phase = Phase::Ready { not_before: now() };
    assert!(gives_up(&decide(&exhausted(phase), &ready)));
    let helpless = Observation {
        can_help: false,
        ..behind()
    };
    assert!(gives_up(&decide(&with_spare(copying()), &helpless)));
}

#[test]
fn the_guest_is_not_held_back_any_more_before_anything_else_is_done() {
    let held = MergeRecord {
        help: Help {
            unlimited: true,
            throttle: None,
        },
        ..at(Overlaying::Ending)
    };
    assert_eq!(decide(&held, &behind()), Step::Help(Help::default()));
}

#[test]
fn nothing_is_put_on_top_before_the_job_has_ended_and_the_chain_is_whole() {
    let ending = at(Overlaying::Ending);
    assert!(matches!(decide(&ending, &behind()), Step::Wait(_)));
    let late = Observation {
        in_phase: Duration::from_secs(60),
        ..behind()
    };
    let again = decide(&ending, &late);
    assert!(enters(&again, Overlaying::Ending, Action::AbortJob));
    let just_gone = seen(VmState::Running, disk(&BEFORE), None);
    assert!(matches!(decide(&ending, &just_gone), Step::Wait(_)));
    let told = Observation {
        told: Some(Told::Job(BlockJobOutcome::Cancelled)),
        ..just_gone
    };
    for gone in [told, quiet()] {
        let adds = decide(&ending, &gone);
        assert!(enters(&adds, Overlaying::Adding, Action::AddOverlay));
    }
    let other = Observation {
        job_missing_for: Duration::from_secs(60),
        ..seen(VmState::Running, disk(&["other"]), None)
    };
    assert!(fails(&decide(&ending, &other), Reason::ChainDiverged));
}

/// On slow storage that takes its time: libvirt then shows the job as one of no kind.
#[test]
fn a_job_that_takes_long_to_end_is_waited_for_and_another_one_is_not_touched() {
    let late = |kind| {
        let mut seen = Observation {
            in_phase: Duration::from_secs(60),
            ..behind()
        };
        let Machine::Seen { job: running, .. } = &mut seen.machine else {
            panic!("seen")
        };
        *running = job(kind, 5, 9);
        seen
    };
    let cancelling = with_spare(Phase::Cancelling { since: now() });
    for record in [at(Overlaying::Ending), cancelling] {
        let ends = decide(&record, &late(BlockJobKind::Other));
        assert!(matches!(ends, Step::Wait(_)), "{ends:?}");
        let mut left = late(BlockJobKind::Other);
        let Machine::Seen { job, disk, .. } = &mut left.machine else {
            panic!("seen")
        };
        let mark = disk.as_mut().and_then(|disk| disk.mirror.as_mut()).unwrap();
        (*job, mark.kind) = (None, BlockJobKind::Other);
        assert!(matches!(decide(&record, &left), Step::Wait(_)), "its mark");
        let Machine::Seen { disk, .. } = &mut left.machine else {
            panic!("seen")
        };
        let mark = disk.as_mut().and_then(|disk| disk.mirror.as_mut()).unwrap();
        mark.target = Some(crate::merge::samples::locator("copy"));
        let copy = decide(&record, &left);
        assert!(fails(&copy, Reason::ConcurrentChange), "{copy:?}");
        let other = decide(&record, &late(BlockJobKind::Pull));
        assert!(fails(&other, Reason::ConcurrentChange), "{other:?}");
    }
}

#[test]
fn what_may_be_on_is_put_on_again_until_the_chain_shows_it() {
    let adding = at(Overlaying::Adding);
    assert!(matches!(decide(&adding, &quiet()), Step::Wait(_)));
    for again in [
        Observation {
            in_phase: Duration::from_secs(60),
            ..quiet()
        },
        Observation {
            fresh_start: true,
            ..quiet()
        },
    ] {
        let adds = decide(&adding, &again);
        assert!(enters(&adds, Overlaying::Adding, Action::AddOverlay));
    }
    let refused = Observation {
        told: Some(Told::Refused("no room".to_owned())),
        ..quiet()
    };
    assert!(fails(&decide(&adding, &refused), Reason::MergeIoError));
    // Whatever was said: it is on, and the layers below it are committed.
    let on = Observation {
        told: refused.told,
        ..overlaid()
    };
    let starts = Step::Enter(copying(), Some(Action::StartJob));
    for stage in [Overlaying::Adding, Overlaying::Ending] {
        assert_eq!(decide(&at(stage), &on), starts);
    }
}

#[test]
fn it_is_given_up_with_the_others_until_it_is_being_put_on() {
    let lost = Peers {
        lost: true,
        ..Peers::NONE
    };
    let with_lost = |seen| Observation {
        peers: lost,
        ..seen
    };
    let given_up = decide(&at(Overlaying::Ending), &with_lost(behind()));
    assert!(matches!(
        given_up,
        Step::Enter(Phase::Cancelling { .. }, Some(Action::AbortJob))
    ));
    let on = decide(&at(Overlaying::Adding), &with_lost(overlaid()));
    assert!(matches!(on, Step::Enter(Phase::Copying { .. }, _)));
    // Once it is on, it is one like others that need no pivot.
    let below = MergeRecord {
        kind: MergeKind::Commit,
        overlaid: true,
        ..with_spare(copying())
    };
    let given_up = decide(&below, &with_lost(overlaid()));
    assert!(matches!(
        given_up,
        Step::Enter(Phase::Cancelling { .. }, Some(Action::AbortJob))
    ));
    let cancelling = MergeRecord {
        phase: Phase::Cancelling { since: now() },
        ..below.clone()
    };
    let gone = Observation {
        job_missing_for: Duration::from_secs(60),
        ..overlaid()
    };
    assert_eq!(decide(&cancelling, &gone), Step::Finish(Outcome::Cancelled));
    assert!(!below.in_nobody_s_way(), "the others wait for its end");
}

#[test]
fn a_machine_that_ends_meanwhile_ends_it() {
    for stage in [Overlaying::Ending, Overlaying::Adding] {
        let off = seen(VmState::ShutOff, disk(&BEFORE), None);
        assert!(fails(&decide(&at(stage), &off), Reason::VmDied));
    }
}
