//! `snapshot delete` of several, `--dry-run`, and `snapshot plan`.

use crate::data::{DAILY, DB, DB_DAILY, NOWHERE, WEB, WEEKLY, blocked, site};
use crate::program::{Ran, ask};
use crate::selecting::{OLD, OLDER, of_all_ages};
use crate::server::{Script, Server};
use livemerge_proto::v1;

/// The requests to delete or plan; empty when only looked.
pub(crate) fn asked(server: &Server) -> Vec<String> {
    let mut seen = server.seen();
    seen.retain(|request| request.contains("Delete"));
    seen
}

pub(crate) fn batch(ids: &[&str]) -> v1::BatchDeleteSnapshotsRequest {
    v1::BatchDeleteSnapshotsRequest {
        request_id: NOWHERE.into(),
        vm_id: WEB.into(),
        snapshot_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        allow_missing: false,
        options: None,
    }
}

pub(crate) fn delete(server: &Server, args: &[&str]) -> Ran {
    let command = ["snapshot", "delete", "--request-id", NOWHERE];
    ask(server, command.iter().chain(args))
}

#[test]
fn several_go_in_one_request() {
    for names in [&["weekly", "daily", "--vm", "web"][..], &["weekly", DAILY]] {
        let server = Server::start(site());
        let shown = delete(&server, names).shown();
        assert!(shown.contains("queued"), "{shown}");
        let wanted = batch(&[WEEKLY, DAILY]);
        assert_eq!(asked(&server), [format!("{wanted:?}")], "{names:?}");
    }
}

#[test]
fn direction_bandwidth_and_what_is_missing_go_along() {
    let server = Server::start(site());
    let how = [
        "--direction",
        "pull",
        "--bandwidth",
        "50MiB",
        "--allow-missing",
    ];
    let options = v1::MergeOptions {
        direction: v1::MergeDirection::Pull.into(),
        bytes_per_second: 50 << 20,
    };
    delete(&server, &[&[DAILY, WEEKLY, "--vm", WEB][..], &how].concat()).shown();
    // Ids of a machine that is named by its id are not looked up.
    assert_eq!(server.seen().len(), 1);
    let wanted = v1::BatchDeleteSnapshotsRequest {
        allow_missing: true,
        options: Some(options),
        ..batch(&[DAILY, WEEKLY])
    };
    assert_eq!(server.last_seen(), format!("{wanted:?}"));

    delete(&server, &[DAILY, "--direction", "commit"]).shown();
    let options = v1::MergeOptions {
        direction: v1::MergeDirection::Commit.into(),
        bytes_per_second: 0,
    };
    let wanted = v1::DeleteSnapshotRequest {
        request_id: NOWHERE.into(),
        snapshot_id: DAILY.into(),
        options: Some(options),
        ..Default::default()
    };
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
}

#[test]
fn a_snapshot_that_is_named_twice_is_deleted_once() {
    let server = Server::start(site());
    let upper = WEEKLY.to_uppercase();
    for names in [&[WEEKLY, WEEKLY][..], &["weekly", WEEKLY, &upper]] {
        delete(&server, names).shown();
        let last = server.last_seen();
        assert!(last.starts_with("DeleteSnapshotRequest"), "{last}");
        assert!(last.contains(WEEKLY), "{last}");
    }
    delete(&server, &["weekly", "daily", WEEKLY, "--vm", "web"]).shown();
    assert_eq!(server.last_seen(), format!("{:?}", batch(&[WEEKLY, DAILY])));
}

#[test]
fn snapshots_of_two_machines_are_refused() {
    for dry_run in [false, true] {
        let server = Server::start(site());
        let args = ["snapshot", "delete", "weekly", DB_DAILY];
        let dry_run: &[&str] = if dry_run { &["--dry-run"] } else { &[] };
        let ran = ask(&server, args.iter().chain(dry_run));
        assert_eq!((ran.exit, ran.stdout.as_str()), (6, ""));
        let error = "error: the snapshots are of 2 machines; one delete is of one machine";
        assert_eq!(
            ran.stderr,
            format!("{error}\nmachine: {WEB} has weekly\nmachine: {DB} has daily\n")
        );
        assert_eq!(asked(&server), [""; 0]);
    }
}

#[test]
fn names_that_fit_nothing_or_several_are_refused() {
    let server = Server::start(site());
    let ran = delete(&server, &["weekly", "nothing"]);
    assert_eq!(ran.exit, 3);
    assert!(
        ran.stderr.contains("no snapshot is named nothing"),
        "{}",
        ran.stderr
    );
    let ran = delete(&server, &["weekly", "daily"]);
    assert_eq!(ran.exit, 6);
    assert!(
        ran.stderr.contains("the name daily fits 2"),
        "{}",
        ran.stderr
    );
    let unknown = DAILY.replace('a', "7");
    let ran = delete(&server, &[NOWHERE, &unknown]);
    assert_eq!(ran.exit, 3);
    assert!(
        ran.stderr.contains("none of these snapshots exists"),
        "{}",
        ran.stderr
    );
    assert_eq!(asked(&server), [""; 0]);
}

