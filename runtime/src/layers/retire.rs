//! Ends watches and waits whose connection is about to be closed for its age, so that their clients
//! hear a reason and go on over another one. All other calls have the time of grace.

use super::{AnswerFuture, GrpcService, Kind, Methods, Until, status};
use crate::connections::Retiring;
use futures::FutureExt as _;
use std::convert::Infallible;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::Service;

/// Asks of each long call whether its connection retires.
#[derive(Clone, Debug)]
pub(crate) struct RetireLayer<S> {
    inner: S,
    methods: Methods,
}

impl<S> RetireLayer<S> {
    pub(crate) fn new(inner: S, methods: Methods) -> Self {
        RetireLayer { inner, methods }
    }
}

impl<S: GrpcService> Service<http::Request<Body>> for RetireLayer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let retiring = request.extensions_mut().remove::<Retiring>();
        let kind = self.methods.kind(request.uri().path());
        let call = self.inner.call(request);
        let (Some(retiring), Kind::Wait | Kind::Watch) = (retiring, kind) else {
            return Box::pin(call);
        };
        let retired = retiring.retired().map(|()| status::connection_retires());
        let mut retired = Box::pin(retired);
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = call => answer.map(|response| {
                    response.map(|inner| Body::new(Until::new(inner, retired)))
                }),
                status = &mut retired => Ok(status.into_http()),
            }
        })
    }
}
