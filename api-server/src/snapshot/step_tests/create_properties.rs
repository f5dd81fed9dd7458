//! What holds for the taking of every snapshot, whatever is answered.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;

/// A host with a machine of two disks, and overlays that are on or not.
#[derive(Debug, Clone, Copy, Default)]
struct Host {
    on: bool,
}

/// How the host answers one question.
#[derive(Debug, Clone, Copy)]
enum Mood {
    /// It does it, and says so.
    Does,
    /// It does it, and the answer is lost.
    IsSilent,
    /// Nothing arrives.
    HearsNothing,
    /// It says no. Overlays that were on stay on: an earlier copy of the order may have put them there.
    Refuses,
}

fn any_moods() -> impl Strategy<Value = Vec<Mood>> {
    let mood = select(vec![
        Mood::Does,
        Mood::IsSilent,
        Mood::HearsNothing,
        Mood::Refuses,
    ]);
    prop::collection::vec(mood, 0..12)
}

impl Host {
    fn chains(self, overlays: &[NewOverlay]) -> Vec<Chain> {
        let below = |disk: &str| if disk == "vda" { "a" } else { "m" };
        let disks = ["vda", "vdb"].map(|disk| {
            let mut chain = chain(disk, &[below(disk)]);
            let mut own = overlays.iter().filter(|new| new.disk.as_str() == disk);
            if let (true, Some(new)) = (self.on, own.next()) {
                let mut layer = chain.layers[0].clone();
                layer.mark = Some(Mark {
                    volume: new.overlay.clone(),
                    identity: "id-overlay".parse().unwrap(),
                });
                chain.layers.push(layer);
            }
            chain
        });
        disks.to_vec()
    }

    fn answer(&mut self, ask: &Ask, overlays: &[NewOverlay], mood: Mood) -> Answer {
        let orders = matches!(ask, Ask::Overlays(_));
        if orders && matches!(mood, Mood::Does | Mood::IsSilent) {
            self.on = true;
        }
        match (mood, ask) {
            (Mood::Does, Ask::Overlays(_)) => Answer::OverlaysOn(Consistency::Crash),
            (Mood::Does, _) => read(self.chains(overlays)),
            (Mood::Refuses, Ask::Overlays(_)) => refused(Reason::ConcurrentChange),
            // That the chains are refused says that the machine is gone, and nothing is left to take.
            (Mood::Refuses, _) => unknown(),
            (Mood::IsSilent | Mood::HearsNothing, _) => unknown(),
        }
    }
}

fn overlays(operation: &Operation) -> Vec<NewOverlay> {
    match &operation.work {
        Work::Create(CreatePhase::Overlaying(new) | CreatePhase::Refused(new, _)) => new.clone(),
        _ => vec![],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever happens to the answers, it ends once the host does as it is asked; then the snapshot
    /// is in the list exactly when its overlays are on, and what it froze lies below them. The same
    /// overlays are asked for each time.
    #[test]
    fn a_snapshot_stands_in_the_list_exactly_when_its_overlays_are_on(
        moods in any_moods(), restart in prop::collection::vec(any::<bool>(), 12),
    ) {
        let mut taken = snapshot("s", &[]);
        taken.state = SnapshotState::Creating;
        let mut row = Some(taken.clone());
        let mut create = operation(&taken, Work::Create(CreatePhase::Planning));
        let (mut host, mut answer, mut attempts) = (Host::default(), None, 0);
        let mut moods = moods.into_iter();
        let mut restarts = restart.into_iter();
        let mut asked: Option<Vec<NewOverlay>> = None;
        for _ in 0..80 {
            let snapshots: Vec<Snapshot> = row.iter().cloned().collect();
            let seen = Seen { answer: answer.clone(), attempts, ..Seen::all(&snapshots) };
            match seen.decide(&create) {
                Step::Ask(ask) => {
                    if let Ask::Overlays(order) = &ask {
                        let first = asked.get_or_insert_with(|| order.overlays.clone());
                        prop_assert_eq!(&*first, &order.overlays);
                    }
                    let mood = moods.next().unwrap_or(Mood::Does);
                    answer = Some(host.answer(&ask, &overlays(&create), mood));
                    attempts += 1;
                }
                // The wait is over, or the server was started again: the question is asked anew.
                Step::Wait(_) => answer = None,
                Step::Enter(change) | Step::Note(change) => {
                    let moved = change.operation.work != create.work;
                    create = change.operation.clone();
                    if let Some(put) = put(&change, taken.id) {
                        row = Some(put.clone());
                    }
                    if deletes(&change, taken.id) {
                        row = None;
                    }
                    if moved || create.state.ended() {
                        (answer, attempts) = (None, 0);
                    }
                }
            }
            if restarts.next().unwrap_or(false) {
                (answer, attempts) = (None, 0);
            }
            if create.state.ended() {
                break;
            }
        }
        prop_assert!(create.state.ended(), "still {:?}", create.work);
        let ready = row.as_ref().is_some_and(|row| row.state == SnapshotState::Ready);
        prop_assert_eq!(ready, create.state == OperationState::Succeeded);
        prop_assert_eq!(row.is_some(), ready, "no row is left locked");
        prop_assert_eq!(ready, host.on, "{:?}", create.state);
        if let Some(row) = row {
            let frozen: Vec<_> = row.disks.iter().map(|disk| disk.volume.clone()).collect();
            prop_assert_eq!(frozen, vec![volume("a"), volume("m")]);
        }
    }
}