#[test]
fn what_is_missing_can_be_left_out() {
    let server = Server::start(site());
    let allow = |names: &[&str]| delete(&server, &[names, &["--allow-missing"]].concat()).shown();
    allow(&["weekly", "nothing", "daily", "--vm", "web"]);
    let wanted = v1::BatchDeleteSnapshotsRequest {
        allow_missing: true,
        ..batch(&[WEEKLY, DAILY])
    };
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
    // The server knows best whether an id is missing.
    allow(&["weekly", NOWHERE]);
    assert!(server.last_seen().contains(NOWHERE));
    let before = asked(&server).len();
    let unknown = DAILY.replace('a', "7");
    for none in [&["nothing", "at-all"][..], &[NOWHERE, &unknown]] {
        assert_eq!(allow(none), "no such snapshot: nothing to delete\n");
    }
    assert_eq!(asked(&server).len(), before);
}

#[test]
fn an_etag_is_for_one() {
    let server = Server::start(site());
    let ran = delete(&server, &[DAILY, WEEKLY, "--vm", WEB, "--etag", "3"]);
    assert_eq!(ran.exit, 2);
    assert!(
        ran.stderr.starts_with("error: --etag is for one snapshot"),
        "{}",
        ran.stderr
    );
    assert_eq!(server.seen(), [""; 0]);
    delete(&server, &[DAILY, DAILY, "--etag", "3"]).shown();
    assert!(server.last_seen().contains("etag: \"3\""));
}

#[test]
fn a_thousand_are_taken_and_no_more() {
    let id = |n: usize| format!("aaaaaaaa-0000-4000-8000-{n:012}");
    let ids: Vec<String> = (1..=1001).map(id).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let server = Server::start(site());
    for command in [&["snapshot", "delete"][..], &["snapshot", "plan"]] {
        let ran = ask(&server, command.iter().chain(&ids));
        assert_eq!(ran.exit, 6);
        assert_eq!(
            ran.stderr,
            "error: 1001 snapshots are too many: one delete takes 1000 at most\n\
             hint: --older-than selects fewer; a second delete takes the rest\n"
        );
    }
    assert_eq!(server.seen(), [""; 0]);
    delete(&server, &[&ids[..1000], &[ids[0], "--vm", WEB]].concat()).shown();
    assert_eq!(server.last_seen(), format!("{:?}", batch(&ids[..1000])));

    let mut script = site();
    let one = script.snapshots[0].clone();
    script.snapshots = ids.iter().map(|id| with_id(&one, id)).collect();
    let server = Server::start(script);
    let ran = delete(&server, &["--all", "--vm", "web", "--yes"]);
    assert_eq!(ran.exit, 6);
    assert!(
        ran.stderr.contains("1001 snapshots are too many"),
        "{}",
        ran.stderr
    );
    assert_eq!(asked(&server), [""; 0]);
}

fn with_id(snapshot: &v1::Snapshot, id: &str) -> v1::Snapshot {
    v1::Snapshot {
        id: id.into(),
        ..snapshot.clone()
    }
}

#[test]
fn a_dry_run_is_a_plan() {
    let server = Server::start(of_all_ages());
    let plan = |ids: &[&str], options| v1::PlanDeleteSnapshotRequest {
        snapshot_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        options,
    };
    let shown = ask(&server, ["snapshot", "plan", OLD]).shown();
    let dry = ask(&server, ["snapshot", "delete", OLD, "--dry-run", "--wait"]).shown();
    assert_eq!(dry, shown);
    let wanted = format!("{:?}", plan(&[OLD], None));
    assert_eq!(asked(&server), [wanted.as_str(), &wanted]);

    let options = v1::MergeOptions {
        direction: v1::MergeDirection::Pull.into(),
        bytes_per_second: 3000,
    };
    let how = ["--direction", "pull", "--bandwidth", "3kB"];
    let several = [OLD, OLDER, "--vm", "web"];
    let wanted = format!("{:?}", plan(&[OLD, OLDER], Some(options)));
    for command in [
        &["snapshot", "plan"][..],
        &["snapshot", "delete", "--dry-run"],
    ] {
        ask(&server, command.iter().chain(&several).chain(&how)).shown();
        assert_eq!(server.last_seen(), wanted, "{command:?}");
    }

    // Nobody is asked: nothing is deleted.
    let args = [
        "snapshot",
        "delete",
        "--older-than",
        "7d",
        "--vm",
        "web",
        "--dry-run",
    ];
    let ran = ask(&server, args);
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, shown.as_str()));
    let wanted = plan(&[OLDER, OLD], None);
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
}

#[test]
fn a_plan_that_is_blocked_exits_1() {
    let server = Server::start(Script {
        plan: blocked(),
        ..site()
    });
    let ran = ask(&server, ["snapshot", "plan", "weekly"]);
    assert_eq!(ran.exit, 1);
    insta::assert_snapshot!(format!("{}---\n{}", ran.stdout, ran.stderr), @"
    blocked  STRATEGY_UNSUPPORTED  disk vdb                                       a layer lies outside the storage domains
    blocked  SNAPSHOT_NOT_READY    snapshot bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb  it is being deleted
    ---
    error: the delete would be refused for 2 reasons
    reason: STRATEGY_UNSUPPORTED
    hint: `livemerge snapshot plan SNAPSHOT` says what is possible, with --direction or without
    ");
    let json = ask(
        &server,
        ["snapshot", "delete", "weekly", "--dry-run", "-o", "json"],
    );
    assert_eq!((json.exit, &json.stderr), (1, &ran.stderr));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let about = |n: usize| &json["blockers"][n];
    assert_eq!(about(0)["reason"], "STRATEGY_UNSUPPORTED");
    assert_eq!(about(0)["metadata"]["disk"], "vdb");
    assert_eq!(about(1)["snapshot_id"], WEEKLY);
    assert_eq!(about(1)["disk"], serde_json::Value::Null);
}
