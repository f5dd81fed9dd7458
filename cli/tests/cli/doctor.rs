//! `livemerge doctor`: both forms, its exit codes, and what it asks the server.

use crate::data::{DB, LEAKED, NOWHERE, RUNNING, STUCK, WEB, merging, site};
use crate::program::{Ran, ask};
use crate::server::{Script, Server};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;

/// The site without what is an error there.
fn sound() -> Script {
    let mut script = site();
    script
        .findings
        .retain(|found| found.severity() != v1::FindingSeverity::Error);
    script
}

#[test]
fn an_error_is_shown_and_exits_1() {
    let server = Server::start(site());
    let Ran {
        exit,
        stdout,
        stderr,
    } = ask(&server, ["doctor"]);
    assert_eq!(exit, 1);
    insta::assert_snapshot!("doctor_table", stdout);
    insta::assert_snapshot!(stderr, @"
    error: 1 finding is an error
    hint: `livemerge doctor --repair FINDING` applies the repair that a finding names
    ");
    let json = ask(&server, ["doctor", "-o", "json"]);
    assert_eq!((json.exit, &json.stderr), (1, &stderr));
    insta::assert_snapshot!("doctor_json", json.stdout);
}

#[test]
fn warnings_are_no_failure() {
    let server = Server::start(sound());
    let shown = ask(&server, ["doctor"]).shown();
    assert_eq!(shown.lines().count(), 3, "{shown}");
}

#[test]
fn nothing_to_find() {
    let server = Server::start(Script {
        findings: vec![],
        ..site()
    });
    assert_eq!(ask(&server, ["doctor"]).shown(), "nothing differs\n");
    assert_eq!(ask(&server, ["doctor", "-o", "json"]).shown(), "[]\n");
}

#[test]
fn findings_that_are_left_out_are_counted() {
    let server = Server::start(Script {
        omitted_findings: 7,
        ..sound()
    });
    let ran = ask(&server, ["doctor"]);
    assert_eq!(
        (ran.exit, ran.stderr.as_str()),
        (0, "7 more findings are not shown\n")
    );
}

#[test]
fn the_look_is_filtered() {
    let server = Server::start(site());
    let ids = |args: &[&str]| {
        let json = ask(&server, args.iter().chain(&["-o", "json"])).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let items = json.as_array().unwrap().iter();
        items
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&["doctor", "--vm", "web"]), [STUCK]);
    assert_eq!(ids(&["doctor", "--vm", DB]), [LEAKED]);
    assert_eq!(ids(&["doctor", "--host", "host-1"]), [STUCK, LEAKED]);
    let args = ["doctor", "--vm", WEB, "--host", "host-1"];
    assert_eq!(ids(&args), [STUCK]);
    let wanted = v1::CheckConsistencyRequest {
        vm_id: WEB.into(),
        host_id: "host-1".into(),
    };
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
    let nobody = ask(&server, ["doctor", "--vm", "nobody"]);
    assert_eq!(nobody.exit, 3, "{}", nobody.stderr);
}

#[test]
fn a_repair_names_its_finding_and_its_request() {
    let server = Server::start(site());
    let args = ["doctor", "--repair", LEAKED, "--request-id", NOWHERE];
    insta::assert_snapshot!(ask(&server, args).shown(), @"
    finding    0000000000000002-00000000000000bb
    outcome    done
    operation  -
    freed      3.00 MiB
    ");
    let wanted = v1::ApplyRepairRequest {
        request_id: NOWHERE.into(),
        finding_id: LEAKED.into(),
    };
    assert_eq!(server.last_seen(), format!("{wanted:?}"));
}

#[test]
fn a_repair_that_goes_on_names_its_operation() {
    let server = Server::start(Script {
        repaired: v1::ApplyRepairResponse {
            outcome: v1::RepairOutcome::Started.into(),
            operation: Some(merging()),
            freed_bytes: 0,
        },
        ..site()
    });
    let shown = ask(&server, ["doctor", "--repair", STUCK, "-o", "json"]).shown();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["outcome"], "started");
    assert_eq!(shown["operation_id"], RUNNING);
    assert_eq!(shown["finding_id"], STUCK);
}

#[test]
fn a_refused_repair_says_why_and_how_to_repeat_it() {
    let server = Server::start(site());
    server.refuse(Problem::new(Reason::NoSafeRepair, "nothing is safe to apply: look").into());
    let ran = ask(
        &server,
        ["doctor", "--repair", LEAKED, "--request-id", NOWHERE],
    );
    assert_eq!((ran.exit, ran.stdout.as_str()), (4, ""));
    insta::assert_snapshot!(ran.stderr, @"
    error: nothing is safe to apply: look
    reason: NO_SAFE_REPAIR
    hint: The finding has no repair that is safe to apply; its text says why and what to do instead.
    request-id: 99999999-9999-4999-8999-999999999999
    ");
}
