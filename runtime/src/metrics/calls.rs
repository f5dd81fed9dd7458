//! Calls of gRPC, counted and timed by method and code: those that are served, and those that are
//! made.

use super::{Counter, Definition, Gauge, Histogram, Metrics};
use crate::trace::{LiveSpan, SpanKind, TRACEPARENT, TraceContext};
use futures::future::BoxFuture;
use http::HeaderValue;
use http_body::Frame;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

const LABELS: &[&str] = &["service", "method"];
const LABELS_OF_ENDED: &[&str] = &["service", "method", "code"];
/// From what an answer out of memory takes to the longest call that is no watch.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

const SERVED: [Definition; 3] = [
    Definition::counter(
        "livemerge_grpc_server_handled",
        LABELS_OF_ENDED,
        "Calls that were served to their end, by code; CANCELLED where the client left",
    ),
    Definition::histogram(
        "livemerge_grpc_server_handling_seconds",
        LABELS,
        "How long served calls took to their end, watches included",
        SECONDS,
    ),
    Definition::gauge(
        "livemerge_grpc_server_open",
        LABELS,
        "Calls that are being served now, watches included",
    ),
];
const MADE: [Definition; 3] = [
    Definition::counter(
        "livemerge_grpc_client_handled",
        LABELS_OF_ENDED,
        "Calls to other servers that have ended, by code; CANCELLED where they were given up",
    ),
    Definition::histogram(
        "livemerge_grpc_client_handling_seconds",
        LABELS,
        "How long calls to other servers took to their end, watches included",
        SECONDS,
    ),
    Definition::gauge(
        "livemerge_grpc_client_open",
        LABELS,
        "Calls to other servers that are under way now, watches included",
    ),
];

/// Counts and times calls.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    handled: Counter,
    seconds: Histogram,
    open: Gauge,
}

impl Meter {
    pub(super) fn of_server(metrics: &Metrics) -> Self {
        Self::new(metrics, SERVED)
    }

    fn new(metrics: &Metrics, [handled, seconds, open]: [Definition; 3]) -> Self {
        Meter {
            handled: metrics.counter(handled),
            seconds: metrics.histogram(seconds),
            open: metrics.gauge(open),
        }
    }

    /// A call of `/package.Service/Method` begins.
    pub(super) fn begin(self: &Arc<Self>, service: &str, method: &str) -> Call {
        self.open.add(&[service, method], 1.0);
        Call {
            counted: Some(Counted {
                meter: Arc::clone(self),
                service: service.to_owned(),
                method: method.to_owned(),
                begun: Instant::now(),
            }),
            live: None,
            code: Code::Cancelled,
        }
    }
}

/// A call that is counted when it is dropped: after the trailers, or when somebody gave it up.
#[derive(Debug)]
pub(super) struct Call {
    counted: Option<Counted>,
    live: Option<LiveSpan>,
    code: Code,
}

#[derive(Debug)]
struct Counted {
    meter: Arc<Meter>,
    service: String,
    method: String,
    begun: Instant,
}

impl Counted {
    fn over(&self, code: Code) {
        let labels = [self.service.as_str(), self.method.as_str()];
        let [service, method] = labels;
        self.meter.open.add(&labels, -1.0);
        let seconds = self.begun.elapsed().as_secs_f64();
        self.meter.seconds.observe(&labels, seconds);
        self.meter.handled.inc(&[service, method, spelled(code)]);
    }
}

impl Call {
    /// What it came to.
    pub(super) fn ended(&mut self, code: Code) {
        self.code = code;
    }

    /// Counts to the body's end.
    pub(super) fn over(mut self, response: http::Response<Body>) -> http::Response<Body> {
        if let Some(status) = Status::from_header_map(response.headers()) {
            self.ended(status.code());
        }
        response.map(|inner| Body::new(CountedBody { inner, call: self }))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.came_to(self.code);
        }
        if let Some(counted) = self.counted.take() {
            counted.over(self.code);
        }
    }
}

struct CountedBody {
    inner: Body,
    call: Call,
}

impl http_body::Body for CountedBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.call.ended(status.code());
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.ended(status.code()),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// What meters the calls that this server makes. Until it is published it counts nothing.
#[derive(Clone, Debug, Default)]
pub struct ClientMeter(Arc<OnceLock<Arc<Meter>>>);

impl ClientMeter {
    /// Counts there from now on.
    pub fn publish(&self, metrics: &Metrics) {
        self.0.get_or_init(|| Arc::new(Meter::new(metrics, MADE)));
    }

    /// The same channel, metered.
    pub fn over<S>(&self, channel: S) -> Calls<S> {
        Calls {
            inner: channel,
            meter: self.clone(),
        }
    }
}

/// A channel whose calls are counted and timed, and go on with the caller's trace.
#[derive(Clone, Debug)]
pub struct Calls<S> {
    inner: S,
    meter: ClientMeter,
}

impl<S> Service<http::Request<Body>> for Calls<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<http::Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let mut call = self.begin(request.uri().path());
        if let Some(live) = &call.live
            && let Ok(header) = HeaderValue::from_str(&live.context().to_string())
        {
            request.headers_mut().insert(TRACEPARENT, header);
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(call.over(response)),
                Err(error) => {
                    call.ended(Code::Unavailable);
                    Err(error)
                }
            }
        })
    }
}

impl<S> Calls<S> {
    /// The path is one of a generated client.
    fn begin(&self, path: &str) -> Call {
        let (service, method) = names(path);
        let mut call = match self.meter.0.get() {
            Some(meter) => meter.begin(service, method),
            None => Call {
                counted: None,
                live: None,
                code: Code::Cancelled,
            },
        };
        // What is called for nobody in particular, as a watch, is in no trace.
        call.live = TraceContext::current().map(|context| {
            LiveSpan::under(
                Some(context),
                format!("{service}/{method}"),
                SpanKind::Client,
            )
        });
        call
    }
}

/// Service and method of `/package.Service/Method`.
pub(super) fn names(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

/// A code as gRPC spells it.
fn spelled(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_is_counted_by_its_code_and_one_that_was_given_up_as_such() {
        let metrics = Metrics::default();
        let meter = ClientMeter::default();
        meter.publish(&metrics);
        let answer = |request: http::Request<Body>| async move {
            match request.uri().path() {
                "/p.S/Refused" => Ok(Status::not_found("no").into_http::<Body>()),
                "/p.S/Broken" => Err(()),
                _ => std::future::pending().await,
            }
        };
        let mut calls = meter.over(tower::service_fn(answer));
        let request = |path: &str| http::Request::post(path).body(Body::empty()).unwrap();
        drop(calls.call(request("/p.S/Refused")).await.unwrap());
        assert!(calls.call(request("/p.S/Broken")).await.is_err());
        let under_way = calls.call(request("/p.S/Slow"));
        let open = "livemerge_grpc_client_open{service=\"p.S\",method=\"Slow\"}";
        assert!(metrics.text().contains(&format!("{open} 1.0")));
        drop(under_way);
        let text = metrics.text();
        assert!(text.contains(&format!("{open} 0.0")), "{text}");
        for (method, code) in [
            ("Refused", "NOT_FOUND"),
            ("Broken", "UNAVAILABLE"),
            ("Slow", "CANCELLED"),
        ] {
            let line = format!(
                "livemerge_grpc_client_handled_total{{service=\"p.S\",method=\"{method}\",code=\"{code}\"}} 1"
            );
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}
