//! A server's process, and how it ends.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Runtime;

/// For threads that still wait for a disk. One that does not answer keeps no process: whatever is
/// written is written so that it may break off.
const BLOCKED: Duration = Duration::from_secs(5);

/// Runs a server's process, and gives its exit status. A failure is said on stderr in one line, with its
/// causes, and never as a backtrace: it is the operator's to mend.
pub fn process<E: Display>(server: impl Future<Output = Result<(), E>>) -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let outcome = runtime.block_on(server);
    runtime.shutdown_timeout(BLOCKED);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &impl Display) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
