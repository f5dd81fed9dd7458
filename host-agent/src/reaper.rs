//! Ends the removals whose time to be undone is over, and those that a crash has interrupted.
//!
//! ```text
//!   condemned, kept until then ─▶ its time is over ─┐
//!   condemned, being freed when a crash came ───────┴─▶ the same removal, to its end
//! ```
//!
//! A condemned volume is needed by nobody: that was seen before it was condemned. So nothing is asked
//! again, and any host of a shared domain may do it; one that was brought back meanwhile is left alone.
//! Whether a time is over is judged by the host's clock: a clock that is ahead by more than a domain keeps
//! its volumes frees them early.
//!
//! Each domain has a task of its own: one that hangs, or wipes for hours, holds up no other. After a look
//! that does not succeed the next one comes later each time.

use crate::volumes::Volumes;
use jiff::Timestamp;
use livemerge_runtime::{Backoff, Clock, Shutdown, Tries};
use livemerge_storage::{Removal, RemovalState, StorageId};
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks.
pub(crate) const EVERY: Duration = Duration::from_secs(30);
/// So many times as long, at most, when looks do not succeed.
const LONGEST: u32 = 10;

/// Looks at every domain now and then, until the agent stops.
pub(crate) fn start(
    volumes: &Arc<Volumes>,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    every: Duration,
) {
    for storage in volumes.ids() {
        let (storage, volumes) = (storage.clone(), Arc::clone(volumes));
        let (clock, shutdown) = (Arc::clone(clock), shutdown.clone());
        let mut tries = Tries::new(Backoff::new(every, LONGEST * every), &storage);
        let looks = async move {
            let mut pause = every;
            loop {
                tokio::time::sleep(pause).await;
                let succeeded = reap(&storage, &volumes, clock.now()).await;
                pause = tries.after(succeeded, every);
            }
        };
        tokio::spawn(shutdown.run_until_cancelled_owned(looks));
    }
}

/// Goes on with what is due in a domain, and tells whether all of that has succeeded. What has not is
/// tried again the next time.
pub(crate) async fn reap(storage: &StorageId, volumes: &Volumes, now: Timestamp) -> bool {
    let removals = match volumes.removals(storage).await {
        Ok(removals) => removals,
        Err(problem) => {
            tracing::warn!(%storage, %problem, "its removals cannot be listed");
            return false;
        }
    };
    let due: Vec<_> = removals
        .into_iter()
        .filter(|removal| is_due(removal, now))
        .collect();
    if due.is_empty() {
        return true;
    }
    let ended = match volumes.go_on(storage, &due).await {
        Ok(ended) => ended,
        Err(problem) => {
            tracing::warn!(%storage, %problem, "its removals cannot be gone on with");
            return false;
        }
    };
    let mut all = true;
    for (removal, ended) in due.iter().zip(ended) {
        let (volume, id) = (&removal.volume, removal.id);
        match ended {
            Ok(done) => {
                let freed_bytes = done.freed_bytes;
                tracing::info!(%volume, removal = %id, freed_bytes, "a removal has ended");
            }
            Err(problem) => {
                all = false;
                tracing::warn!(%volume, removal = %id, %problem, "is not gone yet");
            }
        }
    }
    all
}

fn is_due(removal: &Removal, now: Timestamp) -> bool {
    match removal.state {
        RemovalState::Condemned { keep_until } => keep_until.is_none_or(|until| until <= now),
        RemovalState::Gone => false,
    }
}
