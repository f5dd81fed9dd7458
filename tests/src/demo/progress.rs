//! Follows an operation with a live bar.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use livemerge_proto::v1;

use crate::api::Api;

const STYLE: &str = "  [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {msg}";

/// Watches an operation to its success.
pub(super) async fn follow(
    api: &mut Api,
    accepted: &v1::Operation,
    limit: Duration,
) -> Result<v1::Operation> {
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template(STYLE)?.progress_chars("█▓░"));
    let ended = tokio::time::timeout(limit, watch(api, accepted, &bar)).await;
    bar.finish();
    let ended = ended.with_context(|| format!("operation {} does not end", accepted.id))??;
    if ended.state() != v1::OperationState::Succeeded {
        bail!("the operation failed: {:?}", ended.failure);
    }
    Ok(ended)
}

async fn watch(
    api: &mut Api,
    accepted: &v1::Operation,
    bar: &ProgressBar,
) -> Result<v1::Operation> {
    let request = v1::WatchOperationRequest {
        operation_id: accepted.id.clone(),
    };
    let mut stream = api.operations.watch_operation(request).await?.into_inner();
    while let Some(piece) = stream.message().await? {
        let operation = piece.operation.unwrap_or_default();
        if let Some(disk) = operation.disks.first() {
            bar.set_length(u64::try_from(disk.total_bytes)?);
            bar.set_position(u64::try_from(disk.done_bytes)?);
            bar.set_message(phase(disk.phase()));
        }
        if operation.ended_at.is_some() {
            return Ok(operation);
        }
    }
    bail!("the watch ended before the operation")
}

fn phase(phase: v1::MergePhase) -> &'static str {
    match phase {
        v1::MergePhase::Unspecified | v1::MergePhase::Pending => "planned",
        v1::MergePhase::Copying => "copying",
        v1::MergePhase::Ready => "caught up",
        v1::MergePhase::Pivoting => "pivoting",
        v1::MergePhase::Verifying | v1::MergePhase::Merged => "merged",
        v1::MergePhase::Overlaying => "giving the guest an overlay",
        v1::MergePhase::Cancelling | v1::MergePhase::Cancelled => "cancelled",
        v1::MergePhase::Failed => "failed",
        v1::MergePhase::Removing => "removing the volume",
        v1::MergePhase::Removed => "volume removed",
    }
}
