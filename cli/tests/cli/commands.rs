//! Every command in both forms, against recorded output; and what it asked the server.

use crate::data::{
    DB, DONE, FAILED, KEPT, NOWHERE, RUNNING, WEB, WEEKLY, failed, merged, merging, site, waiting,
};
use crate::program::{Ran, ask, client, livemerge, run};
use crate::server::{Script, Server, Step};
use livemerge_proto::v1;

/// Both forms of a command that must succeed, one below the other.
#[track_caller]
fn both(server: &Server, args: &[&str]) -> String {
    let table = ask(server, args).shown();
    let json = ask(server, args.iter().chain(&["--output", "json"])).shown();
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    format!("{table}---\n{json}")
}

macro_rules! records {
    ($($test:ident: $args:expr;)*) => {$(
        #[test]
        fn $test() {
            insta::assert_snapshot!(both(&Server::start(site()), &$args));
        }
    )*};
}

records! {
    host_list: ["host", "list"];
    host_get: ["host", "get", "host-1"];
    host_register: ["host", "register", "host-9", "--endpoint", "unix:/run/agent.sock"];
    host_maintenance: ["host", "maintenance", "host-2", "on"];
    vm_list: ["vm", "list"];
    vm_list_of_a_host: ["vm", "list", "--host", "host-2"];
    vm_get: ["vm", "get", "web"];
    vm_chain: ["vm", "chain", "web"];
    vm_chain_of_a_disk: ["vm", "chain", WEB, "--disk", "vdb"];
    snapshot_create: ["snapshot", "create", "web", "--name", "n", "--description", "d"];
    snapshot_get: ["snapshot", "get", "weekly"];
    snapshot_list: ["snapshot", "list", "web"];
    snapshot_list_of_all: ["snapshot", "list", "-"];
    snapshot_delete: ["snapshot", "delete", "weekly"];
    snapshot_plan: ["snapshot", "plan", "weekly"];
    volume_storages: ["volume", "storages"];
    volume_storages_of_a_host: ["volume", "storages", "--host", "host-2"];
    volume_removed: ["volume", "removed"];
    volume_restore: ["volume", "restore", "default", KEPT];
    operation_cancel: ["operation", "cancel", RUNNING];
    operation_limit: ["operation", "limit", RUNNING, "50MiB"];
    operation_get: ["operation", "get", RUNNING];
    operation_get_failed: ["operation", "get", FAILED];
    operation_list: ["operation", "list"];
    event_list: ["event", "list"];
}

#[test]
fn operation_get_waiting() {
    let server = Server::start(Script {
        operations: vec![waiting()],
        ..site()
    });
    let shown = ask(&server, ["operation", "get", RUNNING]).shown();
    let line = shown
        .lines()
        .find(|line| line.starts_with("waits"))
        .unwrap();
    insta::assert_snapshot!(line, @"waits         HOST_UNREACHABLE: the host does not answer, tries: 2, next: 2026-01-01T12:00:09Z");
}

#[test]
fn operation_wait_and_watch() {
    let ended = || Script {
        waits: [merged(), merged()].into(),
        ..site()
    };
    insta::assert_snapshot!(both(
        &Server::start(ended()),
        &["operation", "wait", RUNNING]
    ));
    let steps = vec![Step::Send(merging()), Step::Send(merged())];
    let server = Server::start(Script {
        watches: [steps].into(),
        ..site()
    });
    let Ran {
        exit,
        stdout,
        stderr,
    } = ask(&server, ["operation", "watch", RUNNING, "-o", "json"]);
    assert_eq!(exit, 0, "{stderr}");
    // One document a line for each change.
    let states = stdout
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let states: Vec<_> = states.map(|document| document["state"].clone()).collect();
    assert_eq!(states, ["running", "succeeded"]);
}

#[test]
fn requests_carry_what_the_command_line_says() {
    let server = Server::start(site());
    let args = [
        "snapshot",
        "create",
        WEB,
        "--name",
        "n",
        "--description",
        "d",
    ];
    ask(&server, args.iter().chain(&["--request-id", NOWHERE])).shown();
    let wanted = v1::CreateSnapshotRequest {
        request_id: NOWHERE.into(),
        vm_id: WEB.into(),
        name: "n".into(),
        description: "d".into(),
        quiesce: v1::Quiesce::IfPossible.into(),
        ..Default::default()
    };
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
    for (word, quiesce) in [
        ("if-possible", v1::Quiesce::IfPossible),
        ("required", v1::Quiesce::Required),
        ("never", v1::Quiesce::Never),
    ] {
        let wanted = v1::CreateSnapshotRequest {
            quiesce: quiesce.into(),
            ..wanted.clone()
        };
        let args = args.iter().chain(&["--request-id", NOWHERE]);
        ask(&server, args.chain(&["--quiesce", word])).shown();
        assert_eq!(server.last_seen(), format!("{wanted:?}"));
    }

    let args = [
        "--request-id",
        NOWHERE,
        "snapshot",
        "delete",
        WEEKLY,
        "--etag",
        "3",
    ];
    ask(&server, args.iter().chain(&["--allow-missing"])).shown();
    let wanted = v1::DeleteSnapshotRequest {
        request_id: NOWHERE.into(),
        snapshot_id: WEEKLY.into(),
        etag: "3".into(),
        allow_missing: true,
        options: None,
    };
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
}

