//! The command line itself.

use crate::data::{FAILED, NOWHERE, failed, site};
use crate::program::{ask, livemerge, run};
use crate::server::{Script, Server};

#[test]
fn bad_usage_exits_2() {
    let cases: &[&[&str]] = &[
        &[],
        &["nonsense"],
        &["vm"],
        &["vm", "get"],
        &["snapshot", "create", "web"],
        &["operation", "list", "--state", "lost"],
        &["operation", "list", "--limit", "-1"],
        &["host", "list", "--output", "xml"],
        &["host", "list", "--timeout", "soon"],
        &["host", "list", "--timeout", "0"],
        &["host", "list", "--server", "https://127.0.0.1:1"],
        &["host", "list", "--server", "unix:relative"],
        &["snapshot", "delete", "x", "--request-id", "x"],
        &["snapshot", "delete"],
        &["snapshot", "delete", "--all"],
        &["snapshot", "delete", "--all", "x", "--vm", "web"],
        &[
            "snapshot",
            "delete",
            "--all",
            "--older-than",
            "7d",
            "--vm",
            "web",
        ],
        &["snapshot", "delete", "--all", "--vm", "web", "--etag", "3"],
        &["snapshot", "delete", "--older-than", "7d"],
        &[
            "snapshot",
            "delete",
            "--older-than",
            "7d",
            "x",
            "--vm",
            "web",
        ],
        &["snapshot", "delete", "--older-than", "soon", "--vm", "web"],
        &["snapshot", "delete", "--older-than", "7", "--vm", "web"],
        &["snapshot", "delete", "--older-than", "0d", "--vm", "web"],
        &["snapshot", "delete", "--older-than=-7d", "--vm", "web"],
        &["snapshot", "delete", "x", "--direction", "up"],
        &["snapshot", "delete", "x", "--bandwidth", "50"],
        &["snapshot", "delete", "x", "--bandwidth", "50Mib"],
        &["snapshot", "delete", "x", "--bandwidth", "-1MiB"],
        &["snapshot", "delete", "x", "--bandwidth=-1MiB"],
        &["snapshot", "delete", "x", "--bandwidth", "9000000000GiB"],
        &["snapshot", "delete", "x", "--dry-run", "--etag", "3"],
        &["snapshot", "delete", "x", "--dry-run", "--allow-missing"],
        &[
            "snapshot",
            "delete",
            "x",
            "--dry-run",
            "--request-id",
            NOWHERE,
        ],
        &["snapshot", "plan"],
        &["snapshot", "plan", "x", "--wait"],
        &["snapshot", "plan", "x", "--request-id", NOWHERE],
        &["operation", "cancel"],
        &["operation", "cancel", "x", "--request-id", NOWHERE],
        &["operation", "limit", "x"],
        &["operation", "limit", "x", "fast"],
        &["operation", "limit", "x", "-1B"],
        &["operation", "limit", "x", "9223372036854775808B"],
        &["host", "list", "--request-id", NOWHERE],
        &["completions", "cmd"],
        &["doctor", "--request-id", NOWHERE],
        &["doctor", "--repair", "x", "--vm", "web"],
        &["doctor", "--repair"],
    ];
    for case in cases {
        let ran = run(livemerge().args(*case));
        assert_eq!(
            (ran.exit, ran.stdout.as_str()),
            (2, ""),
            "{case:?}: {}",
            ran.stderr
        );
        assert!(!ran.stderr.is_empty(), "{case:?}");
    }
    let ran = run(livemerge()
        .env("LIVEMERGE_SERVER", "nowhere")
        .args(["host", "list"]));
    assert_eq!(ran.exit, 2);
}

#[test]
fn arguments_that_are_no_text_are_bad_usage() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let no_text = OsStr::from_bytes(b"\xff\xfe");
    assert_eq!(run(livemerge().args(["vm", "get"]).arg(no_text)).exit, 2);
}

#[test]
fn help_tells_the_exit_codes() {
    let help = run(livemerge().arg("--help")).shown();
    for line in [
        "1  the operation ended without success",
        "5  unavailable",
        "7  the operation was cancelled",
        "130  interrupted",
    ] {
        assert!(help.contains(line), "{line}: {help}");
    }
    assert!(help.contains("http://127.0.0.1:7420"), "{help}");
    assert!(help.contains("LIVEMERGE_SERVER"), "{help}");
    assert!(
        run(livemerge().arg("--version"))
            .shown()
            .starts_with("livemerge ")
    );
}

#[test]
fn the_help_of_merges_has_examples() {
    for command in [
        ["snapshot", "delete"],
        ["snapshot", "plan"],
        ["operation", "cancel"],
        ["operation", "limit"],
    ] {
        let help = run(livemerge().args(command).arg("--help")).shown();
        let examples = help.split_once("\nExample").unwrap().1;
        let example = format!("livemerge {} ", command.join(" "));
        assert!(examples.contains(&example), "{help}");
    }
}

#[test]
fn completions_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(livemerge().args(["completions", shell])).shown();
        let words = ["snapshot", "operation", "completions", "allow-missing"];
        let of_merges = [
            "plan",
            "dry-run",
            "older-than",
            "direction",
            "cancel",
            "limit",
        ];
        for word in words.into_iter().chain(of_merges) {
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}

#[test]
fn a_reader_that_is_gone_is_no_failure() {
    let server = Server::start(site());
    for args in [
        &["event", "list"][..],
        &["vm", "chain", "web"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = crate::program::client(&server);
        let output = command.args(args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
    for help in ["--help", "--version"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = livemerge().arg(help).stdout(writer).output().unwrap();
        assert_eq!(
            (output.status.code(), output.stderr),
            (Some(0), Vec::new()),
            "{help}"
        );
    }
}

#[test]
fn a_failed_operation_counts_without_a_reader() {
    let server = Server::start(Script {
        waits: [failed()].into(),
        ..site()
    });
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = crate::program::client(&server);
    let output = command
        .args(["operation", "wait", FAILED])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn odd_texts_reach_the_server_as_they_are() {
    let server = Server::start(site());
    for text in [
        "",
        " ",
        "\u{1b}[31m",
        "é\u{301}",
        "../..",
        "'; --",
        &"x".repeat(5000),
    ] {
        let ran = ask(&server, ["host", "get", text]);
        assert_eq!(ran.exit, 3, "{text:?}: {}", ran.stderr);
        assert!(
            server.last_seen().contains(&format!("host_id: {text:?}")),
            "{text:?}"
        );
    }
}
