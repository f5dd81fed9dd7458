//! A panic in a handler, or in the stream it answers with, is INTERNAL and not a lost call.
//!
//! The panic's text goes to the log through the panic hook, inside the request's span; the client
//! gets a generic text. A panic in a task that a handler spawned is that task's own affair.

use super::{Answer, AnswerFuture, GrpcService, status};
use futures::FutureExt;
use http_body::Frame;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// Answers INTERNAL where `inner` panics.
#[derive(Clone, Debug)]
pub(crate) struct CatchPanic<S> {
    inner: S,
}

impl<S> CatchPanic<S> {
    pub(crate) fn new(inner: S) -> Self {
        CatchPanic { inner }
    }
}

impl<S: GrpcService> Service<http::Request<Body>> for CatchPanic<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // Unwind safety: after a panic nothing of the call is used again.
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(call) => Box::pin(async move {
                AssertUnwindSafe(call)
                    .catch_unwind()
                    .await
                    .map_or_else(|_| refuse(), guard_body)
            }),
            Err(_) => Box::pin(std::future::ready(refuse())),
        }
    }
}

fn refuse() -> Answer {
    Ok(status::internal_bug().into_http())
}

fn guard_body(answer: Answer) -> Answer {
    answer.map(|response| {
        response.map(|inner| {
            Body::new(GuardedBody {
                inner,
                ended: false,
            })
        })
    })
}

struct GuardedBody {
    inner: Body,
    ended: bool,
}

impl http_body::Body for GuardedBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let inner = AssertUnwindSafe(|| Pin::new(&mut self.inner).poll_frame(cx));
        catch_unwind(inner).unwrap_or_else(|_| {
            self.ended = true;
            Poll::Ready(Some(Ok(status::trailers(&status::internal_bug()))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}
