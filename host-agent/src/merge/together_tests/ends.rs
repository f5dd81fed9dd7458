//! Every merge ends: the decisions, carried out on a disk that does what it is told.

use super::*;
use jiff::SignedDuration;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    /// Whatever libvirt and QEMU can do by themselves, the merge ends, and the world fits its end.
    #[test]
    fn every_merge_ends_whatever_becomes_of_the_others(
        case in any_case(), phase in any_phase(), world in any_world(), peers in any_peers(),
    ) {
        // The others end, too.
        let peers = Peers { ready: true, ..peers };
        prop_assume!(case.record.pivots() || !begun(&phase), "only a pivot has an intent");
        let mut record = case.at(phase);
        let mut world = world.fitting(&case, &record.phase);
        for _ in 0..2000 {
            match step(&record, &world.seen(&case, peers), &Policy::default(), world.time) {
                Step::Enter(phase, action) => {
                    record.phase = phase;
                    world.enters();
                    world.act(&case, action);
                }
                Step::Help(help) => record.help = help,
                Step::Wait(time) => world.waits(&case, time),
                Step::Finish(outcome) => {
                    prop_assert!(!world.paused, "{outcome:?} and the guest stands still");
                    prop_assert_eq!(world.left, None, "{:?} and a job is left", outcome);
                    prop_assert_eq!(world.merged, outcome == Outcome::Merged);
                    let lasts = world.written_out || case.record.kind != MergeKind::Pull;
                    prop_assert!(lasts || !world.merged, "QEMU has it in memory alone");
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "{:?} has no end in {:?}", record.phase, world);
    }
}

/// One disk of a running guest.
#[derive(Debug, Clone)]
struct World {
    paused: bool,
    merged: bool,
    /// What the job has left to copy, if there is one.
    left: Option<u64>,
    marked: bool,
    /// The guest was stopped after the job had ended.
    written_out: bool,
    refused: bool,
    fresh: bool,
    in_phase: Duration,
    missing: Duration,
    time: jiff::Timestamp,
}

fn any_world() -> impl Strategy<Value = World> {
    let left = proptest::option::of(0..3_u64);
    (any::<[bool; 3]>(), left).prop_map(|([merged, marked, fresh], left)| World {
        paused: false,
        merged,
        left,
        marked,
        written_out: false,
        refused: false,
        fresh,
        in_phase: Duration::ZERO,
        missing: Duration::ZERO,
        time: now(),
    })
}

impl World {
    /// What cannot be in this phase is not.
    fn fitting(mut self, case: &Case, phase: &Phase) -> Self {
        self.paused = match phase {
            Phase::Pivoting { suspended_at, .. } | Phase::Verifying { suspended_at } => {
                suspended_at.is_some()
            }
            _ => false,
        };
        let untouched = *phase == Phase::Pending;
        self.merged |= matches!(phase, Phase::Verifying { .. });
        self.written_out = self.paused || matches!(phase, Phase::Verifying { .. });
        if self.merged || untouched {
            self.left = None;
        }
        if !case.record.pivots() && self.left == Some(0) {
            self.left = Some(1);
        }
        self
    }

    fn seen(&self, case: &Case, peers: Peers) -> Observation {
        let mut view = disk(if self.merged { case.after } else { case.before });
        if case.record.pivots() && self.marked {
            let state = |left| match left {
                0 => MirrorState::Ready,
                _ => MirrorState::Copying,
            };
            view.mirror = self.left.and_then(|left| mirror(state(left)));
        }
        let state = if self.paused {
            VmState::Paused
        } else {
            VmState::Running
        };
        let job = self.left.and_then(|left| job(case.kind(), 9 - left, 9));
        Observation {
            told: self.refused.then(|| Told::Refused("no".to_owned())),
            in_phase: self.in_phase,
            job_missing_for: self.missing,
            fresh_start: self.fresh,
            ..with(&seen(state, view, job), peers)
        }
    }

    fn enters(&mut self) {
        (self.in_phase, self.fresh, self.refused) = (Duration::ZERO, false, false);
    }

    fn act(&mut self, case: &Case, action: Option<Action>) {
        match action {
            Some(Action::StartJob) => (self.left, self.marked) = (Some(2), true),
            Some(Action::AbortJob) if self.marked || !case.record.pivots() => self.left = None,
            Some(Action::AbortJob) => self.refused = true,
            Some(Action::Pivot) if self.left == Some(0) => (self.merged, self.left) = (true, None),
            Some(Action::Pivot) => self.refused = true,
            Some(Action::Suspend) => (self.paused, self.written_out) = (true, self.merged),
            Some(Action::Resume) => self.paused = false,
            Some(Action::SetNextStart | Action::RestoreBacking | Action::AddOverlay) => {}
            None => {}
        }
        if self.left.is_some() {
            self.missing = Duration::ZERO;
        }
    }

    fn waits(&mut self, case: &Case, time: Duration) {
        let time = time.max(Duration::from_millis(1));
        self.in_phase += time;
        self.time += SignedDuration::try_from(time).expect("a short time");
        match &mut self.left {
            Some(left) => *left = left.saturating_sub(1),
            None => self.missing += time,
        }
        if self.left == Some(0) && !case.record.pivots() {
            (self.merged, self.left) = (true, None);
        }
    }
}
