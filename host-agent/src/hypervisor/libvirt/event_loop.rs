//! libvirt's event loop: one for the process, on its own thread.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use virt::event::{event_add_timeout, event_register_default_impl, event_run_default_impl};

/// The loop looks at what was registered meanwhile at least so often.
const WAKE_MILLIS: i32 = 500;
/// Rest after a failed turn.
const PAUSE: Duration = Duration::from_millis(100);

/// Starts the loop if it does not run yet. Must come before the first connection is opened.
///
/// # Errors
/// When libvirt or the operating system refuses; asking again gives the same answer.
pub(super) fn start() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    STARTED
        .get_or_init(|| spawn().map_err(|error| error.to_string()))
        .clone()
}

fn spawn() -> Result<(), Box<dyn std::error::Error>> {
    // Errors come back from the calls; libvirt need not print them as well.
    virt::error::clear_error_callback();
    event_register_default_impl()?;
    event_add_timeout(WAKE_MILLIS, |_, _| {}, std::ptr::null_mut())?;
    thread::Builder::new()
        .name("libvirt-events".to_owned())
        .spawn(run)?;
    Ok(())
}

fn run() {
    loop {
        if let Err(error) = event_run_default_impl() {
            tracing::warn!(%error, "libvirt's event loop failed, and goes on");
            thread::sleep(PAUSE);
        }
    }
}
