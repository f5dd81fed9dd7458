//! The two watches of an agent as one stream, which breaks when one of them does.
//!
//! Each has a silence of its own, so that one that talks does not hide one that hangs. The first
//! piece is of the host: before it has said who it is, nothing else of it is heard.

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use livemerge_proto::v1;
use livemerge_proto::v1::host_service_client::HostServiceClient;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use livemerge_proto::v1::{watch_host_response, watch_merges_response};
use livemerge_runtime::Line;
use livemerge_runtime::metrics::Calls;
use std::time::Duration;
use tonic::{Status, Streaming};

/// An agent's watch of merges has a heartbeat each 10 s.
pub(super) const MERGES_SILENCE: Duration = Duration::from_secs(25);

/// What an agent shows.
pub(super) enum Piece {
    /// Of the host and its machines.
    Machines(watch_host_response::Item),
    /// Of its merges.
    Merges(Box<watch_merges_response::Item>),
}

/// Opens both.
pub(super) async fn open(
    channel: Calls<Line>,
    heartbeat: Duration,
    silence: Duration,
) -> Result<impl Stream<Item = Result<Piece, Status>> + Send, Status> {
    let request = v1::WatchHostRequest {
        heartbeat_interval: prost_types::Duration::try_from(heartbeat).ok(),
    };
    let machines = HostServiceClient::new(channel.clone())
        .watch_host(request)
        .await?;
    let merges = MergeServiceClient::new(channel)
        .watch_merges(v1::WatchMergesRequest {})
        .await?;
    let machines = alive(machines.into_inner(), silence)
        .and_then(async |piece| piece.item.map(Piece::Machines).ok_or_else(empty))
        .boxed();
    let merges = alive(merges.into_inner(), silence.max(MERGES_SILENCE))
        .and_then(async |piece| {
            piece
                .item
                .map(Box::new)
                .map(Piece::Merges)
                .ok_or_else(empty)
        })
        .boxed();
    let (first, machines) = machines.into_future().await;
    Ok(stream::iter(first).chain(stream::select(machines, merges)))
}

fn empty() -> Status {
    Status::unavailable("a piece is empty")
}

/// Its pieces, and why there are no more.
fn alive<P: Send + 'static>(
    pieces: Streaming<P>,
    silence: Duration,
) -> impl Stream<Item = Result<P, Status>> + Send {
    stream::unfold(pieces, move |mut pieces| async move {
        let piece = match tokio::time::timeout(silence, pieces.message()).await {
            Ok(Ok(Some(piece))) => Ok(piece),
            Ok(Ok(None)) => Err(Status::unavailable("the agent ended the watch")),
            Ok(Err(status)) => Err(status),
            Err(_elapsed) => Err(Status::unavailable("no heartbeat")),
        };
        Some((piece, pieces))
    })
}
