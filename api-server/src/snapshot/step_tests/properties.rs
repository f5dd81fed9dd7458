//! What holds for all deletes, whatever is seen and answered.

use super::*;
use crate::snapshot::obstacle::UNSEEN;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;

fn any_sight() -> impl Strategy<Value = MergeSight> {
    let phases = vec![
        MergePhase::Pending,
        MergePhase::Copying,
        MergePhase::Ready,
        MergePhase::Pivoting,
        MergePhase::Cancelling,
        MergePhase::Cancelled,
        MergePhase::Merged,
        MergePhase::Failed(died()),
    ];
    let unseen = [MergeSight::Unknown, MergeSight::Absent];
    select(Vec::from_iter(
        unseen.into_iter().chain(phases.into_iter().map(merge)),
    ))
}

fn any_answer() -> impl Strategy<Value = Option<Answer>> {
    proptest::option::of(select(vec![
        surveyed(vec![
            chain("vda", &["a", "b", "c", "d", "e"]),
            chain("vdb", &["m", "n"]),
        ]),
        surveyed(vec![chain("vda", &["a"])]),
        Answer::OverlaysOn(Consistency::Crash),
        Answer::MergesAccepted,
        Answer::Heard,
        // Of what is removed next, which of them is filled in then.
        Answer::Removals(Removals::new()),
        unknown(),
        refused(Reason::VolumeInUse),
        refused(Reason::PointOfNoReturn),
    ]))
}

fn any_state() -> impl Strategy<Value = DiskState> {
    let half_gone = DiskState::Removing {
        copied_bytes: 5,
        longest_pause: Duration::ZERO,
        gone: 1,
        freed_bytes: 1,
        copy_time: Duration::ZERO,
    };
    select(vec![
        DiskState::Pending,
        DiskState::Merging,
        removing(),
        half_gone,
        removed(),
        DiskState::Failed(died()),
        DiskState::Refused(died()),
        DiskState::Cancelled,
    ])
}

/// Two snapshots: neighbours on one disk, with a gap on it to the second's, the first alone on
/// another disk.
fn two() -> [Snapshot; 2] {
    [
        snapshot("s1", &[("vda", "a"), ("vdb", "m")]),
        snapshot("s2", &[("vda", "d")]),
    ]
}

/// A delete of both, at any point; the rounds may have come to anything.
fn any_delete() -> impl Strategy<Value = Record> {
    let states = [any_state(), any_state(), any_state()];
    let wishes = (any::<bool>(), any::<bool>());
    (proptest::option::of(states), wishes).prop_map(|(states, (pulls, cancel))| {
        let both = two();
        let work = states.map_or_else(planning, |mut states| {
            if !cancel {
                begin(&mut states);
            }
            let [first, second, third] = states;
            disks(vec![
                task(&both[..1], "vda", "a", &["b", "c"], first),
                task(&both[..1], "vdb", "m", &["n", "o"], second),
                DiskTask {
                    round: 1,
                    kind: if pulls {
                        MergeKind::Pull
                    } else {
                        MergeKind::Commit
                    },
                    ..task(&both[1..], "vda", "d", &["e", "f"], third)
                },
            ])
        });
        let mut record = Record::of(&both, work);
        record.operation.cancel_requested = cancel;
        record.mark();
        record
    })
}

/// The first round that is not done has begun: nothing but a wish to cancel takes its turn back.
fn begin(states: &mut [DiskState; 3]) {
    let done = |state: &DiskState| matches!(state, DiskState::Removed { .. });
    let now = if states[..2].iter().all(done) {
        &mut states[2..]
    } else {
        &mut states[..2]
    };
    for state in now.iter_mut().filter(|state| **state == DiskState::Pending) {
        *state = DiskState::Merging;
    }
}

impl Record {
    /// Sets what the plan would have set.
    fn mark(&mut self) {
        let Work::Delete(DeletePhase::Disks(tasks)) = &self.operation.work else {
            return;
        };
        for snapshot in &mut self.snapshots {
            for disk in &mut snapshot.disks {
                let mut own = tasks.iter().filter(|task| task.disk == disk.disk);
                let goes = |task: &&DiskTask| task.deletes[0].snapshot == snapshot.id;
                disk.merging = own.find(goes).map(DiskTask::merging);
            }
        }
    }

    fn of_operation(&self) -> Option<&[DiskTask]> {
        match &self.operation.work {
            Work::Delete(DeletePhase::Disks(tasks)) => Some(tasks),
            _ => None,
        }
    }
}

/// One look at the host.
#[derive(Debug, Clone)]
struct Look {
    sights: [MergeSight; 3],
    answer: Option<Answer>,
    attempts: u32,
    begun: bool,
    needed: bool,
    cancel: bool,
    /// What becomes of removals, in turn.
    came: Vec<Came>,
}

/// What becomes of a removal.
#[derive(Debug, Clone, Copy)]
enum Came {
    Gone,
    Condemned,
    Refused,
    Unknown,
    Silence,
}

