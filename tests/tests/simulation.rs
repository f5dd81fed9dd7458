//! Both state machines in a simulated world, over thousands of seeds.
//!
//! `LIVEMERGE_SEED=n cargo nextest run -p livemerge-tests simulation::nothing_is_lost` runs one
//! seed alone, `LIVEMERGE_TRACE=n` shows so many events of a failure, and `LIVEMERGE_SEEDS=n` runs more
//! seeds than usual.
//!
//! A run that breaks an invariant leaves its tape, shortened to what it needs, in
//! `target/simulation/`; `LIVEMERGE_TAPE=file` plays it again.
//!
//! What is run is counted in seeds, never in time, and nothing in a run reads a clock: the same build
//! does the same on any machine, however busy.

#![allow(clippy::print_stdout, reason = "seeds and what was found")]

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use livemerge_api_server::snapshot::plan::Mint;
use livemerge_api_server::snapshot::step::{
    self as operation, Observation as OperationSeen, Step as OperationStep,
};
use livemerge_api_server::snapshot::{DeletePhase, Operation, Work};
use livemerge_host_agent::hypervisor::VmState;
use livemerge_host_agent::merge::step::{
    self as merge, Action, Machine, Observation as MergeSeen, Peers, Policy, Step as MergeStep,
};
use livemerge_host_agent::merge::{MergeRecord, Phase, Window};
use livemerge_tests::simulation::{Seen, Steps, Tape, Violation, replay, run, told};

/// How many seeds are run, beside a random one.
const SEEDS: u64 = 2_000;

/// A step that is wrong is found within so many seeds.
const FOUND_WITHIN: u64 = 2_000;

/// What the seeds must have gone through, or they prove little.
const MUST_BE_SEEN: [&str; 40] = [
    "QEMU dies after its switch, before anybody knows",
    "QEMU dies in a copy",
    "QEMU dies with a pivot on its way",
    "QEMU dies with what it has pulled in its memory alone",
    "a cancel is asked for",
    "a clock jumps",
    "a copy comes late",
    "a job's limit is lifted",
    "a late order is refused",
    "a limit is asked for",
    "a merge fails",
    "a merge is cancelled",
    "a message comes twice",
    "a message is lost",
    "a message overtakes another one",
    "a pull is merged",
    "a pull is undone after QEMU's death",
    "a removal fails",
    "a stale order is refused",
    "an active commit is merged",
    "an active commit of several disks is merged",
    "an intermediate commit is merged",
    "an offline commit is merged",
    "an operation fails",
    "an operation is cancelled",
    "an operation succeeds",
    "help is taken back",
    "several layers are merged in one job",
    "several snapshots are deleted in one operation",
    "the agent dies before it writes the journal",
    "the agent dies between the journal and the act",
    "the agent dies while it pivots",
    "the agent dies while it releases the guest",
    "the agent dies while it suspends the guest",
    "the guest is held back",
    "the host dies",
    "the journal forgets a merge",
    "the server dies before it writes",
    "the server dies while it waits for an answer",
    "a delete had to wait for another one",
];

#[test]
fn nothing_is_lost_whatever_happens() {
    if let Ok(file) = std::env::var("LIVEMERGE_TAPE") {
        let played = replay(&read(Path::new(&file)), Steps::default());
        return drop(played.unwrap_or_else(|violation| panic!("{violation}")));
    }
    let one = number("LIVEMERGE_SEED");
    let any = since_the_epoch().as_nanos() as u64;
    println!("the random seed is {any}");
    let seeds: Vec<u64> = match one {
        Some(seed) => vec![seed],
        None => (0..number("LIVEMERGE_SEEDS").unwrap_or(SEEDS))
            .chain([any])
            .collect(),
    };
    let (began, count) = (Instant::now(), seeds.len());
    let seen = in_parallel(&seeds);
    println!("{seen}");
    println!("{count} seeds in {:.1?}", began.elapsed());
    if one.is_none() {
        for what in MUST_BE_SEEN {
            assert!(seen.times(what) >= 5, "hardly ever: {what}\n{seen}");
        }
    }
}

/// Each run is a thread's own; which thread has it changes nothing.
fn in_parallel(seeds: &[u64]) -> Seen {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = seeds.len().div_ceil(threads).max(1);
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let runs = |some: &[u64]| {
            let mut seen = Seen::default();
            for seed in some {
                match run(*seed, Steps::default()) {
                    Ok(more) => seen.add(&more),
                    Err(violation) => return Err(violation),
                }
            }
            Ok(seen)
        };
        let parts: Vec<_> = seeds
            .chunks(share)
            .map(|some| scope.spawn(move || runs(some)))
            .collect();
        for part in parts {
            match part.join().expect("a run does not panic") {
                Ok(more) => seen.add(&more),
                Err(violation) => panic!("{violation}\n{}", left_tape(&violation)),
            }
        }
    });
    seen
}

