//! Every phase of every kind of merge has a way out: in a machine that does what it is asked, or
//! nothing of it, and whose time passes, the merge ends.

use super::*;
use crate::merge::types::{Help, Throttle};

/// A machine that a merge is decided for, step by step.
#[derive(Debug, Clone)]
struct Machinery {
    case: Case,
    state: VmState,
    /// The removed layers have left the chain.
    merged: bool,
    /// A job is there, and does no more than that.
    job: bool,
    /// Jobs do what they are started for.
    works: bool,
    /// The QEMU that was asked for the job still runs.
    same_qemu: bool,
}

fn offline() -> Case {
    let before = &["old", "base", "one", "two"];
    let mut case = case(
        MergeKind::OfflineCommit,
        &["one", "two"],
        before,
        &["old", "base"],
    );
    case.record.kind = MergeKind::OfflineCommit;
    case
}

fn any_machinery() -> impl Strategy<Value = Machinery> {
    let mut all = cases().to_vec();
    all.push(offline());
    let states = vec![VmState::Running, VmState::Paused, VmState::ShutOff];
    let flags = any::<[bool; 4]>();
    let drawn = (
        proptest::sample::select(all),
        proptest::sample::select(states),
        flags,
    );
    drawn.prop_map(|(case, state, [merged, job, works, same_qemu])| Machinery {
        // Without a job of its own kind the chain has either end.
        job: job && !merged,
        case,
        state,
        merged,
        works,
        same_qemu,
    })
}

/// All phases that are not an end.
fn any_open_phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        6 => any_phase(),
        2 => (0..60_u32).prop_map(restoring),
    ]
}

fn any_help() -> impl Strategy<Value = Help> {
    let throttle = proptest::option::of(Just(Throttle {
        before: 7,
        bytes_per_second: 1 << 20,
    }));
    (any::<bool>(), throttle).prop_map(|(unlimited, throttle)| Help {
        unlimited,
        throttle,
    })
}

/// Whether a merge of this kind ever comes to the phase.
fn comes_to(kind: MergeKind, phase: &Phase) -> bool {
    match phase {
        Phase::Ready { .. } => matches!(kind, MergeKind::ActiveCommit | MergeKind::Pull),
        Phase::Pivoting { window, .. } => match kind {
            MergeKind::ActiveCommit => true,
            MergeKind::Pull => *window != Window::Intent,
            _ => false,
        },
        Phase::Verifying { suspended_at } => {
            let stands = matches!(kind, MergeKind::ActiveCommit | MergeKind::Pull);
            stands || suspended_at.is_none()
        }
        Phase::Restoring { .. } => matches!(kind, MergeKind::Commit | MergeKind::Pull),
        _ => true,
    }
}

impl Machinery {
    fn seen(&self) -> Observation {
        let long = Duration::from_secs(60);
        let chain = if self.merged {
            self.case.after
        } else {
            self.case.before
        };
        let mut view = disk(chain);
        view.works_for = self.same_qemu.then(puller);
        if self.job && self.case.record.pivots() {
            view.mirror = mirror(MirrorState::Ready);
        }
        let shows = self.job && (self.state != VmState::ShutOff || self.case.record.offline());
        let job = shows.then(|| job(self.case.kind(), 9, 9)).flatten();
        Observation {
            in_phase: long,
            job_missing_for: if shows { Duration::ZERO } else { long },
            ..seen(self.state, view, job)
        }
    }

    fn does(&mut self, action: Action) {
        let lives = self.state != VmState::ShutOff;
        match action {
            Action::StartJob => {
                self.job = self.works && self.case.record.pivots();
                self.merged |= self.works && !self.case.record.pivots();
                self.same_qemu |= self.works;
            }
            Action::AbortJob => self.job = false,
            Action::Suspend if lives => self.state = VmState::Paused,
            Action::Resume if lives => self.state = VmState::Running,
            Action::Pivot => {
                self.merged = self.works;
                self.job = false;
            }
            Action::RestoreBacking if !lives => self.merged &= !self.works,
            _ => {}
        }
    }

