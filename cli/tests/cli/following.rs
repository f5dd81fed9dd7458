//! `event watch`: what is written, restarts of the server, tokens, Ctrl-C.

use crate::data::{FAILED, WEB, site};
use crate::program::{Running, ask, client};
use crate::server::{LogStep, Script, Server};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tonic::Status;

/// A site whose watches of the log go like this, one after the other.
fn watched(watches: impl IntoIterator<Item = Vec<LogStep>>) -> Script {
    Script {
        log_watches: watches.into_iter().collect(),
        ..site()
    }
}

fn failure(reason: Reason, text: &str) -> LogStep {
    LogStep::Fail(Problem::new(reason, text).into())
}

fn draining() -> LogStep {
    failure(Reason::ServerDraining, "the server is stopping")
}

/// Ends a watch for good, so that a test need not.
fn expired() -> LogStep {
    failure(Reason::ResumeTokenExpired, "another log")
}

fn from_now() -> v1::WatchEventsRequest {
    v1::WatchEventsRequest::default()
}

fn behind(revision: i64) -> v1::WatchEventsRequest {
    v1::WatchEventsRequest {
        resume_token: format!("behind-{revision}"),
        ..from_now()
    }
}

fn asked(requests: &[v1::WatchEventsRequest]) -> Vec<String> {
    requests
        .iter()
        .map(|request| format!("{request:?}"))
        .collect()
}