/// Leaves the shortened tape of a violation, and tells where.
fn left_tape(violation: &Violation) -> String {
    let tape = violation.tape.shortened(Steps::default(), violation);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/simulation");
    let file = dir.join(format!("{}.tape", violation.seed));
    let text = format!("# {}\n{tape}", violation.broken);
    let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, text));
    match written {
        Ok(()) => format!("or with LIVEMERGE_TAPE={}", file.display()),
        Err(error) => format!("its tape cannot be written: {error}"),
    }
}

fn read(file: &Path) -> Tape {
    let text = std::fs::read_to_string(file);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.parse().expect("a tape")
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("the variable is a number"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "one seed shall be another at each run; it is printed"
)]
fn since_the_epoch() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is after 1970")
}

/// Event by event, also beside other runs.
#[test]
fn a_seed_is_a_run() {
    for seed in 0..12 {
        let [first, second] = std::thread::scope(|scope| {
            let runs = [0, 1].map(|_| scope.spawn(move || told(seed, Steps::default())));
            runs.map(|run| run.join().expect("a run does not panic"))
        });
        assert!(first.len() > 100, "seed {seed}: {} events", first.len());
        assert!(first == second, "seed {seed}: two runs differ");
    }
}

/// A wrong step breaks one of these invariants within few seeds. The tape of that run has the same
/// finding, and the right step has none on it.
fn breaks(invariants: &[&str], steps: Steps) {
    breaks_from(0, invariants, steps);
}

/// The same of what few seeds find: it begins with one that did, and all others come after it.
fn breaks_from(first: u64, invariants: &[&str], steps: Steps) {
    let seeds = (first..FOUND_WITHIN).chain(0..first);
    let mut runs = seeds.map(|seed| run(seed, steps));
    let violation = runs.find_map(Result::err).expect("a wrong step is found");
    println!("{violation}");
    assert!(
        invariants.contains(&violation.invariant()),
        "{invariants:?}, not {}",
        violation.broken
    );
    assert!(!violation.trace.is_empty());
    let found = replay(&violation.tape, steps).expect_err("the tape finds it again");
    assert_eq!(found.broken, violation.broken);
    if let Err(violation) = replay(&violation.tape, Steps::default()) {
        panic!("{violation}");
    }
}

#[test]
fn a_tape_is_the_run_that_it_was_kept_of() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        match merge::step(record, seen, policy, now) {
            MergeStep::Enter(_, Some(Action::SetNextStart | Action::Resume)) => {
                MergeStep::Wait(Duration::from_secs(1))
            }
            other => other,
        }
    }
    let steps = with_merge(wrong);
    let mut runs = (0..FOUND_WITHIN).map(|seed| run(seed, steps));
    let found = runs.find_map(Result::err).expect("a wrong step is found");
    let read: Tape = found.tape.to_string().parse().expect("a tape");
    assert_eq!(read, found.tape);
    let again = replay(&read, steps).expect_err("the same run");
    assert_eq!(again.broken, found.broken);
}

fn with_merge(merge: livemerge_tests::simulation::MergeStep) -> Steps {
    Steps {
        merge,
        ..Steps::default()
    }
}

#[test]
fn a_pivot_before_both_read_the_same_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        let next = merge::step(record, seen, policy, now);
        match (&record.phase, &next) {
            (
                Phase::Pivoting {
                    window: Window::Suspending,
                    since,
                    suspended_at,
                },
                MergeStep::Wait(_),
            ) => {
                let intent = Phase::Pivoting {
                    window: Window::Intent,
                    since: *since,
                    suspended_at: *suspended_at,
                };
                MergeStep::Enter(intent, Some(Action::Pivot))
            }
            _ => next,
        }
    }
    breaks(&["I1"], with_merge(wrong));
}

#[test]
fn a_resume_before_the_intent_is_cleared_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        let intent = matches!(
            record.phase,
            Phase::Pivoting {
                window: Window::Intent,
                ..
            }
        );
        let stands = matches!(
            seen.machine,
            Machine::Seen {
                state: VmState::Paused,
                ..
            }
        );
        match merge::step(record, seen, policy, now) {
            MergeStep::Enter(
                Phase::Pivoting {
                    window: Window::Releasing,
                    ..
                },
                Some(Action::Resume),
            ) if intent && stands => MergeStep::Enter(record.phase.clone(), Some(Action::Resume)),
            other => other,
        }
    }
    breaks(&["I1"], with_merge(wrong));
}