impl Came {
    fn of(self) -> Option<Result<Removed, HostError>> {
        let problem = Problem::new(Reason::VolumeInUse, "no");
        match self {
            Self::Gone => Some(Ok(is_gone())),
            Self::Condemned => Some(Ok(Removed {
                gone: false,
                ..is_gone()
            })),
            Self::Refused => Some(Err(HostError::Refused(problem))),
            Self::Unknown => Some(Err(HostError::Unknown(problem))),
            Self::Silence => None,
        }
    }
}

fn any_came() -> impl Strategy<Value = Vec<Came>> {
    let each = select(vec![
        Came::Gone,
        Came::Gone,
        Came::Condemned,
        Came::Refused,
        Came::Unknown,
        Came::Silence,
    ]);
    prop::collection::vec(each, 6)
}

fn any_look() -> impl Strategy<Value = Look> {
    let sights = [any_sight(), any_sight(), any_sight()];
    (
        sights,
        any_answer(),
        0..20_u32,
        any::<bool>(),
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.1),
        any_came(),
    )
        .prop_map(
            |(sights, answer, attempts, begun, needed, cancel, came)| Look {
                sights,
                answer,
                attempts,
                begun,
                needed,
                cancel,
                came,
            },
        )
}

impl Record {
    fn look(&self, look: &Look) -> Step {
        let mut seen = Seen {
            answer: look.answer.clone(),
            attempts: look.attempts,
            begun: look.begun,
            needed: look.needed.then(needed),
            ..self.seen()
        };
        if let Some(Answer::Removals(removals)) = &mut seen.answer {
            let next = next_removals(&self.operation).into_iter();
            let came = next.zip(&look.came);
            removals.extend(came.filter_map(|(it, came)| Some((it.removal, came.of()?))));
        }
        let merges = awaited_merges(&self.operation);
        seen.sights = merges.into_iter().zip(look.sights.clone()).collect();
        seen.decide(&self.operation)
    }
}

/// What was shown as merged, or found merged when it was planned, so far.
#[derive(Default)]
struct Proven(BTreeSet<MergeId>);

impl Proven {
    fn look(&mut self, record: &Record, look: &Look) {
        let merges = awaited_merges(&record.operation).into_iter();
        let merged = merge(MergePhase::Merged);
        let shown = merges
            .zip(&look.sights)
            .filter(|(_, sight)| **sight == merged);
        self.0.extend(shown.map(|(merge, _)| merge));
    }

