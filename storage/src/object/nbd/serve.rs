//! Serves an export to one client.
//!
//! ```text
//!   reader ─▶ one task a request, a bounded number of bytes in flight ─▶ writer of replies
//! ```
//!
//! Replies come as requests end, in any order, and count with their requests until they are sent. A client
//! that goes away ends its requests first, and then has everything written back: the export is closed
//! after that. One who does not take his replies is not waited for, and one of whose requests has no
//! reply is sent away: it connects again and asks again.

use super::handshake::{Exports, Facts, handshake};
use super::wire::{self, Command, Ended, Request};
use crate::StorageError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use std::io;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Requests of one client at once.
const AT_ONCE: usize = 64;
/// What they hold together, in pieces.
const PIECE: u32 = 64 << 10;
const PIECES: usize = (64 << 20) / PIECE as usize;
/// So long a client that ends, or is to end, is sent replies.
const LAST_REPLIES: Duration = Duration::from_secs(5);

/// An export that a client has open.
#[async_trait]
pub(in crate::object) trait Export: Send + Sync + 'static {
    fn facts(&self) -> Facts;

    async fn read(&self, at: u64, bytes: u32) -> Result<Bytes, StorageError>;

    async fn write(&self, at: u64, data: Bytes) -> Result<(), StorageError>;

    async fn zero(&self, range: Range<u64>) -> Result<(), StorageError>;

    async fn trim(&self, range: Range<u64>) -> Result<(), StorageError>;

    async fn flush(&self) -> Result<(), StorageError>;

    /// Makes what was written to a range durable.
    async fn flush_range(&self, range: Range<u64>) -> Result<(), StorageError>;

    /// Whether it answers nothing any more.
    fn is_over(&self) -> bool {
        false
    }

    /// The client has ended; it is closed when its requests have.
    fn leaves(&self) {}

    /// Makes everything durable and lets go.
    async fn close(&self);
}

/// Serves one client to its end, or until it is told to stop.
///
/// # Errors
/// When the client breaks the protocol or its connection fails; the export is closed anyway.
pub(in crate::object) async fn serve<S>(
    mut stream: S,
    exports: Arc<dyn Exports>,
    stop: &CancellationToken,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let led = tokio::select! {
        led = handshake(&mut stream, exports.as_ref()) => led?,
        () = stop.cancelled() => return Ok(()),
    };
    let Some(export) = led else { return Ok(()) };
    let (reading, writing) = tokio::io::split(stream);
    let (replies, to_send) = mpsc::channel(AT_ONCE);
    let sender = tokio::spawn(send(writing, to_send));
    let mut requests = JoinSet::new();
    let broken = CancellationToken::new();
    let served = tokio::select! {
        served = receive(reading, &export, replies, &mut requests, &broken) => served,
        () = broken.cancelled() => Err(io::Error::other("one of its requests has no reply")),
        () = stop.cancelled() => Ok(()),
    };
    export.leaves();
    finish(&mut requests, &sender).await;
    export.close().await;
    sender.abort();
    served
}

/// Ends what is under way.
async fn finish(requests: &mut JoinSet<()>, sender: &JoinHandle<()>) {
    let all = async { while requests.join_next().await.is_some() {} };
    tokio::pin!(all);
    if tokio::time::timeout(LAST_REPLIES, &mut all).await.is_err() {
        sender.abort();
        all.await;
    }
}

