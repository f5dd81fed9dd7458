//! What may happen to a call on its way to a service and back.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use livemerge_proto::problem::Problem;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::between::{Between, Upset, Who};
use super::service;

/// How long after its answer a late call is done.
const LATE: Duration = Duration::from_millis(150);

/// Puts a [`Line`] before a service.
#[derive(Clone)]
pub(super) struct LineLayer {
    pub(super) to: Who,
    pub(super) service: service::Service,
    pub(super) between: Arc<dyn Between>,
}

impl<S> Layer<S> for LineLayer {
    type Service = Line<S>;

    fn layer(&self, inner: S) -> Line<S> {
        Line {
            layer: self.clone(),
            inner,
        }
    }
}

/// The line to a service.
#[derive(Clone)]
pub(super) struct Line<S> {
    layer: LineLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for Line<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let upset = self.layer.between.rpc(self.layer.to, method);
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let service = self.layer.service.clone();
        let answer = async move {
            let answer = match upset {
                None => inner.call(request).await,
                Some(upset) => upset_call(inner, request, upset).await,
            };
            if !service.runs() {
                // The dead do not answer, not even that a task of theirs has died.
                return std::future::pending().await;
            }
            answer
        };
        answer.boxed()
    }
}

async fn upset_call<S>(
    mut inner: S,
    request: Request<Body>,
    upset: Upset,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    let status = match upset {
        Upset::Refused | Upset::Unreached => Status::unavailable("the line broke on the way there"),
        Upset::Answers(reason) => Problem::new(reason, "as the test has planned").into(),
        Upset::Lost => {
            drop(inner.call(request).await);
            Status::unavailable("the line broke on the way back")
        }
        Upset::Late => {
            // The whole request has arrived; only then does the caller give up.
            let (parts, body) = request.into_parts();
            let body = whole(body).await;
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                inner.call(Request::from_parts(parts, body)).await
            });
            Status::deadline_exceeded("no answer in time")
        }
    };
    Ok(status.into_http())
}

async fn whole(body: Body) -> Body {
    use http_body_util::BodyExt as _;
    match body.collect().await {
        Ok(collected) => Body::new(collected.map_err(|never| match never {})),
        Err(_broken) => Body::empty(),
    }
}
