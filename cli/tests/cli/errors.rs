//! What is said on stderr when something does not work, and the exit codes.

use crate::data::{NOWHERE, RUNNING, WEB, site};
use crate::program::{ask, client, livemerge, run};
use crate::server::{Script, Server};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::time::Duration;
use tonic::{Code, Status};

/// The contract with scripts, reason by reason.
fn exit_of(reason: Reason) -> i32 {
    match reason {
        Reason::HostNotFound
        | Reason::VmNotFound
        | Reason::DiskNotFound
        | Reason::SnapshotNotFound
        | Reason::OperationNotFound
        | Reason::MergeNotFound
        | Reason::VolumeNotFound
        | Reason::RemovalNotFound => 3,
        Reason::RequestIdReused
        | Reason::SnapshotAlreadyExists
        | Reason::MergeIdConflict
        | Reason::EtagMismatch
        | Reason::WatchConsumerTooSlow
        | Reason::ConcurrentChange
        | Reason::SnapshotIsActiveLayer
        | Reason::SnapshotSharedBase
        | Reason::SnapshotNotReady
        | Reason::SnapshotProtected
        | Reason::VmStateUnknown
        | Reason::HostInMaintenance
        | Reason::AgentIncompatible
        | Reason::VmNotRunning
        | Reason::VmMigrating
        | Reason::GuestAgentUnavailable
        | Reason::ChainDiverged
        | Reason::ChainLacksData
        | Reason::VolumeInUse
        | Reason::RemovalNotKept
        | Reason::StrategyUnsupported
        | Reason::NoSafeRepair
        | Reason::PointOfNoReturn
        | Reason::StaleGeneration
        | Reason::VmDied
        | Reason::CredentialsMissing
        | Reason::CredentialsInvalid
        | Reason::MethodNotPermitted => 4,
        Reason::InsufficientSpace
        | Reason::ServerOverloaded
        | Reason::WatchLimitReached
        | Reason::HostUnreachable
        | Reason::HypervisorUnreachable
        | Reason::StorageUnreachable
        | Reason::StoreUnavailable
        | Reason::PivotPutOff
        | Reason::VmBusy
        | Reason::MergeLimitReached
        | Reason::ServerDraining
        | Reason::DeadlineExceeded => 5,
        Reason::FieldInvalid
        | Reason::PageTokenInvalid
        | Reason::ResumeTokenInvalid
        | Reason::ResumeTokenExpired => 6,
        Reason::ChainCorrupt | Reason::MergeIoError | Reason::InternalBug => 70,
    }
}

