//! [`Left`]: what an operation that was cancelled has left of its snapshots.

use crate::connect::Session;
use crate::failure::Failure;
use crate::output::text::escape;
use crate::resolve;
use livemerge_proto::v1;
use std::collections::BTreeMap;
use std::io::{self, Write as _};

/// So many snapshots are named; of more, only the number is said.
const NAMED: usize = 10;

/// A line for each state that its snapshots are in.
pub(super) struct Left {
    lines: Vec<(&'static str, String)>,
}

impl Left {
    /// Asks how the operation's snapshots are. That nobody answers is said, too: the operation has
    /// ended all the same.
    pub(super) async fn by(session: &Session, ended: &v1::Operation) -> Self {
        let lines = match resolve::snapshots(session, &ended.vm_id).await {
            Ok(snapshots) => lines(ended, &snapshots),
            Err(failure) => vec![("left", format!("not known: {}", failure.message()))],
        };
        Self { lines }
    }

    /// Adds it to the failure.
    pub(super) fn told_by(self, failure: Failure) -> Failure {
        self.lines
            .into_iter()
            .fold(failure, |failure, (label, text)| failure.line(label, text))
    }

    /// Says it on stderr. A reader that went away is no failure.
    pub(super) fn say(self) {
        let mut stderr = io::stderr().lock();
        for (label, text) in self.lines {
            let _unread = writeln!(stderr, "{label}: {}", escape(&text));
        }
    }
}

fn lines(ended: &v1::Operation, snapshots: &[v1::Snapshot]) -> Vec<(&'static str, String)> {
    let mut left: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for id in ids(ended) {
        let snapshot = snapshots.iter().find(|snapshot| snapshot.id == *id);
        let name = snapshot.map_or(id.as_str(), |snapshot| snapshot.name.as_str());
        left.entry(state(snapshot)).or_default().push(name);
    }
    left.into_iter()
        .map(|(state, names)| {
            let (label, what_it_means) = STATES[state];
            (label, format!("{}: {what_it_means}", listed(&names)))
        })
        .collect()
}

/// A server that knows no batches names one snapshot only.
fn ids(ended: &v1::Operation) -> &[String] {
    if ended.snapshot_ids.is_empty() {
        std::slice::from_ref(&ended.snapshot_id)
    } else {
        &ended.snapshot_ids
    }
}

const STATES: [(&str, &str); 4] = [
    ("ready", "as it was"),
    ("incomplete", "can be deleted again, and not be reverted to"),
    ("busy", "another operation works on it"),
    ("gone", "deleted before the end"),
];

fn state(snapshot: Option<&v1::Snapshot>) -> usize {
    match snapshot.map(v1::Snapshot::state) {
        Some(v1::SnapshotState::Ready) => 0,
        Some(v1::SnapshotState::Incomplete) => 1,
        Some(_) => 2,
        None => 3,
    }
}

fn listed(names: &[&str]) -> String {
    let shown = &names[..names.len().min(NAMED)];
    let more = names.len() - shown.len();
    let shown = shown.join(", ");
    if more == 0 {
        shown
    } else {
        format!("{shown} and {more} more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::SnapshotState::{Creating, Incomplete, Ready};

    fn snapshot(id: &str, state: v1::SnapshotState) -> v1::Snapshot {
        v1::Snapshot {
            id: id.into(),
            name: format!("of-{id}"),
            state: state.into(),
            ..Default::default()
        }
    }

    fn operation(ids: &[&str]) -> v1::Operation {
        v1::Operation {
            snapshot_id: ids[0].into(),
            snapshot_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn each_state_has_its_line() {
        let snapshots = [
            snapshot("a", Incomplete),
            snapshot("b", Ready),
            snapshot("c", Ready),
            snapshot("d", Creating),
            snapshot("of-another", Ready),
        ];
        let left = lines(&operation(&["a", "b", "c", "d", "e"]), &snapshots);
        let told: Vec<String> = left
            .iter()
            .map(|(label, text)| format!("{label} {text}"))
            .collect();
        assert_eq!(
            told,
            [
                "ready of-b, of-c: as it was",
                "incomplete of-a: can be deleted again, and not be reverted to",
                "busy of-d: another operation works on it",
                "gone e: deleted before the end",
            ]
        );
    }

    #[test]
    fn one_without_a_batch_and_many() {
        let mut one = operation(&["a"]);
        one.snapshot_ids.clear();
        assert_eq!(lines(&one, &[snapshot("a", Ready)])[0].0, "ready");
        let names = ["n"; NAMED + 3];
        assert!(listed(&names).ends_with("n, n and 3 more"));
        assert_eq!(listed(&names[..2]), "n, n");
    }
}
