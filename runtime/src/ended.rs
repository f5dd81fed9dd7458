//! How a server's process ends.

use std::fmt::Display;
use std::process::ExitCode;

/// The exit status of a process that ran to this outcome. A failure is said on stderr in one line,
/// with its causes, and never as a backtrace: it is the operator's to mend.
pub fn ended<E: Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
