//! The files of a console, beside the calls of its pages.
//!
//! What has its content in its name may be kept for ever; the page that names those files is asked for each
//! time. A page loads nothing from elsewhere, runs nothing that is not among its files, and stands in no
//! other page.

use crate::layers::{Answer, AnswerFuture};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use std::borrow::Cow;
use std::convert::Infallible;
use std::future::ready;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::{Layer as _, Service};
use tower_http::compression::{Compression, CompressionLayer};

/// Gives the file under a path, such as `/` or `/assets/index.js`.
pub type Pages = fn(&str) -> Option<Page>;

/// A file of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// All of it.
    pub content: Cow<'static, [u8]>,
    /// What browsers take it for, such as `text/html; charset=utf-8`.
    pub media_type: &'static str,
    /// Its name is another one when its content is.
    pub named_by_content: bool,
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Serves them, smaller to those who can read it so.
pub(super) fn service(pages: Option<Pages>) -> Compression<Files> {
    CompressionLayer::new().layer(Files(pages))
}

/// Serves them, or nothing.
#[derive(Clone, Copy)]
pub(super) struct Files(Option<Pages>);

impl Service<Request<Body>> for Files {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(ready(self.answer(&request)))
    }
}

impl Files {
    fn answer(self, request: &Request<Body>) -> Answer {
        let page = self.0.and_then(|pages| pages(request.uri().path()));
        let Some(page) = page else {
            return super::browser::empty(StatusCode::NOT_FOUND);
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        let mut say = |name, value| headers.insert(name, HeaderValue::from_static(value));
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            say(ALLOW, "GET, HEAD");
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return Ok(response);
        }
        let kept = if page.named_by_content {
            FOR_EVER
        } else {
            "no-cache"
        };
        for (name, value) in [
            (CONTENT_TYPE, page.media_type),
            (CACHE_CONTROL, kept),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
        ] {
            say(name, value);
        }
        if request.method() == Method::GET {
            let content = match page.content {
                Cow::Borrowed(content) => content.into(),
                Cow::Owned(content) => content.into(),
            };
            *response.body_mut() = Body::new(Full::<bytes::Bytes>::new(content));
        }
        Ok(response)
    }
}