    /// As the record begins, or as a plan finds it.
    fn planned(&mut self, record: &Record) {
        let tasks = record.of_operation().unwrap_or_default();
        let done = tasks.iter().filter(|task| {
            matches!(
                task.state,
                DiskState::Removing { .. } | DiskState::Removed { .. }
            )
        });
        self.0.extend(done.map(|task| task.merge));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// From any point, whatever is seen and answered then: no volume is removed whose merge was not
    /// shown as merged or that the record needs, and no row goes before the volumes of its merges.
    #[test]
    fn nothing_goes_before_its_merge_was_seen(
        mut record in any_delete(), looks in prop::collection::vec(any_look(), 1..24),
    ) {
        let mut proven = Proven::default();
        proven.planned(&record);
        for look in looks {
            if record.operation.state.ended() {
                return Ok(());
            }
            record.operation.cancel_requested |= look.cancel;
            proven.look(&record, &look);
            match record.look(&look) {
                Step::Ask(Ask::Removals(orders)) => {
                    prop_assert!(!look.needed, "{orders:?}");
                    let asked: Vec<_> = orders.iter().map(|order| (order.id, &order.volume)).collect();
                    let next = next_removals(&record.operation).into_iter();
                    prop_assert_eq!(&asked, &next.map(|it| (it.removal, &it.volume)).collect::<Vec<_>>());
                    for order in &orders {
                        let named = |task: &&DiskTask| task.removed.iter().any(|it| it.removal == order.id);
                        let task = record.tasks().iter().find(named);
                        prop_assert!(task.is_some_and(|task| proven.0.contains(&task.merge)), "{order:?}");
                    }
                }
                Step::Enter(entered) => {
                    let was_planning = record.of_operation().is_none();
                    for snapshot in &record.snapshots {
                        if deletes(&entered, snapshot.id) {
                            let of = |task: &&DiskTask| task.deletes[0].snapshot == snapshot.id;
                            let left = tasks(&entered).iter().filter(of).find(|task| !task.is_removed());
                            prop_assert_eq!(left, None, "{} goes too early", snapshot.name);
                        }
                    }
                    record.apply(&entered);
                    if was_planning {
                        proven.planned(&record);
                    }
                    // The record follows the data first, so what leaves with a merge nobody names.
                    for next in next_removals(&record.operation) {
                        let own = record.operation.id;
                        let needed = needed_by(&next.volume.volume, own, &record.snapshots, [&record.operation]);
                        prop_assert_eq!(needed, None);
                    }
                }
                Step::Note(noted) => record.apply(&noted),
                Step::Ask(_) | Step::Wait(_) => {}
            }
        }
    }

    /// Before a merge is ordered, each of its snapshots says what is merged.
    #[test]
    fn the_record_names_the_merge_before_the_order(
        mut record in any_delete(), looks in prop::collection::vec(any_look(), 1..12),
    ) {
        for look in looks {
            match record.look(&look) {
                Step::Ask(Ask::Merges(orders)) => {
                    for order in orders {
                        let task = record.tasks().iter().find(|task| task.merge == order.id).unwrap();
                        let chain_tells = task.merging().chain_tells;
                        let asked = Merging { kept: order.kept, removed: order.removed, chain_tells };
                        let of = record.snapshots.iter().find(|it| it.id == task.deletes[0].snapshot).unwrap();
                        let disk = of.disks.iter().find(|disk| disk.disk == order.disk).unwrap();
                        prop_assert_eq!(disk.merging.as_ref(), Some(&asked));
                        prop_assert_eq!(of.state, SnapshotState::Deleting);
                    }
                }
                Step::Enter(change) | Step::Note(change) => record.apply(&change),
                Step::Ask(_) | Step::Wait(_) => {}
            }
            if record.operation.state.ended() {
                return Ok(());
            }
        }
    }

    #[test]
    fn silence_changes_no_record(mut record in any_delete(), attempts in 1..100_u32) {
        // Where something is to be asked.
        let tasks = record.of_operation().unwrap_or_default();
        let open = tasks.iter().find(|task| !task.is_removed());
        let asks = record.of_operation().is_none() || open.is_some_and(|open| {
            tasks.iter().any(|task| task.round == open.round
                && matches!(task.state, DiskState::Merging | DiskState::Removing { .. }))
        });
        prop_assume!(asks);
        // In its planning, and in its removals, who waits and is cancelled ends.
        let merges = open.is_some_and(|open| {
            tasks.iter().any(|task| task.round == open.round && task.state == DiskState::Merging)
        });
        record.operation.cancel_requested &= merges;
        let seen = |record: &Record| {
            let seen = Seen { merge: MergeSight::Unknown, answer: Some(unknown()), attempts, unseen: UNSEEN, ..record.seen() };
            seen.decide(&record.operation)
        };
        let told = match seen(&record) {
            Step::Note(change) => *change,
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(&told.operation.work, &record.operation.work);
        prop_assert!(told.snapshots.is_empty());
        record.apply(&told);
        prop_assert!(matches!(seen(&record), Step::Wait(_)), "told once");
    }

    #[test]
    fn an_end_leaves_every_snapshot_unlocked(record in any_delete(), look in any_look()) {
        if let Step::Enter(change) = record.look(&look)
            && change.operation.state.ended()
        {
            for snapshot in &record.snapshots {
                let unlocked = put(&change, snapshot.id).is_some_and(|it| it.state != SnapshotState::Deleting);
                prop_assert!(unlocked || deletes(&change, snapshot.id));
            }
        }
    }

    /// From any point a delete ends once the host answers, and as it was asked for.
    #[test]
    fn every_delete_ends_once_faults_stop(mut record in any_delete(), obeys in any::<bool>()) {
        let undone = record.of_operation().unwrap_or_default().iter().any(|task| {
            matches!(task.state, DiskState::Failed(_) | DiskState::Refused(_) | DiskState::Cancelled)
        });
        let mut answer = None;
        let mut phase = MergePhase::Copying;
        for _ in 0..60 {
            let seen = Seen { merge: merge(phase.clone()), answer: answer.take(), begun: true, ..record.seen() };
            match seen.decide(&record.operation) {
                Step::Ask(Ask::Survey(_)) => {
                    let vda = chain("vda", &["a", "b", "c", "d", "e"]);
                    answer = Some(surveyed(vec![vda, chain("vdb", &["m", "n"])]));
                }
                Step::Ask(Ask::Removals(orders)) => answer = Some(all_gone(&orders)),
                Step::Ask(Ask::Cancel(_)) => {
                    phase = if obeys { MergePhase::Cancelled } else { MergePhase::Merged };
                }
                Step::Wait(_) => phase = MergePhase::Merged,
                Step::Ask(other) => prop_assert!(false, "{other:?}"),
                Step::Note(change) => record.apply(&change),
                Step::Enter(change) => {
                    phase = MergePhase::Copying;
                    record.apply(&change);
                    if record.operation.state.ended() {
                        break;
                    }
                }
            }
        }
        let state = &record.operation.state;
        let cancelled = record.operation.cancel_requested;
        prop_assert!(state.ended(), "still {:?}", record.operation.work);
        prop_assert!(undone || cancelled || *state == OperationState::Succeeded, "{state:?}");
        prop_assert_eq!(record.snapshots.is_empty(), *state == OperationState::Succeeded);
    }
}
