//! Jobs that have failed: asked for again on a server, which may be away and come back, and where the kept
//! volume may have been full before it was given more; and nowhere else.

use super::*;
use crate::hypervisor::{HypervisorError, Layer};
use crate::merge::again::is_over;
use crate::merge::types::MergeKind;
use livemerge_storage::Locator;

fn on_a_server(locator: &Locator) -> Locator {
    Locator::Nbd(format!("nbd+unix:///{locator}?socket=/run/n.sock"))
}

fn served(phase: Phase) -> MergeRecord {
    let record = at(phase);
    MergeRecord {
        kept: on_a_server(&record.kept),
        removed: record.removed.iter().map(on_a_server).collect(),
        ..record
    }
}

fn served_disk(layers: &[&str]) -> DiskView {
    let disk = disk(layers);
    let chain = disk.chain.iter().map(|layer| Layer {
        locator: on_a_server(&layer.locator),
        ..layer.clone()
    });
    DiskView {
        chain: chain.collect(),
        next_start: disk.next_start.as_ref().map(on_a_server),
        ..disk
    }
}

fn told(told: Told, missing_for: u64) -> Observation {
    Observation {
        told: Some(told),
        job_missing_for: Duration::from_secs(missing_for),
        ..seen(VmState::Running, served_disk(&BEFORE), None)
    }
}

fn failed(missing_for: u64) -> Observation {
    told(Told::Job(BlockJobOutcome::Failed), missing_for)
}

fn started(starts: u32) -> Phase {
    Phase::Copying {
        starts,
        since: now(),
    }
}

#[test]
fn it_is_started_again_after_a_pause_that_grows_and_not_for_ever() {
    let (mut merge, mut pauses) = (served(copying()), Vec::new());
    let last = loop {
        let Step::Wait(pause) = decide(&merge, &failed(0)) else {
            panic!("it has just failed");
        };
        pauses.push(pause);
        match decide(&merge, &failed(pause.as_secs() + 1)) {
            Step::Enter(phase, Some(Action::StartJob)) => merge.phase = phase,
            other => break other,
        }
    };
    assert_eq!(failed_with(&last), Some(Reason::MergeIoError));
    let whole: Duration = pauses.iter().sum();
    assert!(whole > Duration::from_secs(60), "{pauses:?}");
    assert!(whole < Duration::from_secs(240), "{pauses:?}");
    assert!(pauses[5] > pauses[0], "{pauses:?}");
}

/// What it lacked may have been given to it by then.
#[test]
fn one_that_may_have_been_full_is_started_three_times_in_all() {
    let given = |phase| MergeRecord {
        given_room: true,
        ..at(phase)
    };
    let failed = |missing_for| Observation {
        machine: seen(VmState::Running, disk(&BEFORE), None).machine,
        ..failed(missing_for)
    };
    for (starts, next) in [(1, started(2)), (2, started(3))] {
        assert!(matches!(
            decide(&given(started(starts)), &failed(0)),
            Step::Wait(_)
        ));
        let again = decide(&given(started(starts)), &failed(60));
        assert_eq!(again, Step::Enter(next, Some(Action::StartJob)));
    }
    let last = decide(&given(started(3)), &failed(60));
    assert_eq!(failed_with(&last), Some(Reason::MergeIoError));
    let ready = given(Phase::Ready { not_before: now() });
    assert_eq!(decide(&ready, &failed(60)), Step::Enter(started(1), None));
    // The guest may have been switched, and the machine started again, before anybody looked.
    let untold = Observation {
        told: None,
        ..failed(60)
    };
    let ended = decide(&ready, &untold);
    assert_eq!(failed_with(&ended), Some(Reason::MergeIoError));
    let once = decide(&at(started(1)), &failed(60));
    assert_eq!(failed_with(&once), Some(Reason::MergeIoError));
}

#[test]
fn only_on_the_chain_that_the_order_was_for() {
    let look = |layers: &[&str]| Observation {
        machine: seen(VmState::Running, served_disk(layers), None).machine,
        ..failed(60)
    };
    let other = decide(&served(copying()), &look(&["old", "base", "top", "newer"]));
    assert_eq!(failed_with(&other), Some(Reason::ChainDiverged));
    let merged = decide(&served(copying()), &look(&AFTER));
    assert_eq!(
        merged,
        Step::Enter(Phase::Verifying { suspended_at: None }, None)
    );
}

