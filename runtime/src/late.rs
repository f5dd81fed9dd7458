//! A service that is not there yet: a server can serve before what it rests on answers.

use futures::future::{Either, Ready, ready};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// Answers every call with a status until the service is there. Clones are of the same service.
pub struct Late<S>(Arc<State<S>>);

struct State<S> {
    service: OnceLock<S>,
    absent: Status,
}

impl<S> Late<S> {
    /// None yet: `absent` is what calls are answered.
    #[must_use]
    pub fn new(absent: Status) -> Self {
        Late(Arc::new(State {
            service: OnceLock::new(),
            absent,
        }))
    }

    /// It is there from now on. The first one counts.
    pub fn arrived(&self, service: S) {
        self.0.service.get_or_init(|| service);
    }
}

impl<S> Clone for Late<S> {
    fn clone(&self) -> Self {
        Late(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Late<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late")
            .field("is_there", &self.0.service.get().is_some())
            .finish_non_exhaustive()
    }
}

impl<S: NamedService> NamedService for Late<S> {
    const NAME: &'static str = S::NAME;
}

/// Generated services are always ready.
impl<S> Service<http::Request<Body>> for Late<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.0.service.get() {
            Some(service) => Either::Left(service.clone().call(request)),
            None => Either::Right(ready(Ok(self.0.absent.clone().into_http()))),
        }
    }
}
