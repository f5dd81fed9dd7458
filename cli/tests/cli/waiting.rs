//! `--wait`, `operation watch` and `operation wait`: progress, restarts of the server, Ctrl-C.

use crate::data::{FAILED, RUNNING, WEEKLY, failed, merged, merging, queued, site, waiting};
use crate::program::{Running, ask, client};
use crate::server::{Script, Server, Step};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use tonic::Status;

/// A site whose watches go like this, one after the other.
fn watched(watches: impl IntoIterator<Item = Vec<Step>>) -> Script {
    Script {
        watches: watches.into_iter().collect(),
        ..site()
    }
}

fn delete_and_wait(server: &Server) -> Command {
    let mut command = client(server);
    command.args(["snapshot", "delete", WEEKLY, "--wait"]);
    command
}

#[test]
fn one_line_for_each_change_of_phase() {
    let steps = [
        queued(),
        merging(),
        merging(),
        waiting(),
        merging(),
        merged(),
    ];
    let server = Server::start(watched([steps.map(Step::Send).to_vec()]));
    let ran = Running::start(&mut delete_and_wait(&server)).end();
    assert_eq!(ran.exit, 0);
    insta::assert_snapshot!(ran.stderr, @"
    operation dddddddd-dddd-4ddd-8ddd-dddddddddddd: queued
    operation dddddddd-dddd-4ddd-8ddd-dddddddddddd: merging (vda copying, vdb planned)
    operation dddddddd-dddd-4ddd-8ddd-dddddddddddd: merging (vda copying, vdb planned), waits: the host does not answer
    operation dddddddd-dddd-4ddd-8ddd-dddddddddddd: merging (vda copying, vdb planned)
    operation dddddddd-dddd-4ddd-8ddd-dddddddddddd: done
    ");
    assert!(ran.stdout.contains("succeeded"), "{}", ran.stdout);
}

#[test]
fn create_waits_too() {
    let server = Server::start(watched([vec![Step::Send(merged())]]));
    let ran = ask(
        &server,
        [
            "snapshot", "create", "web", "--name", "n", "--wait", "-o", "json",
        ],
    );
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown["state"], "succeeded");
}

#[test]
fn the_failure_of_an_operation_exits_1() {
    let server = Server::start(watched([vec![Step::Send(failed())]]));
    let ran = ask(&server, ["operation", "watch", FAILED]);
    assert_eq!(ran.exit, 1);
    assert!(
        ran.stderr
            .contains("failed: the machine stopped\nreason: VM_DIED\n")
    );
}

#[test]
fn a_watch_survives_a_restart_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let first = Server::on_socket(&socket, watched([vec![Step::Send(merging())]]));
    let mut command = delete_and_wait(&first);
    let mut running = Running::start(&mut command);
    running.says("merging (vda copying, vdb planned)");
    drop(first);
    running.says("the operation goes on, trying again");
    hang_up(&socket, 3);
    let second = Server::on_socket(&socket, watched([vec![Step::Send(merged())]]));
    running.says("the server answers again");
    let ran = running.end();
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stderr.matches("trying again").count(),
        1,
        "{}",
        ran.stderr
    );
    // It was deleted once; only the watch was repeated.
    assert_eq!(
        second.seen(),
        [format!(
            "WatchOperationRequest {{ operation_id: \"{RUNNING}\" }}"
        )]
    );
}

/// Takes so many connections and drops each.
fn hang_up(socket: &Path, times: usize) {
    std::fs::remove_file(socket).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    for _ in 0..times {
        drop(listener.accept().unwrap());
    }
}

#[test]
fn a_quiet_wait_survives_a_restart_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let first = Server::on_socket(
        &socket,
        Script {
            waits: [merging()].into(),
            ..site()
        },
    );
    let mut command = client(&first);
    let mut running = Running::start(command.args(["operation", "wait", RUNNING]));
    // The first answer was not the end, so it has asked again.
    while first.seen().len() < 2 {
        std::thread::yield_now();
    }
    drop(first);
    running.says("the operation goes on, trying again");
    let _second = Server::on_socket(
        &socket,
        Script {
            waits: [merged()].into(),
            ..site()
        },
    );
    running.says("the server answers again");
    let ran = running.end();
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("succeeded"));
}

#[test]
fn what_breaks_a_watch_off_is_no_end() {
    let draining: Status = Problem::new(Reason::ServerDraining, "the server is stopping").into();
    let breaks = [Step::Fail(draining), Step::End];
    let mut watches: Vec<_> = breaks.map(|step| vec![Step::Send(merging()), step]).into();
    watches.push(vec![Step::Send(merged())]);
    let server = Server::start(watched(watches));
    let ran = ask(&server, ["operation", "watch", RUNNING]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert_eq!(
        ran.stderr.matches("trying again").count(),
        2,
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains("the server is stopping; the operation goes on")
    );
}

#[test]
fn what_cannot_get_better_ends_a_watch() {
    let gone: Status = Problem::new(Reason::OperationNotFound, "no such operation").into();
    let server = Server::start(watched([vec![Step::Fail(gone)]]));
    let ran = ask(&server, ["operation", "watch", RUNNING]);
    assert_eq!(ran.exit, 3, "{}", ran.stderr);
    assert!(!ran.stderr.contains("trying again"));
}

#[test]
fn the_time_ends_the_wait_and_not_the_operation() {
    let server = Server::start(watched([vec![Step::Send(merging())]]));
    let address = server.address().to_owned();
    let ran = ask(
        &server,
        ["operation", "watch", RUNNING, "--timeout", "300ms"],
    );
    assert_eq!((ran.exit, ran.stdout.as_str()), (5, ""));
    let again = format!("livemerge --server {address} operation watch {RUNNING}");
    assert!(
        ran.stderr.contains("error: the time is over\n"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr
            .contains(&format!("hint: watch it again: {again}\n")),
        "{}",
        ran.stderr
    );
    // Nobody there at all: the same end.
    drop(server);
    let args = [
        "--server",
        &address,
        "operation",
        "watch",
        RUNNING,
        "--timeout",
        "300ms",
    ];
    let ran = crate::program::run(crate::program::livemerge().args(args));
    assert_eq!(ran.exit, 5, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("the operation goes on, trying again\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn ctrl_c_says_that_the_operation_goes_on() {
    let server = Server::start(watched([vec![Step::Send(merging())]]));
    let mut running = Running::start(&mut delete_and_wait(&server));
    running.says("merging");
    let pid = Pid::from_raw(i32::try_from(running.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ran = running.end();
    assert_eq!((ran.exit, ran.stdout.as_str()), (130, ""));
    let address = server.address();
    let again = format!("livemerge --server {address} operation watch {RUNNING}");
    let said =
        format!("error: interrupted; operation {RUNNING} goes on\nhint: watch it again: {again}\n");
    assert!(ran.stderr.ends_with(&said), "{}", ran.stderr);
}
