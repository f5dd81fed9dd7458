//! The rig itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use livemerge_vhost::VirtualHost;
use std::time::Duration;

#[test]
fn a_program_runs_on_this_machine_s_files_with_a_device_mapper_and_leaves_nothing() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    let host = VirtualHost {
        place: place.path().to_owned(),
        ..VirtualHost::default()
    };
    let script =
        "echo said; echo error >&2; lvm version >/dev/null && touch /left-behind && exit 3";
    let ended = host.script(script).unwrap();
    assert_eq!((ended.output.as_str(), ended.code), ("said\nerror\n", 3));
    assert!(!std::path::Path::new("/left-behind").exists());
    let hangs = VirtualHost {
        limit: Duration::from_secs(1),
        ..host
    };
    let error = hangs.script("sleep 1000").unwrap_err().to_string();
    assert!(error.starts_with("no end after 1s"), "{error}");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}
