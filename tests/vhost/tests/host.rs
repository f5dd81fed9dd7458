//! The rig itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use livemerge_vhost::{Kind, VirtualHost};
use std::time::Duration;

const SCRIPT: &str =
    "echo said; echo error >&2; lvm version >/dev/null && touch /left-behind && exit 3";

#[test]
fn a_program_runs_on_this_machine_s_files_with_a_device_mapper_and_leaves_nothing() {
    for kind in [Kind::UserMode, Kind::Emulated] {
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let host = VirtualHost {
            kinds: vec![kind],
            place: place.path().to_owned(),
            ..VirtualHost::default()
        };
        let ended = host.script(SCRIPT).unwrap();
        assert_eq!((ended.output.as_str(), ended.code), ("said\nerror\n", 3));
        assert!(!std::path::Path::new("/left-behind").exists());
        let hangs = VirtualHost {
            limit: Duration::from_secs(1),
            ..host
        };
        let error = hangs.script("sleep 1000").unwrap_err().to_string();
        assert!(error.starts_with("no end after 1s"), "{kind:?} {error}");
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        assert_eq!(processes_of(place.path()), [""; 0]);
    }
}

#[test]
fn a_kind_that_does_not_start_gives_place_to_the_next() {
    let host = VirtualHost {
        // Too little for any kernel that is a program.
        memory_mib: 4,
        kinds: vec![Kind::UserMode; 2],
        ..VirtualHost::default()
    };
    let error = host.script("true").unwrap_err().to_string();
    assert!(error.starts_with("no virtual host starts"), "{error}");
    assert_eq!(error.matches("UserMode: ").count(), 2, "{error}");
}

/// The command lines that name a place.
fn processes_of(place: &std::path::Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines
        .filter(|line| line.contains(place.to_str().unwrap()))
        .collect()
}
