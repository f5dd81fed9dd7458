//! A body that ends with a status as soon as a future says so.

use super::status;
use http_body::Frame;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;

/// A body, and what ends it before its time.
pub(crate) struct Until<F> {
    inner: Body,
    /// None at the end.
    end: Option<F>,
}

impl<F: Future<Output = Status> + Unpin> Until<F> {
    pub(crate) fn new(inner: Body, end: F) -> Self {
        Until {
            inner,
            end: Some(end),
        }
    }
}

impl<F: Future<Output = Status> + Unpin> http_body::Body for Until<F> {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let Some(end) = &mut self.end else {
            return Poll::Ready(None);
        };
        // First: a producer that is always ready must not outrun it.
        if let Poll::Ready(status) = Pin::new(end).poll(cx) {
            self.end = None;
            return Poll::Ready(Some(Ok(status::trailers(&status))));
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.inner.is_end_stream()
    }
}