async fn receive<R: AsyncRead + Unpin>(
    reading: R,
    export: &Arc<dyn Export>,
    replies: mpsc::Sender<Reply>,
    requests: &mut JoinSet<()>,
    broken: &CancellationToken,
) -> io::Result<()> {
    let mut reading = BufReader::new(reading);
    let room = Arc::new(Semaphore::new(PIECES));
    loop {
        let mut header = [0; wire::REQUEST_BYTES];
        match reading.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let request = Request::parse(&header)
            .ok_or_else(|| io::Error::other("what a client says is no request"))?;
        if request.command == Command::Disconnect {
            return Ok(());
        }
        let holds = matches!(request.command, Command::Read | Command::Write);
        if holds && request.bytes > wire::MOST_BYTES {
            return Err(io::Error::other("a request is too long"));
        }
        let pieces = if holds {
            request.bytes.div_ceil(PIECE)
        } else {
            0
        };
        let turn = Arc::clone(&room)
            .acquire_many_owned(pieces.max(1))
            .await
            .map_err(io::Error::other)?;
        let mut data = Vec::new();
        if request.command == Command::Write {
            data.resize(request.bytes as usize, 0);
            reading.read_exact(&mut data).await?;
        }
        while requests.try_join_next().is_some() {}
        while requests.len() >= AT_ONCE {
            requests.join_next().await;
        }
        let (export, replies, broken) = (Arc::clone(export), replies.clone(), broken.clone());
        requests.spawn(async move {
            let answer = answer(export.as_ref(), request, data.into(), turn);
            // One that panics has said why by itself.
            match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(reply) if !export.is_over() => {
                    // A client that does not listen any more has had its work done.
                    let _ = replies.send(reply).await;
                }
                _ => broken.cancel(),
            }
        });
    }
}

/// A reply, and the data that belong to it.
struct Reply {
    head: [u8; 16],
    data: Bytes,
    _turn: OwnedSemaphorePermit,
}

async fn send<W: AsyncWrite + Unpin>(mut writing: W, mut replies: mpsc::Receiver<Reply>) {
    while let Some(reply) = replies.recv().await {
        let sent = async {
            writing.write_all(&reply.head).await?;
            writing.write_all(&reply.data).await
        };
        if sent.await.is_err() {
            // Whoever reads the requests notices, too.
            return;
        }
    }
}

async fn answer(
    export: &dyn Export,
    request: Request,
    data: Bytes,
    turn: OwnedSemaphorePermit,
) -> Reply {
    let (ended, data) = match carry_out(export, request, data).await {
        Ok(data) => (Ended::Well, data),
        Err(ended) => (ended, Bytes::new()),
    };
    Reply {
        head: wire::reply(request.cookie, ended),
        data,
        _turn: turn,
    }
}

async fn carry_out(export: &dyn Export, request: Request, data: Bytes) -> Result<Bytes, Ended> {
    let facts = export.facts();
    let changes = matches!(
        request.command,
        Command::Write | Command::Trim | Command::WriteZeroes
    );
    if request.command != Command::Flush && !request.is_within(facts.bytes) {
        let past_the_end = matches!(request.command, Command::Write | Command::WriteZeroes);
        return Err(if past_the_end {
            Ended::NoSpace
        } else {
            Ended::Invalid
        });
    }
    if changes && facts.read_only {
        return Err(Ended::NotPermitted);
    }
    let range = request.at..request.at + u64::from(request.bytes);
    let done = match request.command {
        Command::Read => {
            return export
                .read(request.at, request.bytes)
                .await
                .map_err(|error| ended(&error));
        }
        Command::Write => export.write(request.at, data).await,
        Command::Trim => export.trim(range.clone()).await,
        Command::WriteZeroes => export.zero(range.clone()).await,
        Command::Flush => export.flush().await,
        Command::Disconnect | Command::Unknown(_) => return Err(Ended::Invalid),
    };
    done.map_err(|error| ended(&error))?;
    if changes && request.fua {
        export
            .flush_range(range)
            .await
            .map_err(|error| ended(&error))?;
    }
    Ok(Bytes::new())
}

fn ended(error: &StorageError) -> Ended {
    tracing::warn!(%error, cause = cause(error), "a request of an NBD client failed");
    match error {
        StorageError::NoSpace { .. } => Ended::NoSpace,
        StorageError::InUse { .. } | StorageError::Denied { .. } => Ended::NotPermitted,
        _ => Ended::Failed,
    }
}

fn cause(error: &StorageError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}
