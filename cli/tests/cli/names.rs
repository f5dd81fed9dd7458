//! Machines and snapshots by name.

use crate::data::{DAILY, DB, DB_DAILY, OTHER_DB, WEB, site};
use crate::program::ask;
use crate::server::Server;

#[test]
fn a_name_that_fits_several_is_refused_with_the_candidates() {
    let server = Server::start(site());
    let ran = ask(&server, ["vm", "get", "db"]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (6, ""));
    let (first, second) = (
        format!("{DB} on host host-1"),
        format!("{OTHER_DB} on host host-2"),
    );
    let wanted = "error: the name db fits 2; give the id of one";
    assert_eq!(
        ran.stderr,
        format!("{wanted}\ncandidate: {first}\ncandidate: {second}\n")
    );

    let ran = ask(&server, ["snapshot", "delete", "daily", "--allow-missing"]);
    assert_eq!(ran.exit, 6);
    assert!(
        ran.stderr
            .contains(&format!("candidate: {DAILY} of machine {WEB}\n"))
    );
    assert!(
        ran.stderr
            .contains(&format!("candidate: {DB_DAILY} of machine {DB}\n"))
    );
    let asked = server.seen();
    assert!(
        !asked
            .iter()
            .any(|request| request.starts_with("DeleteSnapshot")),
        "{asked:?}"
    );
}

#[test]
fn the_machine_narrows_a_snapshots_name() {
    let server = Server::start(site());
    for vm in ["web", WEB] {
        let shown = ask(&server, ["snapshot", "get", "daily", "--vm", vm]).shown();
        assert!(shown.contains(DAILY), "{shown}");
    }
    ask(&server, ["snapshot", "delete", "daily", "--vm", DB]).shown();
    assert!(server.last_seen().contains(DB_DAILY));
}

#[test]
fn an_id_is_not_looked_up() {
    let server = Server::start(site());
    ask(&server, ["vm", "get", WEB]).shown();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn an_unknown_name_is_not_found() {
    let server = Server::start(site());
    let ran = ask(&server, ["vm", "chain", "nobody"]);
    assert_eq!(ran.exit, 3);
    insta::assert_snapshot!(ran.stderr, @"
    error: no virtual machine is named nobody
    reason: VM_NOT_FOUND
    hint: `livemerge vm list` lists the machines that hosts have reported
    ");
    let ran = ask(&server, ["snapshot", "get", "nothing"]);
    assert_eq!(ran.exit, 3);
    assert!(
        ran.stderr.contains("reason: SNAPSHOT_NOT_FOUND\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn no_name_steers_the_terminal() {
    const NASTY: &str = "web\x1b[2J\u{9b}31m\u{202e}\n";
    let mut script = site();
    script.vms[0].name = NASTY.into();
    script.snapshots[0].name = NASTY.into();
    script.snapshots[0].description = NASTY.into();
    script.chains[0].disk = NASTY.into();
    script.chains[0].layers[0].volume.as_mut().unwrap().name = NASTY.into();
    script.operations[0].snapshot_name = NASTY.into();
    script.operations[1].failure.as_mut().unwrap().message = NASTY.into();
    script.plan.merges[0].disk = NASTY.into();
    script.plan.merges[1].removed[0].name = NASTY.into();
    script.events[0].message = NASTY.into();
    script.hosts[0].version = NASTY.into();
    let server = Server::start(script);
    let operations = [crate::data::RUNNING, crate::data::FAILED];
    let commands = [
        &["host", "list"][..],
        &["host", "get", "host-1"],
        &["vm", "list"],
        &["vm", "get", WEB],
        &["vm", "chain", WEB],
        &["snapshot", "list", WEB],
        &["snapshot", "get", DAILY],
        &["snapshot", "plan", DAILY],
        &["operation", "list"],
        &["operation", "get", operations[0]],
        &["operation", "get", operations[1]],
        &["event", "list"],
    ];
    let harmless = |text: &str| {
        !text
            .chars()
            .any(|c| (c.is_control() && c != '\n') || c == '\u{202e}')
    };
    for command in commands {
        for form in ["table", "json"] {
            let shown = ask(&server, command.iter().chain(&["-o", form])).shown();
            assert!(harmless(&shown), "{command:?} {form}: {shown:?}");
            assert!(
                shown.contains("[2J"),
                "{command:?} {form} does not show it: {shown}"
            );
        }
    }
    server.refuse(tonic::Status::not_found(NASTY));
    let ran = ask(&server, ["vm", "get", WEB]);
    assert_eq!(ran.stderr, "error: web\\u{1b}[2J\\u{9b}31m\\u{202e}\\n\n");
}
