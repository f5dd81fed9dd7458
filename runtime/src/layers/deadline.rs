//! Deadlines: the client's `grpc-timeout`, and what the server makes of it.
//!
//! | method | without a timeout | with one |
//! |---|---|---|
//! | unary | [`Times::unset`] | at most [`Times::most`] |
//! | wait | [`Times::wait`] | at most that |
//! | watch | none | as asked |
//!
//! It answers DEADLINE_EXCEEDED and covers the body, too. An expired handler is dropped: whatever
//! must finish runs in a task of its own.

use super::{AnswerFuture, GrpcService, Kind, Methods, Until, status};
use crate::client::deadline;
use http_body::Frame;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// How long calls may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// A unary call whose client says nothing of it.
    pub(crate) unset: Duration,
    /// A unary call whatever its client says.
    pub(crate) most: Duration,
    /// A wait.
    pub(crate) wait: Duration,
}

/// Ends calls at their deadline.
#[derive(Clone, Debug)]
pub(crate) struct DeadlineLayer<S> {
    inner: S,
    times: Times,
    methods: Methods,
}

impl<S> DeadlineLayer<S> {
    pub(crate) fn new(inner: S, times: Times, methods: Methods) -> Self {
        DeadlineLayer {
            inner,
            times,
            methods,
        }
    }

    fn deadline<B>(&self, request: &http::Request<B>) -> Option<Deadline> {
        let asked = deadline::asked(request.headers());
        let Times { unset, most, wait } = self.times;
        let time = match self.methods.kind(request.uri().path()) {
            Kind::Unary => asked.map_or(unset, |asked| asked.min(most)),
            Kind::Wait => asked.unwrap_or(wait).min(wait),
            Kind::Watch => asked?,
        };
        Deadline::after(time)
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
        let at = deadline.at;
        let call = deadline::serving(at, call);
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = call => answer.map(|response| {
                    response.map(|inner| {
                        let inner = Body::new(Serving { inner, until: at });
                        Body::new(Until::new(inner, deadline))
                    })
                }),
                status = &mut deadline => Ok(status.into_http()),
            }
        })
    }
}

/// Ready, with what to answer, once the instant has passed.
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
    type Output = Status;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Status> {
        // The timer has the grain of a millisecond.
        let over = Instant::now() >= self.at || self.timer.as_mut().poll(cx).is_ready();
        match over {
            true => Poll::Ready(status::deadline_exceeded()),
            false => Poll::Pending,
        }
    }
}

/// A body whose pieces are made for a call that is over then.
struct Serving {
    inner: Body,
    until: Instant,
}

impl http_body::Body for Serving {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let until = self.until;
        deadline::serving_now(until, || Pin::new(&mut self.inner).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_kind_of_method_has_its_bounds() {
        let times = Times {
            unset: Duration::from_secs(60),
            most: Duration::from_secs(600),
            wait: Duration::from_secs(3600),
        };
        let mut methods = Methods::default();
        methods.add_watches(["/p.S/Watch".to_owned()]);
        methods.add_waits(["/p.S/Wait".to_owned()]);
        let layer = DeadlineLayer::new((), times, methods);
        let left = |path: &str, asked: Option<&str>| {
            let mut request = http::Request::builder().uri(path);
            if let Some(asked) = asked {
                request = request.header("grpc-timeout", asked);
            }
            let deadline = layer.deadline(&request.body(()).unwrap());
            deadline.map(|d| (d.at - Instant::now()).as_secs_f64().round() as u64)
        };
        for (path, none, short, long) in [
            ("/p.S/Get", Some(60), Some(5), Some(600)),
            ("/p.S/Wait", Some(3600), Some(5), Some(3600)),
            ("/p.S/Watch", None, Some(5), Some(7200)),
            ("/grpc.health.v1.Health/Check", Some(60), Some(5), Some(600)),
            ("/grpc.health.v1.Health/Watch", None, Some(5), Some(7200)),
        ] {
            assert_eq!(left(path, None), none, "{path}");
            assert_eq!(left(path, Some("5S")), short, "{path}");
            assert_eq!(left(path, Some("2H")), long, "{path}");
        }
        assert_eq!(left("/p.S/Get", Some("90S")), Some(90));
    }

    #[tokio::test]
    async fn what_a_call_has_unasked_is_what_was_configured() {
        let times = Times {
            unset: Duration::from_secs(900),
            most: Duration::from_secs(600),
            wait: Duration::from_secs(3600),
        };
        let layer = DeadlineLayer::new((), times, Methods::default());
        let request = http::Request::builder().uri("/p.S/Get").body(()).unwrap();
        let left = layer.deadline(&request).unwrap().at - Instant::now();
        assert!(left > Duration::from_secs(800), "{left:?}");
    }
}