#[test]
fn request_ids_are_fresh() {
    let server = Server::start(site());
    for _ in 0..2 {
        ask(&server, ["snapshot", "delete", WEEKLY]).shown();
    }
    let seen = server.seen();
    assert!(
        seen[0].contains("request_id: \"") && seen[0] != seen[1],
        "{seen:?}"
    );
}

#[test]
fn lists_are_filtered() {
    let server = Server::start(site());
    let ids = |args: &[&str]| {
        let json = ask(&server, args.iter().chain(&["-o", "json"])).shown();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let items = json.as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&["operation", "list"]), [RUNNING, FAILED, DONE]);
    assert_eq!(ids(&["operation", "list", "--limit", "1"]), [RUNNING]);
    assert_eq!(ids(&["operation", "list", "--limit", "0"]), [""; 0]);
    assert_eq!(ids(&["operation", "list", "--vm", DB]), [DONE]);
    let states = [
        "operation",
        "list",
        "--state",
        "failed",
        "--state",
        "succeeded",
    ];
    assert_eq!(ids(&states), [FAILED, DONE]);

    let count = |args: &[&str]| ask(&server, args).shown().lines().skip(1).count();
    assert_eq!(count(&["event", "list"]), 3);
    assert_eq!(count(&["event", "list", "--vm", "web"]), 2);
    assert_eq!(count(&["event", "list", "--operation", DONE]), 0);
    assert_eq!(count(&["event", "list", "--limit", "2"]), 2);
}

#[test]
fn a_missing_snapshot_can_be_allowed() {
    let server = Server::start(Script {
        accepted: None,
        ..site()
    });
    for which in ["nameless", NOWHERE] {
        let args = ["snapshot", "delete", which, "--allow-missing", "--wait"];
        let shown = ask(&server, args).shown();
        assert_eq!(shown, "no such snapshot: nothing to delete\n");
        assert_eq!(
            ask(&server, args.iter().chain(&["-o", "json"])).shown(),
            "null\n"
        );
    }
    let ran = ask(
        &server,
        [
            "snapshot",
            "delete",
            "daily",
            "--vm",
            "nowhere",
            "--allow-missing",
        ],
    );
    assert_eq!(ran.exit, 3, "a missing machine is an error: {}", ran.stderr);
}

#[test]
fn a_failed_operation_is_shown_and_exits_1() {
    let server = Server::start(Script {
        waits: [failed()].into(),
        ..site()
    });
    let ran = ask(&server, ["operation", "wait", FAILED, "-o", "json"]);
    assert_eq!(ran.exit, 1);
    let shown: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown["failure"]["reason"], "VM_DIED");
    assert_eq!(shown["failure"]["metadata"]["vm"], WEB);
    insta::assert_snapshot!(ran.stderr, @"
    error: operation eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee failed: the machine stopped
    reason: VM_DIED
    hint: no acknowledged write is lost; start the machine and delete again
    ");
}

#[test]
fn the_server_can_be_named_in_three_ways() {
    let loopback = Server::on_loopback(site());
    assert!(loopback.address().starts_with("http://127.0.0.1:"));
    let by_flag = run(client(&loopback).args(["host", "get", "host-1"])).shown();
    let mut by_environment = livemerge();
    by_environment
        .env("LIVEMERGE_SERVER", loopback.address())
        .args(["host", "get", "host-1"]);
    assert_eq!(run(&mut by_environment).shown(), by_flag);
    let unix = Server::start(site());
    assert!(unix.address().starts_with("unix:/"));
    let mut flag_first = livemerge();
    flag_first.env("LIVEMERGE_SERVER", "http://127.0.0.1:1");
    flag_first.args(["host", "get", "host-1", "--server", unix.address()]);
    assert_eq!(run(&mut flag_first).shown(), by_flag);
}
