//! What is done when a copy does not catch up with the guest, and that it is undone. Pure.
//!
//! ```text
//!   the copy falls behind, or the pivot is put off again and again
//!        ─▶ the job's limit is lifted ─▶ the guest's writes are limited ─▶ half of that ─▶ …
//!        ─▶ the job is given up, the guest gets a fresh overlay, and the layers below are committed
//!   the merge is past its pivot, has ended, has no job any more, or its agent was restarted
//!        ─▶ all of it is undone
//! ```
//!
//! The guest keeps at least the policy's bytes a second. The last step always ends: nobody writes the
//! layers that it commits ([`overlaying`](super::overlaying)).

use super::look::Look;
use super::observation::{Machine, Observation};
use super::step::{Action, Step};
use super::types::{Help, MergeRecord, Overlaying, Phase, Throttle};
use crate::hypervisor::VmState;

/// What the guest may write in a second at first.
const FIRST: u64 = 32 << 20;
/// So many pivots are put off before the next step.
const TRIES: u32 = 3;

impl Look<'_> {
    /// The next step, if one is due and there is one.
    pub(super) fn help(&self) -> Option<Step> {
        let due = match self.record.phase {
            Phase::Copying { .. } => self.seen.stalled_for >= self.policy.stalled_after,
            Phase::Ready { .. } => {
                let steps = steps_taken(&self.record.help) + 1;
                self.record.pivot_attempts >= TRIES * steps
            }
            _ => false,
        };
        if !due || !self.record.pivots() || self.seen.help_waits {
            return None;
        }
        let help = next(
            self.record,
            self.seen.can_help,
            self.policy.least_guest_bytes,
        );
        help.map(Step::Help).or_else(|| self.overlay())
    }

    /// The guest gets something else to write. Not while libvirt does not know the job for what it is:
    /// such a one cannot be given up.
    fn overlay(&self) -> Option<Step> {
        let may = self.record.order.spare.is_some() && !self.unmarked();
        let ending = Phase::Overlaying {
            stage: Overlaying::Ending,
            since: self.now,
        };
        may.then_some(Step::Enter(ending, Some(Action::AbortJob)))
    }

    /// That all of it is undone, if it is time. A guest that stands still for the merge runs first: a
    /// hypervisor that does not take the limit away must not keep it so.
    pub(super) fn undo(&self) -> Option<Step> {
        let helps = matches!(
            self.record.phase,
            Phase::Copying { .. } | Phase::Ready { .. } | Phase::Pivoting { .. }
        );
        // Nothing is helped while no job runs, however long that takes.
        let over = self.seen.inherited_help || !helps || self.settled();
        let over = over && !self.stands_still_for_us();
        (over && self.record.help != Help::default()).then_some(Step::Help(Help::default()))
    }
}

/// A merge does not end while its guest is held back.
pub(super) fn before_the_end(next: Step, record: &MergeRecord, seen: &Observation) -> Step {
    let held_back = record.help.throttle.is_some() && lives(&seen.machine);
    match next {
        Step::Finish(_) if held_back => Step::Help(Help::default()),
        other => other,
    }
}

/// With QEMU the limit has ended, too.
fn lives(machine: &Machine) -> bool {
    let Machine::Seen { state, disk, .. } = machine else {
        return false;
    };
    *state != VmState::ShutOff && disk.is_some()
}

fn next(record: &MergeRecord, can_help: bool, least: u64) -> Option<Help> {
    let help = record.help;
    if record.bytes_per_second > 0 && !help.unlimited {
        return Some(Help {
            unlimited: true,
            ..help
        });
    }
    let throttle = match help.throttle {
        _ if !can_help => return None,
        None => Throttle {
            before: 0,
            bytes_per_second: FIRST,
        },
        Some(now) if now.bytes_per_second > least => Throttle {
            bytes_per_second: (now.bytes_per_second / 2).max(least),
            ..now
        },
        Some(_) => return None,
    };
    Some(Help {
        throttle: Some(throttle),
        ..help
    })
}