#[test]
fn events_are_written_as_they_come() {
    let steps = vec![
        LogStep::Heartbeat(0),
        LogStep::Event(1),
        LogStep::Heartbeat(1),
        LogStep::Event(3),
        expired(),
    ];
    let server = Server::start(watched([steps]));
    let ran = ask(&server, ["event", "watch"]);
    assert_eq!(ran.exit, 6);
    insta::assert_snapshot!(ran.stdout, @"
    2026-01-01T12:00:00Z  info     host_up                   host-1 answers
    2026-01-01T12:00:03Z  error    snapshot_delete_failed    weekly
    ");
    assert!(
        ran.stderr
            .starts_with("error: another log\nreason: RESUME_TOKEN_EXPIRED\n")
    );
}

#[test]
fn a_script_gets_the_token_with_each_event() {
    let steps = vec![LogStep::Event(1), LogStep::Event(2), expired()];
    let server = Server::start(watched([steps]));
    let ran = ask(&server, ["event", "watch", "--output", "json"]);
    let listed = ask(&server, ["event", "list", "--output", "json"]).shown();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let written: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(written.len(), 2);
    for (mut written, listed) in written.into_iter().zip(listed) {
        let token = written.as_object_mut().unwrap().remove("resume_token");
        let revision = &listed["revision"];
        assert_eq!(token, Some(format!("behind-{revision}").into()));
        assert_eq!(written, listed, "all that a list gives");
    }
}

#[test]
fn what_breaks_a_watch_off_is_gone_on_behind() {
    let server = Server::start(watched([
        vec![LogStep::Heartbeat(0), draining()],
        vec![LogStep::Event(1), LogStep::Event(2), LogStep::End],
        vec![LogStep::Heartbeat(2), draining()],
        vec![LogStep::Event(3), expired()],
    ]));
    let ran = ask(&server, ["event", "watch"]);
    assert_eq!(ran.exit, 6, "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 3, "{}", ran.stdout);
    let wanted = asked(&[from_now(), behind(0), behind(2), behind(2)]);
    assert_eq!(server.seen(), wanted);
    assert_eq!(ran.stderr.matches("trying again\n").count(), 3);
    assert_eq!(ran.stderr.matches("the server answers again\n").count(), 3);
}

#[test]
fn the_command_line_says_which_and_from_where() {
    let server = Server::start(watched(std::iter::repeat_n(vec![expired()], 3)));
    let filter = [
        "event",
        "watch",
        "--vm",
        "web",
        "--operation",
        FAILED,
        "--severity",
        "warning",
        "--type",
        "host_up",
        "--type",
        "volume_removed",
    ];
    let wanted = v1::WatchEventsRequest {
        vm_id: WEB.into(),
        operation_id: FAILED.into(),
        least_severity: v1::EventSeverity::Warning.into(),
        types: vec![
            v1::EventType::HostUp.into(),
            v1::EventType::VolumeRemoved.into(),
        ],
        ..from_now()
    };
    assert_eq!(ask(&server, filter).exit, 6);
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
    ask(&server, ["event", "watch", "--from-start"]);
    let from_start = v1::WatchEventsRequest {
        from_start: true,
        ..from_now()
    };
    assert_eq!(server.last_seen(), format!("{from_start:?}"));
    ask(&server, ["event", "watch", "--since-token", "behind-7"]);
    assert_eq!(server.last_seen(), format!("{:?}", behind(7)));
    for refused in [
        &["--since-token", "x", "--from-start"][..],
        &["--type", "tea"],
        &["--type", "unspecified"],
        &["--severity", "much"],
    ] {
        let args = ["event", "watch"].iter().chain(refused);
        assert_eq!(ask(&server, args).exit, 2, "{refused:?}");
    }
}

#[test]
fn a_list_has_the_same_filters() {
    let server = Server::start(site());
    let rows = |args: &[&str]| {
        let args = ["event", "list"].iter().chain(args);
        ask(&server, args).shown().lines().count() - 1
    };
    assert_eq!(rows(&["--severity", "error"]), 1);
    assert_eq!(rows(&["--severity", "info"]), 3);
    assert_eq!(
        rows(&["--type", "host_up", "--type", "snapshot_delete_failed"]),
        2
    );
}

#[test]
fn from_the_start_means_it_once() {
    let server = Server::start(watched([
        vec![LogStep::Event(1), draining()],
        vec![expired()],
    ]));
    ask(&server, ["event", "watch", "--from-start"]);
    let requests = server.seen();
    assert!(requests[0].contains("from_start: true"), "{requests:?}");
    assert_eq!(requests[1], format!("{:?}", behind(1)));
}

#[test]
fn the_end_of_the_time_names_the_command_that_goes_on() {
    let server = Server::start(watched([vec![LogStep::Event(1)]]));
    let args = ["event", "watch", "--vm", WEB, "--timeout", "300ms"];
    let ran = ask(&server, args);
    assert_eq!(ran.exit, 5, "{}", ran.stderr);
    let address = server.address();
    let again =
        format!("livemerge --server {address} event watch --vm {WEB} --since-token behind-1");
    assert!(
        ran.stderr.ends_with(&format!("hint: go on: {again}\n")),
        "{}",
        ran.stderr
    );
}

#[test]
fn ctrl_c_names_the_command_that_goes_on() {
    let server = Server::start(watched([vec![LogStep::Event(1), draining()]]));
    let mut command = client(&server);
    let mut running = Running::start(command.args(["event", "watch", "--severity", "info"]));
    running.says("trying again");
    let pid = Pid::from_raw(i32::try_from(running.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ran = running.end();
    assert_eq!((ran.exit, ran.stdout.lines().count()), (130, 1));
    let address = server.address();
    let again =
        format!("livemerge --server {address} event watch --severity info --since-token behind-1");
    let said = format!("error: interrupted\nhint: go on: {again}\n");
    assert!(ran.stderr.ends_with(&said), "{}", ran.stderr);
}

#[test]
fn a_reader_that_is_gone_ends_a_watch_quietly() {
    let server = Server::start(watched([vec![LogStep::Event(1)]]));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = client(&server)
        .args(["event", "watch"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn an_event_does_not_steer_the_terminal() {
    let mut script = watched([vec![LogStep::Event(1), expired()]]);
    script.events[0].message = "a\u{1b}[31mb\nc".into();
    let ran = ask(&Server::start(script), ["event", "watch"]);
    assert_eq!(ran.stdout.lines().count(), 1);
    assert!(
        ran.stdout.ends_with("a\\u{1b}[31mb\\nc\n"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_status_of_somebody_else_is_tried_again_only_if_it_may_get_better() {
    let broken = LogStep::Fail(Status::internal("a fault"));
    let server = Server::start(watched([vec![LogStep::Event(1), broken]]));
    let ran = ask(&server, ["event", "watch"]);
    assert_eq!((ran.exit, ran.stderr.as_str()), (70, "error: a fault\n"));
}
