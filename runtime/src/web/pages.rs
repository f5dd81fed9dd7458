//! The files of a console, beside the calls of its pages.
//!
//! What has its content in its name may be kept for ever; the page that names those files is asked for each
//! time. A page loads nothing from elsewhere, runs nothing that is not among its files, and stands in no
//! other page.

use crate::layers::{Answer, AnswerFuture};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use std::convert::Infallible;
use std::future::ready;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::Service;

/// Gives the file under a path, such as `/` or `/assets/index.js`.
pub type Pages = fn(&str) -> Option<Page>;

/// A file of a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// All of it.
    pub content: Bytes,
    /// The same by gzip, where that is smaller.
    pub gzipped: Option<Bytes>,
    /// What browsers take it for, such as `text/html; charset=utf-8`.
    pub media_type: &'static str,
    /// Its name is another one when its content is.
    pub named_by_content: bool,
}

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'";
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Serves the files of a console, or nothing.
#[derive(Clone, Copy)]
pub(super) struct Files(pub(super) Option<Pages>);

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
            (VARY, "accept-encoding"),
        ] {
            say(name, value);
        }
        let small = page.gzipped.filter(|_| reads_gzip(request.headers()));
        if small.is_some() {
            say(CONTENT_ENCODING, "gzip");
        }
        if request.method() == Method::GET {
            *response.body_mut() = Body::new(Full::new(small.unwrap_or(page.content)));
        }
        Ok(response)
    }
}

/// As browsers say it: by its name, perhaps with a weight that is not zero.
fn reads_gzip(headers: &HeaderMap) -> bool {
    let mut said = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    said.any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, "q=1"));
        let weight = weight.trim().strip_prefix("q=").unwrap_or_default();
        name.trim() == "gzip" && weight.parse().is_ok_and(|weight: f32| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_who_says_so() {
        for (said, reads) in [
            ("gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("gzip;q=0", false),
            ("gzip; q=0.5", true),
            ("deflate", false),
            ("", false),
            ("xgzip", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(said))]);
            assert_eq!(reads_gzip(&headers), reads, "{said}");
        }
        assert!(!reads_gzip(&HeaderMap::new()));
    }
}