#[test]
fn every_reason_has_its_exit_code_and_a_hint() {
    let server = Server::start(site());
    for reason in Reason::ALL {
        let mut problem = Problem::new(*reason, "why it is so");
        // What may be called again is, soon.
        problem.retry_after = problem.retry_after.map(|_| Duration::from_millis(1));
        server.refuse(problem.into());
        let ran = ask(&server, ["vm", "get", WEB]);
        assert_eq!(ran.exit, exit_of(*reason), "{reason}: {}", ran.stderr);
        let lines: Vec<_> = ran.stderr.lines().collect();
        assert_eq!(
            lines[..2],
            ["error: why it is so", &format!("reason: {reason}")]
        );
        assert!(
            lines[2]
                .strip_prefix("hint: ")
                .is_some_and(|hint| !hint.is_empty())
        );
        let traced = lines.get(3).map(|line| line.starts_with("trace: "));
        assert_eq!(traced, (ran.exit == 70).then_some(true), "{reason}");
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn codes_without_a_reason_have_exit_codes_too() {
    let server = Server::start(site());
    let cases = [
        (Code::NotFound, 3),
        (Code::AlreadyExists, 4),
        (Code::PermissionDenied, 4),
        (Code::Unauthenticated, 4),
        (Code::Unavailable, 5),
        (Code::ResourceExhausted, 5),
        (Code::OutOfRange, 6),
    ];
    for (code, exit) in cases {
        server.refuse(Status::new(code, "why"));
        let ran = ask(&server, ["host", "list"]);
        assert_eq!(
            (ran.exit, ran.stderr.as_str()),
            (exit, "error: why\n"),
            "{code:?}"
        );
    }
    // The cause is in the server's log alone.
    for (code, text, error) in [
        (Code::Unknown, "why", "error: why\ntrace: "),
        (Code::Internal, "", "error: Internal error\ntrace: "),
    ] {
        server.refuse(Status::new(code, text));
        let ran = ask(&server, ["host", "list"]);
        let trace = ran.stderr.strip_prefix(error).map(str::trim_end);
        let digits = trace.map(|trace| trace.bytes().filter(u8::is_ascii_hexdigit).count());
        assert_eq!((ran.exit, digits), (70, Some(32)), "{}", ran.stderr);
    }
}

#[test]
fn every_bad_field_is_named() {
    let server = Server::start(site());
    let fields = [
        ("name", "is required"),
        ("description", "must have at most 1024 characters"),
    ];
    let fields = fields.map(|(field, must)| (field.to_owned(), must.to_owned()));
    server.refuse(Problem::fields(fields.to_vec()).into());
    let args = [
        "snapshot",
        "create",
        WEB,
        "--name",
        "",
        "--request-id",
        NOWHERE,
    ];
    let ran = ask(&server, args);
    assert_eq!(ran.exit, 6);
    insta::assert_snapshot!(ran.stderr, @"
    error: `name` is required; `description` must have at most 1024 characters
    field: name is required
    field: description must have at most 1024 characters
    reason: FIELD_INVALID
    hint: correct what the `field:` lines name
    request-id: 99999999-9999-4999-8999-999999999999
    ");
}

#[test]
fn a_failed_change_names_its_request_id() {
    let server = Server::start(site());
    server.refuse(Problem::new(Reason::StoreUnavailable, "the disk is full").into());
    let change = ["host", "register", "host-9", "--endpoint", "http://h:1"];
    let ran = ask(&server, change);
    let id = ran
        .stderr
        .lines()
        .find_map(|line| line.strip_prefix("request-id: "))
        .unwrap();
    assert_eq!(ran.exit, 5);
    assert!(
        server
            .last_seen()
            .contains(&format!("request_id: \"{id}\""))
    );
    // It can be repeated as it was.
    ask(&server, change.iter().chain(&["--request-id", id]));
    let seen = server.seen();
    assert!(seen.iter().all(|request| *request == seen[0]), "{seen:?}");
    assert_eq!(seen.len(), 6, "each command tries three times");
}

#[test]
fn no_server() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("unix:{}/none.sock", dir.path().display());
    for args in [&["host", "list"][..], &["snapshot", "delete", WEB]] {
        let ran = run(livemerge().args(["--server", &nobody]).args(args));
        assert_eq!(ran.exit, 5);
        let error = format!("error: the server at {nobody} cannot be reached: ");
        assert!(ran.stderr.starts_with(&error), "{}", ran.stderr);
        assert!(
            ran.stderr.contains("\nhint: does the server run there?"),
            "{}",
            ran.stderr
        );
        assert_eq!(
            ran.stderr.contains("\nrequest-id: "),
            args.contains(&"delete")
        );
    }
}

#[test]
fn a_server_that_does_not_speak_grpc() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answers = std::thread::spawn(move || {
        use std::io::Write as _;
        let mut stream = listener.accept().unwrap().0;
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let ran = run(livemerge().args(["--server", &address, "host", "list"]));
    answers.join().unwrap();
    assert_eq!(ran.exit, 5, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
}

#[test]
fn the_time_of_a_command_is_bounded() {
    let server = Server::start(Script {
        silent: true,
        ..site()
    });
    let list = &["host", "list"][..];
    for args in [
        list,
        &["snapshot", "delete", WEB],
        &["operation", "wait", RUNNING],
    ] {
        let ran = run(client(&server).args(["--timeout", "100ms"]).args(args));
        assert_eq!(ran.exit, 5, "{}", ran.stderr);
        assert!(
            ran.stderr
                .contains("error: the time is over\nreason: DEADLINE_EXCEEDED\n")
        );
        assert_eq!(
            ran.stderr.contains("request-id: "),
            args.contains(&"delete")
        );
    }
}

#[test]
fn a_failure_of_a_newer_server_keeps_its_reason() {
    use tonic_types::{ErrorDetails, StatusExt as _};
    let server = Server::start(site());
    let details = ErrorDetails::with_error_info("FROM_THE_FUTURE", "livemerge", []);
    server.refuse(Status::with_error_details(
        Code::FailedPrecondition,
        "not now",
        details,
    ));
    let ran = ask(&server, ["host", "list"]);
    assert_eq!(ran.exit, 4);
    assert_eq!(ran.stderr, "error: not now\nreason: FROM_THE_FUTURE\n");
}

#[test]
fn an_answer_without_content_is_a_fault_not_a_panic() {
    let server = Server::start(Script {
        accepted: None,
        ..site()
    });
    let ran = ask(&server, ["snapshot", "delete", WEB]);
    assert_eq!(ran.exit, 70);
    assert_eq!(ran.stderr, "error: the server's answer has no operation\n");
}
