//! The layer that lets a request pass or refuses it, and ends one whose credentials are good no
//! more, be it a stream. A server without `[auth]` has it, too: there it lets everything pass.

use super::guard::{Credentials, Guard};
use super::peer::Peer;
use crate::layers::{AnswerFuture, GrpcService, Until};
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// What is known of a request's connection: `I` is what tonic knows of the transport below TLS.
#[derive(Clone)]
pub(crate) struct ConnectionInfo<I> {
    pub(crate) transport: I,
    pub(crate) peer: Option<Arc<Peer>>,
}

/// Asks the guard about each request.
pub(crate) struct Gate<S, I> {
    inner: S,
    guard: Option<Arc<Guard>>,
    _info: PhantomData<fn() -> I>,
}

impl<S, I> Gate<S, I> {
    pub(crate) fn new(inner: S, guard: Option<Arc<Guard>>) -> Self {
        Gate {
            inner,
            guard,
            _info: PhantomData,
        }
    }
}

impl<S: Clone, I> Clone for Gate<S, I> {
    fn clone(&self) -> Self {
        Gate::new(self.inner.clone(), self.guard.clone())
    }
}

impl<S, I> Service<http::Request<Body>> for Gate<S, I>
where
    S: GrpcService,
    I: Clone + Send + Sync + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let info = request.extensions_mut().remove::<ConnectionInfo<I>>();
        let peer = info.as_ref().and_then(|info| info.peer.clone());
        if let Some(info) = info {
            // Where tonic looks for the caller's address.
            request.extensions_mut().insert(info.transport);
        }
        let Some(guard) = &self.guard else {
            return Box::pin(self.inner.call(request));
        };
        let shown = Credentials::new(request.uri().path(), request.headers(), peer);
        let caller = match guard.admit(&shown) {
            Err(refusal) => return Box::pin(std::future::ready(Ok(refusal.into_http()))),
            Ok(caller) => caller,
        };
        // Nothing further in has a use for it, or may come to log it.
        request.headers_mut().remove(AUTHORIZATION);
        let Some(caller) = caller else {
            return Box::pin(self.inner.call(request));
        };
        tracing::Span::current().record("caller", caller.name());
        request.extensions_mut().insert(caller);
        let call = self.inner.call(request);
        let mut refused: Refused = Box::pin(Arc::clone(guard).until_refused(shown));
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = call => answer.map(|response| {
                    response.map(|inner| Body::new(Until::new(inner, refused)))
                }),
                status = &mut refused => Ok(status.into_http()),
            }
        })
    }
}

type Refused = BoxFuture<'static, Status>;
