//! `livemerge`, the command line of LiveMerge. See the library for its parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    livemerge_cli::run(std::env::args_os())
}
