//! Deadlines: the client's `grpc-timeout`, and a bound of the server's own for unary calls.
//!
//! tonic's own timer answers CANCELLED and stops at the headers. This one answers
//! DEADLINE_EXCEEDED and covers the body too. tonic's timer cannot be switched off and runs around
//! this layer; it never wins, because this deadline is computed before tonic's and compared with
//! the clock on every poll, and tonic polls inward first.
//!
//! An expired handler is dropped: whatever must finish runs in a task of its own.

use super::{AnswerFuture, GrpcService, status};
use crate::client::deadline;
use http_body::Frame;
use std::collections::HashSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// Ends calls at their deadline.
#[derive(Clone, Debug)]
pub(crate) struct DeadlineLayer<S> {
    inner: S,
    unary_bound: Duration,
    streams: Arc<HashSet<String>>,
}

impl<S> DeadlineLayer<S> {
    /// `streams` are the paths (`/package.Service/Method`) that have no bound of the server's;
    /// a deadline of the client's holds for them as well.
    pub(crate) fn new(inner: S, unary_bound: Duration, streams: HashSet<String>) -> Self {
        DeadlineLayer {
            inner,
            unary_bound,
            streams: Arc::new(streams),
        }
    }

    fn deadline<B>(&self, request: &http::Request<B>) -> Option<Deadline> {
        let asked = deadline::asked(request.headers());
        let bound = (!self.streams.contains(request.uri().path())).then_some(self.unary_bound);
        asked
            .into_iter()
            .chain(bound)
            .min()
            .and_then(Deadline::after)
    }
}

impl<S: GrpcService> Service<http::Request<Body>> for DeadlineLayer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let deadline = self.deadline(&request);
        let call = self.inner.call(request);
        let Some(mut deadline) = deadline else {
            return Box::pin(call);
        };
        // What is called on its behalf ends by then, too.
        let call = deadline::serving(deadline.at, call);
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = call => answer.map(|response| {
                    response.map(|inner| Body::new(TimedBody { inner, deadline, ended: false }))
                }),
                () = &mut deadline => Ok(status::deadline_exceeded().into_http()),
            }
        })
    }
}

/// Ready once the instant has passed.
struct Deadline {
    at: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Deadline {
    /// None for a time so far away that it cannot be expressed.
    fn after(timeout: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(timeout)?;
        Some(Deadline {
            at,
            timer: Box::pin(tokio::time::sleep_until(at)),
        })
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        self.timer.as_mut().poll(cx)
    }
}

struct TimedBody {
    inner: Body,
    deadline: Deadline,
    ended: bool,
}

impl http_body::Body for TimedBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // First the deadline: a producer that is always ready must not outrun it.
        if Pin::new(&mut self.deadline).poll(cx).is_ready() {
            self.ended = true;
            return Poll::Ready(Some(Ok(status::trailers(&status::deadline_exceeded()))));
        }
        let at = self.deadline.at;
        deadline::serving_now(at, || Pin::new(&mut self.inner).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bound_caps_unary_calls_and_not_streams() {
        let bound = Duration::from_secs(60);
        let streams = HashSet::from(["/p.S/Watch".to_owned()]);
        let layer = DeadlineLayer::new((), bound, streams);
        let left = |path: &str, asked: Option<&str>| {
            let mut request = http::Request::builder().uri(path);
            if let Some(asked) = asked {
                request = request.header("grpc-timeout", asked);
            }
            let deadline = layer.deadline(&request.body(()).unwrap());
            deadline.map(|d| (d.at - Instant::now()).as_secs_f64().round() as u64)
        };
        assert_eq!(left("/p.S/Get", None), Some(60));
        assert_eq!(left("/p.S/Get", Some("5S")), Some(5));
        assert_eq!(left("/p.S/Get", Some("1H")), Some(60));
        assert_eq!(left("/p.S/Watch", None), None);
        assert_eq!(left("/p.S/Watch", Some("1H")), Some(3600));
    }
}
