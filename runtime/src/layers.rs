//! What every request passes, outside to in: request span, metrics, catch panic, deadline, then the
//! gate of [`crate::security`] and the limiter of [`crate::limits`], and last what ends the watches
//! of an old connection.
//!
//! Each layer is a plain [`tower::Service`] over tonic's body type that cannot fail: whatever goes
//! wrong inside is an answer with a gRPC status.

mod deadline;
mod methods;
mod panic;
mod request;
mod retire;
pub(crate) mod status;
mod until;

pub(crate) use deadline::{DeadlineLayer, Times};
pub(crate) use methods::{Kind, Methods};
pub(crate) use panic::CatchPanic;
pub use request::{RequestIds, RequestLayer, RequestSpan};
pub(crate) use retire::RetireLayer;
pub(crate) use until::Until;

use futures::future::BoxFuture;
use std::convert::Infallible;
use tonic::body::Body;
use tower::Service;

pub(crate) type Answer = Result<http::Response<Body>, Infallible>;
pub(crate) type AnswerFuture = BoxFuture<'static, Answer>;

/// A service of gRPC over HTTP/2 that always answers.
pub(crate) trait GrpcService:
    Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    >
{
}

impl<S> GrpcService for S where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future: Send + 'static,
        >
{
}
