//! The layer that gives each request its place, or refuses it.

use super::answer::{HeldBody, Patience};
use super::shares::{Holder, Place, Refused, Shares};
use super::shed::{Limit, Shed};
use crate::layers::{AnswerFuture, GrpcService, Kind, Methods, status};
use crate::{Caller, Role, ServerConfig};
use http::Extensions;
use http_body::Body as _;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
use tower::Service;

/// The places of a server.
#[derive(Debug)]
pub(crate) struct Limits {
    methods: Methods,
    servers: Places,
    others: Places,
    /// Streams of health and reflection.
    own_watches: Shares,
    patience: Patience,
}

#[derive(Debug)]
struct Places {
    calls: Shares,
    watches: Shares,
}

impl Places {
    fn new(config: &ServerConfig, shed: &Shed) -> Self {
        Places {
            calls: Shares::new(config.max_concurrent_calls, Limit::Calls, shed),
            watches: watches(config, shed),
        }
    }
}

fn watches(config: &ServerConfig, shed: &Shed) -> Shares {
    Shares::new(config.max_watches, Limit::Watches, shed)
}

impl Limits {
    pub(crate) fn new(config: &ServerConfig, methods: Methods, shed: &Shed) -> Self {
        Limits {
            methods,
            servers: Places::new(config, shed),
            others: Places::new(config, shed),
            own_watches: watches(config, shed),
            patience: Patience {
                stall: config.watch_stall(),
                shed: shed.clone(),
            },
        }
    }

    /// A place for the request; none where it needs none.
    fn take<B>(&self, request: &http::Request<B>) -> Result<Option<Place>, Status> {
        let path = request.uri().path();
        let kind = self.methods.kind(path);
        let is_own = Methods::is_own(path);
        if is_own && kind == Kind::Unary {
            return Ok(None);
        }
        let caller = request.extensions().get::<Caller>();
        let places = match caller.map(Caller::role) {
            Some(Role::Agent | Role::Server) => &self.servers,
            Some(Role::Viewer | Role::Operator) | None => &self.others,
        };
        let holder = match caller {
            Some(caller) => Holder::Named(caller.name().to_owned()),
            None => address(request.extensions()),
        };
        let place = match kind {
            Kind::Unary => places.calls.take(holder).map_err(overloaded),
            _ if is_own => self.own_watches.take(holder).map_err(too_many_watches),
            Kind::Wait | Kind::Watch => places.watches.take(holder).map_err(too_many_watches),
        };
        place.map(Some)
    }
}

fn address(known: &Extensions) -> Holder {
    let tcp = known.get::<TcpConnectInfo>();
    let remote = tcp.and_then(TcpConnectInfo::remote_addr);
    remote.map_or(Holder::Local, |remote| Holder::at(remote.ip()))
}

fn overloaded(refused: Refused) -> Status {
    status::overloaded(match refused {
        Refused::Full => "the server has as many calls under way as it takes",
        Refused::Share => "this client has as many calls under way as it may have at present",
    })
}

fn too_many_watches(refused: Refused) -> Status {
    status::too_many_watches(match refused {
        Refused::Full => "the server has as many watches open as it takes",
        Refused::Share => "this client has as many watches open as it may have at present",
    })
}

/// Asks for a place for each request.
#[derive(Clone, Debug)]
pub(crate) struct Limiter<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S> Limiter<S> {
    pub(crate) fn new(inner: S, limits: Limits) -> Self {
        Limiter {
            inner,
            limits: Arc::new(limits),
        }
    }
}

impl<S: GrpcService> Service<http::Request<Body>> for Limiter<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let place = match self.limits.take(&request) {
            Ok(Some(place)) => place,
            Ok(None) => return Box::pin(self.inner.call(request)),
            Err(refusal) => return Box::pin(std::future::ready(Ok(refusal.into_http()))),
        };
        let patience = self.limits.patience.clone();
        let call = self.inner.call(request);
        Box::pin(async move {
            let answer = call.await?;
            // An error is its headers alone: they wait for nobody.
            if answer.body().is_end_stream() {
                return Ok(answer);
            }
            Ok(answer.map(|source| Body::new(HeldBody::new(source, place, patience))))
        })
    }
}