#[test]
fn a_job_that_is_started_twice_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        match (&record.phase, merge::step(record, seen, policy, now)) {
            (Phase::Copying { .. }, MergeStep::Wait(_)) => {
                MergeStep::Enter(record.phase.clone(), Some(Action::StartJob))
            }
            (_, other) => other,
        }
    }
    breaks(&["I3"], with_merge(wrong));
}

#[test]
fn a_restart_that_does_not_release_the_guest_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        let within = matches!(record.phase, Phase::Pivoting { .. });
        if within && seen.fresh_start {
            return MergeStep::Wait(Duration::from_secs(1));
        }
        merge::step(record, seen, policy, now)
    }
    breaks(&["I5"], with_merge(wrong));
}

#[test]
fn a_limit_that_ends_a_merge_but_not_its_job_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        let copies = matches!(record.phase, Phase::Copying { .. });
        if copies && seen.in_phase > Duration::from_secs(3) {
            let machine = Machine::Gone;
            let gone = MergeSeen {
                machine,
                ..seen.clone()
            };
            return merge::step(record, &gone, policy, now);
        }
        merge::step(record, seen, policy, now)
    }
    // Sooner or later: the job is seen without its merge, or what it does to the chain.
    breaks(&["I3", "I5"], with_merge(wrong));
}

#[test]
fn a_merge_that_is_not_marked_is_found() {
    fn wrong(
        operation: &Operation,
        seen: &OperationSeen<'_>,
        now: Timestamp,
        mint: Mint<'_>,
    ) -> OperationStep {
        let deletes = matches!(operation.work, Work::Delete(DeletePhase::Planning));
        match operation::step(operation, seen, now, mint) {
            OperationStep::Enter(mut change) if deletes => {
                change.snapshots.clear();
                OperationStep::Enter(change)
            }
            other => other,
        }
    }
    let steps = Steps {
        operation: wrong,
        ..Steps::default()
    };
    breaks(&["I2", "I3", "I4", "I5", "left"], steps);
}

#[test]
fn a_pivot_without_its_peers_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        let alone = MergeSeen {
            peers: Peers::NONE,
            ..seen.clone()
        };
        merge::step(record, &alone, policy, now)
    }
    breaks(&["barrier"], with_merge(wrong));
}

#[test]
fn a_pull_that_is_believed_at_once_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        match merge::step(record, seen, policy, now) {
            MergeStep::Enter(Phase::Pivoting { .. }, Some(Action::Suspend))
                if !matches!(record.phase, Phase::Ready { .. }) && !is_active(seen) =>
            {
                MergeStep::Finish(merge::Outcome::Merged)
            }
            other => other,
        }
    }
    breaks_from(496, &["I1", "I2"], with_merge(wrong));
}

fn is_active(seen: &MergeSeen) -> bool {
    match &seen.machine {
        Machine::Seen { job, .. } => job.is_some(),
        _ => true,
    }
}

#[test]
fn a_guest_that_stays_held_back_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        let next = merge::step(record, seen, policy, now);
        let undone = matches!(next, MergeStep::Help(help) if help == Default::default());
        if undone && matches!(record.phase, Phase::Verifying { .. }) {
            return MergeStep::Finish(merge::Outcome::Merged);
        }
        next
    }
    breaks(&["I8c"], with_merge(wrong));
}

/// Found in an earlier state of this project, by seeds that have other runs today.
#[test]
fn a_clock_that_was_set_back_and_puts_the_pivot_off_is_found() {
    fn wrong(record: &MergeRecord, seen: &MergeSeen, policy: &Policy, now: Timestamp) -> MergeStep {
        match record.phase {
            Phase::Ready { not_before } if now < not_before => {
                MergeStep::Wait(Duration::from_secs(1))
            }
            _ => merge::step(record, seen, policy, now),
        }
    }
    breaks(&["I5"], with_merge(wrong));
}

/// The same.
#[test]
fn a_restarted_server_that_goes_by_ids_is_found() {
    let steps = Steps {
        sorts_by_id: true,
        ..Steps::default()
    };
    breaks(&["order"], steps);
}

/// One that takes an order whenever it comes, whatever was given since.
#[test]
fn an_agent_that_carries_out_late_orders_is_found() {
    let steps = Steps {
        takes_late: true,
        ..Steps::default()
    };
    breaks(&["I2", "I3", "I4", "I5", "left"], steps);
}
