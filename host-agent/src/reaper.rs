//! Ends the removals whose time to be undone is over, and those that a crash has interrupted.
//!
//! ```text
//!   condemned, kept until then ─▶ its time is over ─┐
//!   condemned, being freed when a crash came ───────┴─▶ the same removal, to its end
//! ```
//!
//! A condemned volume is needed by nobody: that was seen before it was condemned. So nothing is asked
//! again, and it does not matter which host of a shared domain does it.

use crate::volumes::Volumes;
use jiff::Timestamp;
use livemerge_runtime::{Clock, Shutdown};
use livemerge_storage::{Removal, RemovalState, StorageId};
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(30);

/// Looks now and then, until the agent stops.
pub(crate) async fn run(volumes: Arc<Volumes>, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        reap(&volumes, clock.now()).await;
    }
}

/// Goes on with what is due in every domain. What does not succeed is tried again the next time.
pub async fn reap(volumes: &Volumes, now: Timestamp) {
    let domains: Vec<StorageId> = volumes.ids().cloned().collect();
    for storage in domains {
        let removals = match volumes.removals(&storage).await {
            Ok(removals) => removals,
            Err(problem) => {
                tracing::warn!(%storage, %problem, "its removals cannot be listed");
                continue;
            }
        };
        for removal in removals.iter().filter(|removal| is_due(removal, now)) {
            match volumes.go_on(&storage, removal).await {
                Ok(done) => tracing::info!(
                    volume = %removal.volume,
                    removal = %removal.id,
                    freed_bytes = done.freed_bytes,
                    "what was kept of a removed volume is gone"
                ),
                Err(problem) => {
                    tracing::warn!(volume = %removal.volume, removal = %removal.id, %problem, "is not gone yet");
                }
            }
        }
    }
}

fn is_due(removal: &Removal, now: Timestamp) -> bool {
    match removal.state {
        RemovalState::Condemned { keep_until } => keep_until.is_none_or(|until| until <= now),
        RemovalState::Gone => false,
    }
}
