//! The outermost layer: gives every request its ids and one log line at its end.
//!
//! Ids are taken from `x-request-id` and the W3C `traceparent` where the client sends usable ones,
//! else made; a foreign value is checked before it reaches a log. What a handler
//! does works in the request's span ([`trace::TraceContext::current`]). Handlers find them as
//! [`RequestIds`] among the request's extensions; `x-request-id` goes back in the answer.

use super::{AnswerFuture, GrpcService};
use crate::trace::{self, LiveSpan, SpanKind, TRACEPARENT, TraceContext};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument, Span};
use uuid::Uuid;

const REQUEST_ID: &str = "x-request-id";
const LONGEST_REQUEST_ID: usize = 128;

/// Probes ask every few seconds; their good answers are no news.
const PROBES: &str = "/grpc.health.v1.Health/";

/// The ids of the request being served, for logs and for calls made on its behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestIds {
    /// `x-request-id`: visible ASCII, at most 128 characters.
    pub request_id: String,
    /// This server's span in the trace.
    pub trace: TraceContext,
}

fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| is_request_id(id))
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

fn is_request_id(text: &str) -> bool {
    (1..=LONGEST_REQUEST_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The caller's span, if it names one.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// Puts a [`RequestSpan`] around a service, for servers that are put together otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestLayer;

impl<S> Layer<S> for RequestLayer {
    type Service = RequestSpan<S>;

    fn layer(&self, inner: S) -> RequestSpan<S> {
        RequestSpan::new(inner)
    }
}

/// Serves each request inside a span and logs its end.
#[derive(Clone, Debug)]
pub struct RequestSpan<S> {
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
        let path = request.uri().path();
        let is_probe = path.starts_with(PROBES);
        let parent = parent(request.headers());
        let mut live = LiveSpan::under(
            parent,
            path[1.min(path.len())..].to_owned(),
            SpanKind::Server,
        );
        let ids = RequestIds {
            request_id: request_id(request.headers()),
            trace: live.context(),
        };
        live.set("livemerge.request_id", ids.request_id.as_str());
        let span = tracing::info_span!(
            "request",
            method = request.uri().path(),
            request_id = ids.request_id,
            trace_id = ids.trace.trace_id(),
            // Once it is known who asks.
            caller = tracing::field::Empty,
        );
        let id_header = HeaderValue::from_str(&ids.request_id).ok();
        let context = ids.trace;
        request.extensions_mut().insert(ids);
        let mut ending = Ending::new(span.clone(), live, is_probe);
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
        Box::pin(trace::scope(Some(context), served.instrument(span)))
    }
}

/// Logs the end of a request when it is dropped: after the trailers, or when the client left.
struct Ending {
    span: Span,
    live: Option<LiveSpan>,
    started: Instant,
    is_probe: bool,
    code: Option<Code>,
}

impl Ending {
    fn new(span: Span, live: LiveSpan, is_probe: bool) -> Self {
        Ending {
            span,
            live: Some(live),
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
        if let Some(mut live) = self.live.take() {
            match (self.is_probe, self.code) {
                (true, Some(Code::Ok) | None) => live.forget(),
                (_, code) => live.came_to(code.unwrap_or(Code::Cancelled)),
            }
        }
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
