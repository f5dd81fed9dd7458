//! `operation cancel`, `operation limit`, and how a wait ends that ends cancelled.

use crate::data::{NOWHERE, RUNNING, cancelled, failed, left, merged, merging, site};
use crate::program::{Running, ask, client};
use crate::server::{Script, Server, Step};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;

/// An operation that ends like this when it is watched.
fn ends(operation: v1::Operation) -> Script {
    let asked = v1::Operation {
        cancel_requested: true,
        ..merging()
    };
    Script {
        watches: [vec![Step::Send(asked), Step::Send(operation.clone())]].into(),
        waits: [operation].into(),
        snapshots: left(),
        ..site()
    }
}

#[test]
fn a_wait_that_ends_cancelled_exits_7_and_says_what_is_left() {
    let mut told = Vec::new();
    for wait in ["watch", "wait"] {
        let server = Server::start(ends(cancelled()));
        let ran = ask(&server, ["operation", wait, RUNNING]);
        assert_eq!(ran.exit, 7, "{}", ran.stderr);
        assert!(ran.stdout.contains("cancelled"), "{}", ran.stdout);
        let error = ran.stderr.find("error: ").unwrap();
        told.push(ran.stderr[error..].to_owned());
    }
    assert_eq!(told[0], told[1]);
    insta::assert_snapshot!(told[0], @"
    error: operation dddddddd-dddd-4ddd-8ddd-dddddddddddd was cancelled
    ready: daily: as it was
    incomplete: weekly: can be deleted again, and not be reverted to
    gone: 99999999-9999-4999-8999-999999999999: deleted before the end
    ");
}

#[test]
fn a_delete_that_somebody_cancels_exits_7() {
    let server = Server::start(ends(cancelled()));
    let args = ["snapshot", "delete", "weekly", "--wait", "-o", "json"];
    let ran = ask(&server, args);
    assert_eq!(ran.exit, 7);
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown["state"], "cancelled");
    assert!(
        ran.stderr.contains("\nincomplete: weekly"),
        "{}",
        ran.stderr
    );
    let steps = "merging (vda copying, vdb planned), its end was asked for\n";
    assert!(ran.stderr.contains(steps), "{}", ran.stderr);
}

#[test]
fn an_operation_has_ended_though_nobody_says_what_is_left() {
    let server = Server::start(Script {
        watches: [vec![
            Step::Send(merging()),
            Step::Gate,
            Step::Send(cancelled()),
        ]]
        .into(),
        ..site()
    });
    let mut command = client(&server);
    let mut running = Running::start(command.args(["operation", "watch", RUNNING]));
    running.says("merging");
    server.refuse(Problem::new(Reason::StoreUnavailable, "the disk is full").into());
    server.open_gate();
    let ran = running.end();
    assert_eq!(ran.exit, 7, "{}", ran.stderr);
    let left = "was cancelled\nleft: not known: the disk is full\n";
    assert!(ran.stderr.ends_with(left), "{}", ran.stderr);
}

#[test]
fn a_cancel_asks_once() {
    let server = Server::start(site());
    let shown = ask(&server, ["operation", "cancel", RUNNING]).shown();
    assert!(shown.contains("its end was asked for"), "{shown}");
    let wanted = v1::CancelOperationRequest {
        operation_id: RUNNING.into(),
    };
    assert_eq!(server.seen(), [format!("{wanted:?}")]);
    let ran = ask(&server, ["operation", "cancel", NOWHERE]);
    assert_eq!(ran.exit, 3);
    assert!(
        ran.stderr.contains("reason: OPERATION_NOT_FOUND\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_cancel_that_waits_succeeds_when_it_is_cancelled() {
    let cancel = |ended| {
        let server = Server::start(ends(ended));
        ask(&server, ["operation", "cancel", RUNNING, "--wait"])
    };
    let ran = cancel(cancelled());
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    let left = "operation dddddddd-dddd-4ddd-8ddd-dddddddddddd: cancelled\n\
        ready: daily: as it was\n\
        incomplete: weekly: can be deleted again, and not be reverted to\n\
        gone: 99999999-9999-4999-8999-999999999999: deleted before the end\n";
    assert!(ran.stderr.ends_with(left), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout);

    let ran = cancel(merged());
    assert_eq!(ran.exit, 4, "{}", ran.stderr);
    assert!(ran.stdout.contains("succeeded"), "{}", ran.stdout);
    let late = format!("error: operation {RUNNING} was done before it could be cancelled\n");
    assert!(ran.stderr.ends_with(&late), "{}", ran.stderr);

    let ran = cancel(failed());
    assert_eq!(ran.exit, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("reason: VM_DIED\n"), "{}", ran.stderr);
}

#[test]
fn a_cancel_can_come_too_late() {
    let server = Server::start(site());
    server.refuse(Problem::new(Reason::PointOfNoReturn, "the guest is being switched").into());
    let ran = ask(&server, ["operation", "cancel", RUNNING, "--wait"]);
    assert_eq!(ran.exit, 4);
    insta::assert_snapshot!(ran.stderr, @"
    error: the guest is being switched
    reason: POINT_OF_NO_RETURN
    hint: it goes on to its end; `livemerge operation watch OPERATION` shows it
    ");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_limit_goes_to_the_server() {
    let server = Server::start(site());
    for (rate, bytes) in [
        ("0", 0),
        ("50MiB", 50 << 20),
        ("2MB/s", 2_000_000),
        ("7 kB", 7000),
    ] {
        let shown = ask(&server, ["operation", "limit", RUNNING, rate]).shown();
        assert_eq!(shown.contains("\nlimit "), bytes > 0, "{shown}");
        let wanted = v1::UpdateOperationRequest {
            operation_id: RUNNING.into(),
            bytes_per_second: bytes,
        };
        assert_eq!(server.last_seen(), format!("{wanted:?}"));
    }
    server.refuse(Problem::new(Reason::ConcurrentChange, "it has ended").into());
    assert_eq!(
        ask(&server, ["operation", "limit", RUNNING, "1GiB"]).exit,
        4
    );
}