#[test]
fn never_one_that_somebody_has_called_off() {
    let cancelled = told(Told::Job(BlockJobOutcome::Cancelled), 60);
    for phase in [copying(), Phase::Ready { not_before: now() }] {
        let next = decide(&served(phase), &cancelled);
        assert_eq!(failed_with(&next), Some(Reason::MergeIoError));
    }
}

/// The first refusal is a no; later ones may come of the same absence.
#[test]
fn a_refusal_is_final_only_before_the_job_has_run() {
    let refused = |missing_for| told(Told::Refused("no".to_owned()), missing_for);
    let first = decide(&served(started(1)), &refused(60));
    assert_eq!(failed_with(&first), Some(Reason::MergeIoError));
    assert!(matches!(
        decide(&served(started(2)), &refused(0)),
        Step::Wait(_)
    ));
    let again = decide(&served(started(2)), &refused(60));
    assert_eq!(again, Step::Enter(started(3), Some(Action::StartJob)));
}

/// QEMU flushes the layers before it begins. A guest that does not write keeps nobody informed of a server
/// that is back: each request finds that out for the next one.
#[test]
fn a_start_that_failed_at_its_server_is_asked_for_as_often_as_it_takes() {
    let away = || HypervisorError::Storage("flush: Input/output error".to_owned());
    let heard = Told::by(away(), Action::StartJob, &served(started(1))).unwrap();
    let look = Observation {
        told_for: Duration::from_secs(60),
        ..told(heard, 60)
    };
    let next = decide(&served(started(1)), &look);
    assert_eq!(next, Step::Enter(started(1), Some(Action::StartJob)));
    // A file's blocks do not come back.
    let here = Told::by(away(), Action::StartJob, &at(started(1))).unwrap();
    let next = decide(&at(started(1)), &told(here, 60));
    assert_eq!(failed_with(&next), Some(Reason::MergeIoError));
    let pivot = Told::by(away(), Action::Pivot, &served(started(1)));
    assert!(matches!(pivot, Some(Told::Refused(_))), "{pivot:?}");
    let unknown = HypervisorError::Unknown("hangs".to_owned());
    assert_eq!(
        Told::by(unknown, Action::StartJob, &served(started(1))),
        None
    );
}

/// Its storage is still away, and libvirt has forgotten of what kind it was.
#[test]
fn one_that_ends_as_soon_as_it_begins_is_not_taken_for_another() {
    let look = |disk| seen(VmState::Running, disk, job(BlockJobKind::Other, 0, 0));
    let next = decide(&served(started(2)), &look(served_disk(&BEFORE)));
    assert!(matches!(next, Step::Wait(_)), "{next:?}");
    for starts in [1, 2] {
        let here = at(started(starts));
        let next = decide(&here, &look(disk(&BEFORE)));
        assert!(matches!(next, Step::Wait(_)), "{next:?}");
        // Once it has ended, what it ended with is said.
        let ended = Observation {
            told: Some(Told::Job(BlockJobOutcome::Failed)),
            ..seen(VmState::Running, disk(&BEFORE), None)
        };
        let next = decide(&here, &ended);
        assert_eq!(failed_with(&next), Some(Reason::MergeIoError));
    }
    // Of one that libvirt refused to start nothing can be ending.
    let refused = Observation {
        told: Some(Told::Refused("no".to_owned())),
        ..look(disk(&BEFORE))
    };
    let next = decide(&at(started(1)), &refused);
    assert_eq!(failed_with(&next), Some(Reason::MergeIoError));
}

