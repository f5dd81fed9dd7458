//! Threads for calls that block.
//!
//! Not the runtime's own: at its end it waits for those, and a libvirt that hangs would keep the
//! process from ending.

use std::future::Future;
use std::thread;

use tokio::sync::oneshot;

/// Begins the work on a thread of its own, which goes on even if nobody waits. `None` when there
/// is no thread to be had, or the work panicked.
pub(super) fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Option<T>> {
    let (sender, receiver) = oneshot::channel();
    let started = thread::Builder::new()
        .name("libvirt-call".to_owned())
        .spawn(move || {
            // What nobody waits for any more is dropped here.
            let _ = sender.send(work());
        });
    async move {
        started.ok()?;
        receiver.await.ok()
    }
}