/// How often the pivot was tried since something was last done about it: with new help the next try
/// comes soon.
pub(super) fn tries_since_help(record: &MergeRecord) -> u32 {
    let before = TRIES * steps_taken(&record.help);
    record.pivot_attempts.saturating_sub(before)
}

/// Whether a guest's limit may be one that was set to help a copy.
pub(super) fn is_of_the_ladder(bytes_per_second: u64) -> bool {
    (1..=FIRST).contains(&bytes_per_second) && bytes_per_second.is_power_of_two()
}

fn steps_taken(help: &Help) -> u32 {
    let throttles = help.throttle.map_or(0, |throttle| {
        (FIRST / throttle.bytes_per_second.max(1)).ilog2() + 1
    });
    u32::from(help.unlimited) + throttles
}

#[cfg(test)]
mod tests {
    use super::super::policy::Policy;
    use super::super::samples::{disk, job, mirror, now, record, seen};
    use super::super::step::{Action, step};
    use super::super::types::Window;
    use super::*;
    use crate::hypervisor::{BlockJobKind, DiskView, MirrorState};
    use std::time::Duration;

    const LAYERS: [&str; 2] = ["base", "top"];

    fn copying() -> MergeRecord {
        let phase = Phase::Copying {
            starts: 1,
            since: now(),
        };
        MergeRecord {
            phase,
            ..record(true)
        }
    }

    fn behind(stalled_for: Duration) -> Observation {
        let copies = DiskView {
            mirror: mirror(MirrorState::Copying),
            ..disk(&LAYERS)
        };
        let job = job(BlockJobKind::ActiveCommit, 5, 9);
        Observation {
            stalled_for,
            ..seen(VmState::Running, copies, job)
        }
    }

    fn decide(record: &MergeRecord, seen: &Observation) -> Step {
        step(record, seen, &Policy::default(), now())
    }

    fn throttled(bytes_per_second: u64) -> Help {
        Help {
            unlimited: false,
            throttle: Some(Throttle {
                before: 7,
                bytes_per_second,
            }),
        }
    }

    #[test]
    fn step_by_step_down_to_the_least_and_no_further() {
        let stalled = behind(Policy::default().stalled_after);
        let mut record = MergeRecord {
            bytes_per_second: 100,
            ..copying()
        };
        let soon = behind(Policy::default().stalled_after / 2);
        assert!(matches!(decide(&record, &soon), Step::Wait(_)));
        let mut seen = Vec::new();
        while let Step::Help(help) = decide(&record, &stalled) {
            record.help = help;
            seen.push((help.unlimited, help.throttle.map(|it| it.bytes_per_second)));
        }
        let mib = |number: u64| Some(number << 20);
        let wanted = [None, mib(32), mib(16), mib(8), mib(4), mib(2), mib(1)];
        assert_eq!(seen, wanted.map(|limit| (true, limit)));
        assert!(matches!(decide(&record, &stalled), Step::Wait(_)));
    }

    #[test]
    fn a_pivot_that_is_put_off_again_and_again_is_helped() {
        let ready = DiskView {
            mirror: mirror(MirrorState::Ready),
            ..disk(&LAYERS)
        };
        let job = job(BlockJobKind::ActiveCommit, 5, 9);
        let seen = seen(VmState::Running, ready, job);
        let tried = |pivot_attempts, help| MergeRecord {
            phase: Phase::Ready { not_before: now() },
            pivot_attempts,
            help,
            ..record(true)
        };
        let none = Help::default();
        let suspends = |step| matches!(step, Step::Enter(_, Some(Action::Suspend)));
        assert!(suspends(decide(&tried(TRIES - 1, none), &seen)));
        assert!(matches!(decide(&tried(TRIES, none), &seen), Step::Help(_)));
        let helped = throttled(FIRST);
        assert!(suspends(decide(&tried(TRIES, helped), &seen)));
        assert!(matches!(
            decide(&tried(2 * TRIES, helped), &seen),
            Step::Help(_)
        ));
        let least = throttled(Policy::default().least_guest_bytes);
        assert!(suspends(decide(&tried(100, least), &seen)));
    }