    /// A job that ends by itself does so, or an operator lets the guest run who has stopped it.
    fn time_passes(&mut self, record: &MergeRecord) {
        if self.job && !self.case.record.pivots() {
            self.job = false;
            self.merged |= self.works;
        }
        let ours = matches!(
            record.phase,
            Phase::Pivoting {
                suspended_at: Some(_),
                ..
            } | Phase::Verifying {
                suspended_at: Some(_)
            }
        );
        if self.state == VmState::Paused && !ours && record.kind == MergeKind::Pull {
            self.state = VmState::Running;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn every_phase_of_every_kind_has_a_way_out(
        machinery in any_machinery(), phase in any_open_phase(), help in any_help(),
        lost in any::<bool>(), fresh_start in any::<bool>(),
    ) {
        if !comes_to(machinery.case.record.kind, &phase) {
            return Ok(());
        }
        let mut machinery = machinery;
        let mut record = MergeRecord { help, ..machinery.case.at(phase) };
        let policy = Policy::default();
        let (mut time, mut fresh_start) = (now(), fresh_start);
        for _ in 0..300 {
            let peers = if lost { LOST } else { Peers::NONE };
            let look = Observation { peers, fresh_start, ..machinery.seen() };
            match step(&record, &look, &policy, time) {
                Step::Enter(phase, action) => {
                    fresh_start = false;
                    record.phase = phase;
                    if let Some(action) = action {
                        machinery.does(action);
                    }
                }
                Step::Help(help) => record.help = help,
                Step::Wait(wait) => {
                    machinery.time_passes(&record);
                    let wait = jiff::SignedDuration::try_from(wait).unwrap();
                    time = time.saturating_add(wait).unwrap();
                }
                Step::Finish(outcome) => {
                    let restores = machinery.case.record.kind == MergeKind::Pull;
                    prop_assert!(machinery.merged || restores || outcome != Outcome::Merged);
                    // The limit has ended with QEMU.
                    let held_back = record.help.throttle.is_some();
                    prop_assert!(!held_back || machinery.state == VmState::ShutOff);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "still {:?} of {machinery:?}", record.phase);
    }

    /// Of a job that changes a header nothing is said to be merged but by the QEMU that did it, and
    /// the header is put right only while there is none.
    #[test]
    fn a_chain_is_made_whole_only_while_the_machine_is_off(
        machinery in any_machinery(), phase in any_open_phase(), fresh_start in any::<bool>(),
    ) {
        if !comes_to(machinery.case.record.kind, &phase) {
            return Ok(());
        }
        let record = machinery.case.at(phase.clone());
        let look = Observation { fresh_start, ..machinery.seen() };
        match decide(&record, &look) {
            Step::Enter(Phase::Restoring { .. }, action) => {
                prop_assert_eq!(machinery.state, VmState::ShutOff);
                prop_assert!(record.relinked.is_some());
                prop_assert!(machinery.merged && action == Some(Action::RestoreBacking));
            }
            Step::Finish(Outcome::Merged) if record.relinked.is_some() => {
                prop_assert!(machinery.merged);
                prop_assert!(matches!(phase, Phase::Verifying { .. }), "{phase:?}");
            }
            _ => {}
        }
    }

    /// While the machine is off and its merge offline, only our own job is ended.
    #[test]
    fn offline_nothing_is_said_before_the_job_is_gone(
        machinery in any_machinery(), phase in any_open_phase(),
    ) {
        if !comes_to(MergeKind::OfflineCommit, &phase) {
            return Ok(());
        }
        let case = offline();
        let machinery = Machinery { case, state: VmState::ShutOff, job: true, merged: false, ..machinery };
        let next = decide(&machinery.case.at(phase), &machinery.seen());
        let says = matches!(next, Step::Finish(Outcome::Merged | Outcome::Cancelled));
        prop_assert!(!says, "{next:?}");
        prop_assert!(!matches!(next, Step::Enter(_, Some(Action::StartJob))), "{next:?}");
    }
}