/// As a backup does, which libvirt shows in the same way.
#[test]
fn one_that_does_not_end_is_another_one() {
    let other = job(BlockJobKind::Other, 5, 9);
    let of_no_kind = |layers, seconds| Observation {
        of_no_kind_for: Duration::from_secs(seconds),
        ..late(seen(VmState::Running, layers, other))
    };
    let look = |seconds| of_no_kind(served_disk(&BEFORE), seconds);
    let copying = served(started(2));
    assert!(matches!(decide(&copying, &look(59)), Step::Wait(_)));
    let taken = decide(&copying, &look(60));
    assert_eq!(failed_with(&taken), Some(Reason::ConcurrentChange));
    let here = |seconds| decide(&at(started(2)), &of_no_kind(disk(&BEFORE), seconds));
    assert!(matches!(here(4), Step::Wait(_)));
    assert_eq!(failed_with(&here(5)), Some(Reason::ConcurrentChange));
    // Nobody waits for it with a merge that is given up, and it is not aborted.
    let mut lost = look(0);
    lost.peers.lost = true;
    let cancelling = Phase::Cancelling { since: now() };
    assert_eq!(decide(&copying, &lost), Step::Enter(cancelling, None));
}

/// Else it would be shown while the job copies, and hide what is heard of its end.
#[test]
fn a_refusal_counts_no_more_once_the_job_runs() {
    let refused = Told::Refused("no".to_owned());
    assert!(is_over(&refused, &served(started(2))));
    assert!(!is_over(&refused, &served(started(1))), "it is final");
    assert!(!is_over(&refused, &at(started(2))), "it is final");
    let ready = served(Phase::Ready { not_before: now() });
    assert!(!is_over(&refused, &ready), "it may be one of a pivot");
    let failed = Told::Job(BlockJobOutcome::Failed);
    assert!(!is_over(&failed, &served(started(2))));
}

#[test]
fn one_that_had_caught_up_copies_once_more() {
    let ready = served(Phase::Ready { not_before: now() });
    assert!(matches!(decide(&ready, &failed(0)), Step::Wait(_)));
    assert_eq!(decide(&ready, &failed(60)), Step::Enter(started(1), None));
    let here = decide(
        &at(Phase::Ready { not_before: now() }),
        &Observation {
            machine: seen(VmState::Running, disk(&BEFORE), None).machine,
            ..failed(60)
        },
    );
    assert_eq!(failed_with(&here), Some(Reason::MergeIoError));
}

/// It catches up each time, and dies before the pivot.
#[test]
fn one_that_had_caught_up_is_not_started_for_ever() {
    let mut merge = served(started(7));
    merge.starts = 7;
    merge.phase = Phase::Ready { not_before: now() };
    assert_eq!(decide(&merge, &failed(60)), Step::Enter(started(7), None));
    merge.phase = started(7);
    let again = decide(&merge, &failed(60));
    assert_eq!(again, Step::Enter(started(8), Some(Action::StartJob)));
    merge.starts = 12;
    merge.phase = Phase::Ready { not_before: now() };
    assert_eq!(decide(&merge, &failed(60)), Step::Enter(started(12), None));
    merge.phase = started(12);
    let last = decide(&merge, &failed(60));
    assert_eq!(failed_with(&last), Some(Reason::MergeIoError));
}

/// A record of an earlier build does not say how often its job was asked for.
#[test]
fn a_record_without_starts_is_read() {
    let mut record = serde_json::to_value(at(Phase::Ready { not_before: now() })).unwrap();
    record.as_object_mut().unwrap().remove("starts").unwrap();
    let record: MergeRecord = serde_json::from_value(record).unwrap();
    assert_eq!(record.starts, 0);
}

#[test]
fn a_merge_of_another_disk_that_came_to_nothing_ends_the_tries() {
    let mut lost = failed(0);
    lost.peers.lost = true;
    let next = decide(&served(started(2)), &lost);
    let cancelling = Phase::Cancelling { since: now() };
    assert_eq!(next, Step::Enter(cancelling, Some(Action::AbortJob)));
}

#[test]
fn an_intermediate_commit_is_started_again_too() {
    let merge = MergeRecord {
        kind: MergeKind::Commit,
        ..served(copying())
    };
    let look = Observation {
        machine: seen(
            VmState::Running,
            served_disk(&["old", "base", "top", "newer"]),
            None,
        )
        .machine,
        ..failed(60)
    };
    assert_eq!(
        decide(&merge, &look),
        Step::Enter(started(2), Some(Action::StartJob))
    );
}
