//! This test program once more, in a process of its own.

use std::env;
use std::process::Command;

const ROLE: &str = "LIVEMERGE_TEST_ROLE";

/// What the parent told this process to be; `None` in the parent.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// Runs only the test of this name, which finds its role; `wrapper` runs the program.
pub(crate) fn command(wrapper: &[&str], test: &str, role: &str) -> Command {
    let program = env::current_exe().unwrap().into_os_string();
    let mut words = wrapper.iter().map(Into::into).chain([program]);
    let mut command = Command::new(words.next().expect("at least the program"));
    command
        .args(words)
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role);
    command
}
