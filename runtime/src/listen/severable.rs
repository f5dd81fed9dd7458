//! A connection that can be broken from elsewhere, or because it says nothing.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// A connection that breaks when its token is cancelled, and holds something while it is open.
pub(crate) struct Severable<IO, H> {
    io: IO,
    opening: Option<Opening>,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
    held: H,
}

/// What a client of HTTP/2 says at least, with or without TLS around it.
const PREFACE: usize = 24;

/// The time for the first words of the other end.
struct Opening {
    over: Pin<Box<Sleep>>,
    /// Bytes.
    missing: usize,
}

impl<IO, H> Severable<IO, H> {
    pub(crate) fn new(io: IO, cut: &CancellationToken, held: H) -> Self {
        Severable {
            io,
            opening: None,
            severed: Box::pin(cut.clone().cancelled_owned()),
            held,
        }
    }

    /// Breaks it if the other end does not say enough within that time.
    pub(crate) fn hear_within(&mut self, time: Duration) {
        self.opening = Some(Opening {
            over: Box::pin(tokio::time::sleep(time)),
            missing: PREFACE,
        });
    }

    fn severed(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.severed.as_mut().poll(cx) {
            Poll::Ready(()) => Err(ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    pub(crate) fn held(&self) -> &H {
        &self.held
    }

    pub(crate) fn held_mut(&mut self) -> &mut H {
        &mut self.held
    }
}

impl<IO: Connected, H> Connected for Severable<IO, H> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin, H: Unpin> AsyncRead for Severable<IO, H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.severed(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        let Some(opening) = &mut self.opening else {
            return read;
        };
        opening.missing = opening
            .missing
            .saturating_sub(buffer.filled().len() - before);
        if opening.missing == 0 {
            self.opening = None;
        } else if read.is_pending() && opening.over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        read
    }
}

/// HTTP/2 reads nothing while it cannot write: of a connection whose other end takes nothing, the cut wakes
/// the write.
impl<IO: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Severable<IO, H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.severed(cx)?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.severed(cx)?;
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.severed(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.severed(cx)?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
