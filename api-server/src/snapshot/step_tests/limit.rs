//! The limit of an operation's block jobs.

use super::*;

/// Merges of so many disks, ordered under this limit for all of them.
fn limited(jobs: usize, bytes_per_second: u64) -> Record {
    let disks_of: Vec<_> = (0..jobs).map(|number| format!("vd{number}")).collect();
    let named: Vec<_> = disks_of.iter().map(|disk| (disk.as_str(), "a")).collect();
    let snapshot = snapshot("s", &named);
    let of = std::slice::from_ref(&snapshot);
    let tasks = disks_of
        .iter()
        .map(|disk| task(of, disk, "a", &["b"], DiskState::Merging));
    let mut record = Record::of(of, disks(tasks.collect()));
    record.operation.options.bytes_per_second = bytes_per_second;
    record
}

/// A merge that copies, under a limit.
fn copying(bytes_per_second: u64) -> MergeSight {
    let MergeSight::Seen(seen) = merge(MergePhase::Copying) else {
        unreachable!("it is seen");
    };
    MergeSight::Seen(MergeSeen {
        bytes_per_second,
        ..seen
    })
}

#[test]
fn the_limit_is_divided_among_the_jobs() {
    for (limit, jobs, each) in [(0, 2, 0), (100, 1, 100), (100, 2, 50), (2, 3, 1)] {
        let record = limited(jobs, limit);
        let ordered = orders(record.decide(MergeSight::Absent, None));
        let limits: Vec<_> = ordered.iter().map(|it| it.bytes_per_second).collect();
        assert_eq!(limits, vec![each; jobs], "{limit} for {jobs}");
    }
}

#[test]
fn of_an_own_limit_and_a_share_the_smaller_counts() {
    for (own, share, each) in [(0, 60, 30), (100, 60, 30), (60, 100, 30), (60, 0, 30)] {
        let record = limited(2, own);
        let seen = Seen {
            share,
            ..record.seen()
        };
        let ordered = orders(seen.decide(&record.operation));
        assert_eq!(ordered[0].bytes_per_second, each, "{own} and {share}");
    }
    // It is another one when others begin or end.
    let record = limited(1, 0);
    let seen = Seen {
        share: 50,
        merge: copying(100),
        ..record.seen()
    };
    let wanted = Ask::Limit(vec![record.tasks()[0].merge], 50);
    assert_eq!(ask(seen.decide(&record.operation)), wanted);
}

#[test]
fn a_limit_that_the_host_has_lifted_is_not_set_again() {
    let record = limited(1, 90);
    let MergeSight::Seen(seen) = copying(90) else {
        unreachable!("it is seen");
    };
    let lifted = MergeSight::Seen(MergeSeen {
        limit_lifted: true,
        ..seen
    });
    let told = note(record.decide(lifted.clone(), None));
    assert_eq!(kinds(&told), [EventKind::LiveMergeLimitLifted]);
    let mut record = record;
    record.apply(&told);
    wait(record.decide(lifted, None));
}

#[test]
fn all_jobs_that_copy_faster_or_slower_are_told_at_once() {
    let record = limited(3, 90);
    let merges: Vec<_> = record.tasks().iter().map(|task| task.merge).collect();
    let asked = ask(record.decide(copying(0), None));
    assert_eq!(asked, Ask::Limit(merges.clone(), 30));
    let half = Seen {
        merge: copying(0),
        ..record.seen()
    };
    let half = half.but(&record.tasks()[1], copying(30));
    let asked = ask(half.decide(&record.operation));
    assert_eq!(asked, Ask::Limit(vec![merges[0], merges[2]], 30));
    wait(record.decide(copying(30), None));
}

#[test]
fn what_was_heard_is_not_said_again_at_once() {
    let record = limited(2, 90);
    for answer in [Answer::Heard, unknown(), refused(Reason::ConcurrentChange)] {
        let waits = wait(record.decide(copying(0), Some(answer)));
        assert_eq!(waits.sign, Sign::Any);
        assert_eq!(waits.cause, None, "the merge goes on");
    }
}

#[test]
fn a_job_that_is_alone_has_the_whole_limit() {
    let mut record = limited(2, 90);
    let first = record.tasks()[0].clone();
    let seen = Seen {
        merge: copying(45),
        ..record.seen()
    };
    let seen = seen.but(&first, merge(MergePhase::Merged));
    let merged = change(seen.decide(&record.operation));
    record.apply(&merged);
    let left = record.tasks()[1].merge;
    let asked = ask(record.decide(copying(45), None));
    assert_eq!(asked, Ask::Limit(vec![left], 90));
}

#[test]
fn what_copies_no_more_is_not_told() {
    let record = limited(1, 90);
    for phase in [MergePhase::Pivoting, MergePhase::Cancelling] {
        wait(record.decide(merge(phase), None));
    }
}

#[test]
fn who_wants_the_end_is_not_limited_any_more() {
    let mut record = limited(1, 90);
    record.operation.cancel_requested = true;
    let seen = Seen {
        merge: copying(0),
        begun: true,
        ..record.seen()
    };
    let cancel = Ask::Cancel(record.tasks()[0].merge);
    assert_eq!(ask(seen.decide(&record.operation)), cancel);
}
