//! The outermost layer: gives every request its ids and one log line at its end.
//!
//! Ids are taken from `x-request-id` and the W3C `traceparent` where the client sends usable ones,
//! else made; a foreign value is checked before it reaches a log. Handlers find them as
//! [`RequestIds`] among the request's extensions; `x-request-id` goes back in the answer.

use super::{AnswerFuture, GrpcService};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument, Span};
use uuid::Uuid;

const REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";
const LONGEST_REQUEST_ID: usize = 128;

/// Probes ask every few seconds; their good answers are no news.
const PROBES: &str = "/grpc.health.v1.Health/";

/// The ids of the request being served, for logs and for calls made on its behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestIds {
    /// `x-request-id`: visible ASCII, at most 128 characters.
    pub request_id: String,
    /// Trace id: 32 lower-case hexadecimal digits.
    pub trace_id: String,
    /// This server's span in the trace: 16 lower-case hexadecimal digits.
    pub span_id: String,
    /// Trace flags: two hexadecimal digits, `01` for sampled.
    pub trace_flags: String,
}

impl RequestIds {
    fn from_headers(headers: &HeaderMap) -> Self {
        let request_id = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|id| is_request_id(id))
            .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let (trace_id, trace_flags) = headers
            .get(TRACEPARENT)
            .and_then(|value| parse_traceparent(value.to_str().ok()?))
            .unwrap_or_else(|| (Uuid::new_v4().simple().to_string(), "00".to_owned()));
        let mut span_id = Uuid::new_v4().simple().to_string();
        span_id.truncate(16);
        RequestIds {
            request_id,
            trace_id,
            span_id,
            trace_flags,
        }
    }

    /// The value of `traceparent` for a call made on behalf of this request.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{}", self.trace_id, self.span_id, self.trace_flags)
    }
}

fn is_request_id(text: &str) -> bool {
    (1..=LONGEST_REQUEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Trace id and flags of `version-traceid-parentid-flags`, if it is valid. Later versions may
/// append fields.
fn parse_traceparent(text: &str) -> Option<(String, String)> {
    let hex = |field: &str, length: usize| {
        field.len() == length
            && field
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |field: &str| field.bytes().any(|b| b != b'0');
    let mut fields = text.split('-');
    let (version, trace, parent, flags) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let ends = version != "00" || fields.next().is_none();
    let valid = hex(version, 2)
        && version != "ff"
        && ends
        && hex(trace, 32)
        && not_zero(trace)
        && hex(parent, 16)
        && not_zero(parent)
        && hex(flags, 2);
    valid.then(|| (trace.to_owned(), flags.to_owned()))
}

/// Serves each request inside a span and logs its end.
#[derive(Clone, Debug)]
pub(crate) struct RequestSpan<S> {
    inner: S,
}

impl<S> RequestSpan<S> {
    pub(crate) fn new(inner: S) -> Self {
        RequestSpan { inner }
    }
}

impl<S: GrpcService> Service<http::Request<Body>> for RequestSpan<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let ids = RequestIds::from_headers(request.headers());
        let span = tracing::info_span!(
            "request",
            method = request.uri().path(),
            request_id = ids.request_id,
            trace_id = ids.trace_id,
            // Once it is known who asks.
            caller = tracing::field::Empty,
        );
        let id_header = HeaderValue::from_str(&ids.request_id).ok();
        request.extensions_mut().insert(ids);
        let is_probe = request.uri().path().starts_with(PROBES);
        let mut ending = Ending::new(span.clone(), is_probe);
        let call = span.in_scope(|| self.inner.call(request));
        let served = async move {
            let mut response = call.await?;
            if let Some(status) = Status::from_header_map(response.headers()) {
                ending.code = Some(status.code());
            }
            if let Some(id) = id_header {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            Ok(response.map(|inner| Body::new(ObservedBody { inner, ending })))
        };
        Box::pin(served.instrument(span))
    }
}

/// Logs the end of a request when it is dropped: after the trailers, or when the client left.
struct Ending {
    span: Span,
    started: Instant,
    is_probe: bool,
    code: Option<Code>,
}

impl Ending {
    fn new(span: Span, is_probe: bool) -> Self {
        Ending {
            span,
            started: Instant::now(),
            is_probe,
            code: None,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let _in_span = self.span.enter();
        let duration_ms = self.started.elapsed().as_secs_f64() * 1000.0;
        match self.code {
            Some(Code::Ok) | None if self.is_probe => {
                tracing::debug!(code = ?self.code, duration_ms, "probed");
            }
            None => tracing::info!(duration_ms, "client left before the end"),
            Some(code @ (Code::Internal | Code::Unknown | Code::DataLoss)) => {
                tracing::error!(?code, duration_ms, "answered");
            }
            Some(code) => tracing::info!(?code, duration_ms, "answered"),
        }
    }
}

struct ObservedBody {
    inner: Body,
    ending: Ending,
}

impl http_body::Body for ObservedBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let span = self.ending.span.clone();
        let polled = span.in_scope(|| Pin::new(&mut self.inner).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(status) = frame.trailers_ref().and_then(Status::from_header_map)
        {
            self.ending.code = Some(status.code());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
