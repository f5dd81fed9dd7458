//! [`Selection`]: which snapshots a delete means, said to a person and confirmed.

use crate::args::Age;
use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::on_stderr;
use crate::resolve;
use jiff::Timestamp;
use livemerge_proto::v1;
use std::collections::HashSet;
use std::io::{self, IsTerminal as _, Write as _};

/// What one delete takes.
const MOST: usize = 1000;

/// The names, each once, in their order.
///
/// # Errors
/// More than one delete takes.
pub(super) fn distinct(names: &[String]) -> Result<Vec<&str>, Failure> {
    let mut known = HashSet::new();
    let names = names.iter().map(String::as_str);
    let distinct: Vec<&str> = names.filter(|name| known.insert(*name)).collect();
    not_too_many(distinct.len())?;
    Ok(distinct)
}

/// # Errors
/// More than one delete takes.
pub(super) fn not_too_many(count: usize) -> Result<(), Failure> {
    if count <= MOST {
        return Ok(());
    }
    let message = format!("{count} snapshots are too many: one delete takes {MOST} at most");
    let hint = "--older-than selects fewer; a second delete takes the rest";
    Err(Failure::new(Exit::InvalidArgument, message).hint(hint))
}

/// The time before which a snapshot must have been taken.
///
/// # Errors
/// A time that is not over yet.
#[expect(
    clippy::disallowed_methods,
    reason = "an age on the command line is counted from when it is typed"
)]
pub(super) fn before(age: Age) -> Result<Timestamp, Failure> {
    let before = age.before(Timestamp::now());
    before.map_err(|why| Failure::new(Exit::Usage, format!("the time of --older-than {why}")))
}

/// The snapshots of a machine that are meant.
pub(super) struct Selection {
    /// Those to delete, oldest first.
    pub(super) chosen: Vec<v1::Snapshot>,
    /// Those meant that an operation works on.
    busy: Vec<v1::Snapshot>,
    /// Those that others took: how old they are is not known, and who may need them.
    foreign: Vec<v1::Snapshot>,
}

impl Selection {
    /// The machine's snapshots, or those that were taken before a time.
    ///
    /// # Errors
    /// Those of the calls.
    pub(super) async fn of(
        session: &Session,
        vm_id: &str,
        before: Option<Timestamp>,
    ) -> Result<Self, Failure> {
        let mut meant = resolve::snapshots(session, vm_id).await?;
        meant.retain(|snapshot| before.is_none_or(|before| taken_before(snapshot, before)));
        let (foreign, meant): (Vec<_>, Vec<_>) = meant
            .into_iter()
            .partition(|snapshot| snapshot.origin() == v1::SnapshotOrigin::Discovered);
        let (busy, chosen) = meant.into_iter().partition(|snapshot| {
            use v1::SnapshotState::{Creating, Deleting};
            matches!(snapshot.state(), Creating | Deleting)
        });
        Ok(Self {
            chosen,
            busy,
            foreign,
        })
    }
}

/// One of an unknown age is not old.
fn taken_before(snapshot: &v1::Snapshot, before: Timestamp) -> bool {
    let at = snapshot.created_at.as_ref();
    let at = at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    at.is_some_and(|at| at < before)
}

pub(super) fn say_chosen(chosen: &[v1::Snapshot]) {
    say(&format!("selected: {}", counted(chosen.len())));
    on_stderr(chosen);
}

pub(super) fn say_passed_over(selection: &Selection) {
    let because = [
        ("being taken or deleted", &selection.busy),
        ("taken by others, to be deleted by name", &selection.foreign),
    ];
    for (why, snapshots) in because {
        if !snapshots.is_empty() {
            let count = counted(snapshots.len());
            say(&format!("passed over, {why}: {count}"));
            on_stderr(snapshots);
        }
    }
}

/// Asks the person at the terminal.
///
/// # Errors
/// A no; nobody there to ask.
pub(super) async fn confirm(count: usize) -> Result<(), Failure> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let message = "nobody can be asked here: --yes deletes without a question";
        return Err(Failure::new(Exit::Usage, message));
    }
    let count = counted(count);
    let _unread = write!(io::stderr(), "Delete {count} for good? [y/N] ");
    // The connection lives on while the person thinks.
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    match answer.await {
        Ok(Ok(answer)) if is_yes(&answer) => Ok(()),
        _ => Err(Failure::new(
            Exit::Refused,
            "not confirmed; nothing was deleted",
        )),
    }
}

fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes")
}

fn counted(snapshots: usize) -> String {
    match snapshots {
        1 => "1 snapshot".to_owned(),
        several => format!("{several} snapshots"),
    }
}

/// A reader of stderr that went away is no reason to stop.
fn say(text: &str) {
    let _unread = writeln!(io::stderr(), "{text}");
}