    #[test]
    fn an_agent_that_was_restarted_undoes_it_first_thing() {
        let record = MergeRecord {
            help: throttled(FIRST),
            ..copying()
        };
        let seen = Observation {
            fresh_start: true,
            inherited_help: true,
            ..behind(Duration::ZERO)
        };
        assert_eq!(decide(&record, &seen), Step::Help(Help::default()));
    }

    /// Storage may be away for as long as it likes.
    #[test]
    fn a_guest_is_not_held_back_while_no_job_runs() {
        let missing = |job_missing_for| Observation {
            job_missing_for,
            ..seen(VmState::Running, disk(&LAYERS), None)
        };
        let settle = Policy::default().settle;
        for phase in [copying().phase, Phase::Ready { not_before: now() }] {
            let held = MergeRecord {
                phase,
                help: throttled(FIRST),
                ..record(true)
            };
            let soon = decide(&held, &missing(settle / 2));
            assert!(matches!(soon, Step::Wait(_)), "{soon:?}");
            let undone = decide(&held, &missing(settle));
            assert_eq!(undone, Step::Help(Help::default()));
        }
    }

    /// I8c: the limit may stay unknown for as long as it likes.
    #[test]
    fn a_guest_that_stands_still_runs_before_its_limit_is_taken_away() {
        let pivoting = |window| Phase::Pivoting {
            window,
            since: now(),
            suspended_at: Some(now()),
        };
        let verifying = Phase::Verifying {
            suspended_at: Some(now()),
        };
        let ready = DiskView {
            mirror: mirror(MirrorState::Ready),
            ..disk(&LAYERS)
        };
        let merged = disk(&LAYERS[..1]);
        let held = |phase| MergeRecord {
            phase,
            help: throttled(FIRST),
            ..record(true)
        };
        let cases = [
            (pivoting(Window::Suspending), &ready),
            (pivoting(Window::Releasing), &ready),
            (pivoting(Window::Releasing), &merged),
            (pivoting(Window::Intent), &merged),
            (verifying, &merged),
        ];
        for (phase, disk) in cases {
            let look = |state, fresh_start| Observation {
                fresh_start,
                inherited_help: true,
                in_phase: Duration::from_secs(1),
                ..seen(state, disk.clone(), None)
            };
            for fresh_start in [true, false] {
                if phase == pivoting(Window::Suspending) && !fresh_start {
                    // This process has stopped the guest itself, which it does only without.
                    continue;
                }
                let next = decide(&held(phase.clone()), &look(VmState::Paused, fresh_start));
                let resumes = matches!(next, Step::Enter(_, Some(Action::Resume)));
                assert!(resumes, "{phase:?}, {fresh_start}: {next:?}");
            }
            // And then the limit goes.
            let Step::Enter(next, _) = decide(&held(phase), &look(VmState::Paused, true)) else {
                panic!("it is written down");
            };
            let undone = decide(&held(next), &look(VmState::Running, false));
            assert_eq!(undone, Step::Help(Help::default()));
        }
    }

    #[test]
    fn no_merge_ends_while_its_guest_is_held_back() {
        let merged = seen(VmState::Running, disk(&LAYERS[..1]), None);
        let failed = Observation {
            told: Some(super::super::step::Told::Refused("no".to_owned())),
            ..behind(Duration::ZERO)
        };
        let verifying = Phase::Verifying { suspended_at: None };
        for (phase, seen) in [(verifying, &merged), (copying().phase, &failed)] {
            let held = MergeRecord {
                phase,
                help: throttled(FIRST),
                ..record(true)
            };
            assert_eq!(decide(&held, seen), Step::Help(Help::default()));
            let free = MergeRecord {
                help: Help::default(),
                ..held.clone()
            };
            assert!(matches!(decide(&free, seen), Step::Finish(_)));
            // With QEMU it has ended.
            let off = Observation {
                machine: Machine::Gone,
                ..seen.clone()
            };
            assert!(matches!(decide(&held, &off), Step::Finish(_)));
        }
    }
}
