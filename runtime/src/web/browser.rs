//! What stands between a browser and the services.

use super::Origin;
use super::pages::{Files, Pages};
use crate::layers::{Answer, AnswerFuture, GrpcService};
use http::header::{AUTHORIZATION, CONTENT_TYPE, ORIGIN};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer as _, Service};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

/// What a page may send beside what every page may.
const SENT: [HeaderName; 7] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-user-agent"),
];
/// What a page may read beside what every page may: how a call ended stands among the headers when
/// it has no answer.
const READ: [HeaderName; 4] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("x-request-id"),
];
/// For so long a browser need not ask again what it may send.
const REMEMBERED: Duration = Duration::from_secs(600);

const GRPC: &[u8] = b"application/grpc";

/// The service as browsers get it.
pub(super) fn service<S: GrpcService>(
    inner: S,
    origins: &[Origin],
    pages: Option<Pages>,
) -> Browsers<S> {
    let origins: Vec<HeaderValue> = origins.iter().map(|o| o.header().clone()).collect();
    // Credentials are a token that a page sends by itself; what a browser adds on its own, as a client's
    // certificate, is of no use to a page from elsewhere, which is refused before.
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins.clone()))
        .allow_methods([Method::POST])
        .allow_headers(SENT)
        .expose_headers(READ)
        .max_age(REMEMBERED);
    let paths = Paths {
        calls: GrpcWebLayer::new().layer(inner),
        files: Files(pages),
    };
    Browsers {
        inner: cors.layer(paths),
        origins: origins.into(),
    }
}

/// Refuses pages from elsewhere.
#[derive(Clone)]
pub(super) struct Browsers<S> {
    inner: Cors<Paths<S>>,
    origins: Arc<[HeaderValue]>,
}

impl<S: GrpcService> Service<Request<Body>> for Browsers<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut named = request.headers().get_all(ORIGIN).iter();
        if named.all(|origin| self.origins.contains(origin)) {
            return Box::pin(self.inner.call(request));
        }
        tracing::info!(origin = ?request.headers().get(ORIGIN), "a page from elsewhere was refused");
        Box::pin(ready(empty(StatusCode::FORBIDDEN)))
    }
}

/// Which request is a call, and which one is for a file.
#[derive(Clone)]
struct Paths<S> {
    calls: GrpcWebService<S>,
    files: Files,
}

impl<S: GrpcService> Service<Request<Body>> for Paths<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.calls, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let content = request.headers().get(CONTENT_TYPE);
        if content.is_some_and(|content| content.as_bytes().starts_with(GRPC)) {
            return Box::pin(self.calls.call(request));
        }
        self.files.call(request)
    }
}

pub(super) fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Ok(response)
}
