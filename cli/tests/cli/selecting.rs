//! `snapshot delete --all` and `--older-than`: what is selected, shown and confirmed.

use crate::data::{WEB, site};
use crate::deleting::{asked, batch, delete};
use crate::program::client;
use crate::server::{Script, Server};
use crate::terminal::Terminal;
use livemerge_proto::v1;
use prost_types::Timestamp;

pub(crate) const OLD: &str = "aaaaaaaa-0000-4000-8000-000000000001";
pub(crate) const OLDER: &str = "aaaaaaaa-0000-4000-8000-000000000002";
const YOUNG: &str = "aaaaaaaa-0000-4000-8000-000000000003";
const BUSY: &str = "aaaaaaaa-0000-4000-8000-000000000004";
const AGELESS: &str = "aaaaaaaa-0000-4000-8000-000000000005";

/// Those of the first hours of 1970, one of a far year, one being deleted and one without a time.
pub(crate) fn of_all_ages() -> Script {
    const YEAR_9000: i64 = 221_845_392_000;
    let snapshot = |id: &str, seconds: Option<i64>, state: v1::SnapshotState| v1::Snapshot {
        id: id.into(),
        vm_id: WEB.into(),
        name: format!("at-{seconds:?}"),
        state: state.into(),
        created_at: seconds.map(|seconds| Timestamp { seconds, nanos: 0 }),
        ..Default::default()
    };
    use v1::SnapshotState::{Deleting, Incomplete, Ready};
    let mut script = site();
    script.snapshots.extend([
        snapshot(OLDER, Some(3600), Incomplete),
        snapshot(OLD, Some(7200), Ready),
        snapshot(YOUNG, Some(YEAR_9000), Ready),
        snapshot(BUSY, Some(0), Deleting),
        snapshot(AGELESS, None, Ready),
    ]);
    // The machine's own two are in the way here.
    script
        .snapshots
        .retain(|snapshot| !snapshot.name.ends_with("ly"));
    script
}

#[test]
fn all_are_all_but_those_that_are_worked_on() {
    let server = Server::start(of_all_ages());
    let ran = delete(&server, &["--all", "--vm", "web", "--yes"]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    let wanted = batch(&[OLDER, OLD, YOUNG, AGELESS]);
    assert_eq!(asked(&server), [format!("{wanted:?}")]);
    assert!(ran.stdout.contains("queued"), "{}", ran.stdout);
    insta::assert_snapshot!(ran.stderr);
}

#[test]
fn an_age_selects_what_is_older() {
    let selected = |age: &str| {
        let server = Server::start(of_all_ages());
        let ran = delete(&server, &["--older-than", age, "--vm", WEB, "-y"]);
        assert_eq!(ran.exit, 0, "{age}: {}", ran.stderr);
        asked(&server)
    };
    let both = format!("{:?}", batch(&[OLDER, OLD]));
    for age in ["30m", "12h", "7d", "2w", "1970-01-01T02:00:01Z"] {
        assert_eq!(selected(age), [both.as_str()], "{age}");
    }
    // What was taken at that very time is not older. One that is chosen goes as a batch, too.
    assert_eq!(
        selected("1970-01-01T02:00:00Z"),
        [format!("{:?}", batch(&[OLDER]))]
    );
    assert_eq!(selected("1970-01-01T01:00:00Z"), [""; 0]);
}

#[test]
fn nothing_selected_is_no_failure() {
    let server = Server::start(of_all_ages());
    let none = ["--older-than", "1970-01-01T00:00:00Z", "--vm", "web"];
    assert_eq!(
        delete(&server, &none).shown(),
        "no snapshot is selected: nothing to delete\n"
    );
    let json = [&none[..], &["-o", "json"]].concat();
    assert_eq!(delete(&server, &json).shown(), "null\n");
    assert_eq!(asked(&server), [""; 0]);
}

#[test]
fn nobody_to_ask_is_no_yes() {
    let server = Server::start(of_all_ages());
    let ran = delete(&server, &["--all", "--vm", "web"]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""));
    let error = "error: nobody can be asked here: --yes deletes without a question\n";
    assert!(ran.stderr.ends_with(error), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("selected: 4 snapshots\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(asked(&server), [""; 0]);
}

#[test]
fn a_person_is_asked() {
    for (answer, exit) in [
        ("y\n", 0),
        ("Yes\n", 0),
        ("n\n", 4),
        ("\n", 4),
        ("\u{4}", 4),
    ] {
        let server = Server::start(of_all_ages());
        let mut command = client(&server);
        command.args(["snapshot", "delete", "--all", "--vm", "web"]);
        let mut terminal = Terminal::start(command);
        terminal.shows("Delete 4 snapshots for good? [y/N] ");
        assert_eq!(asked(&server), [""; 0]);
        terminal.types(answer);
        let (ended, shown) = terminal.end();
        assert_eq!(ended, exit, "{answer:?}: {shown}");
        assert!(
            shown.contains("at-Some(3600)") && shown.contains("passed over"),
            "{shown}"
        );
        assert_eq!(asked(&server).len(), usize::from(exit == 0), "{answer:?}");
        assert_eq!(shown.contains("nothing was deleted"), exit == 4, "{shown}");
    }
}

#[test]
fn a_time_to_come_is_no_age() {
    let server = Server::start(of_all_ages());
    let ran = delete(
        &server,
        &["--older-than", "9000-01-01T00:00:00Z", "--vm", "web"],
    );
    assert_eq!(ran.exit, 2);
    assert_eq!(
        ran.stderr,
        "error: the time of --older-than lies in the future\n"
    );
    assert_eq!(server.seen(), [""; 0]);
}
