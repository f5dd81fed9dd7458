//! A gRPC server from its first connection to the end of its drain.
//!
//! ```text
//!  starting ──▶ serving ──Shutdown──▶ draining ──calls done──────────▶ ended
//!                                     │ health: NOT_SERVING
//!                                     │ watches end
//!                                     │ listener closed, GOAWAY
//!                                     └──drain_seconds passed──▶ cut ──▶ ended
//! ```
//!
//! SIGTERM and SIGINT cancel [`Shutdown`] from [`Server::end_with_signals`] on, so that whoever starts a
//! server can give up what it waits for.
//!
//! After [`Server::serve`] returns no connection of this server is served any more. Tasks that a
//! service started are not the server's: they watch [`Shutdown`] and are awaited by whoever
//! started them.

use crate::connections;
use crate::layers::{CatchPanic, DeadlineLayer, GrpcService, Methods, RequestSpan, RetireLayer};
use crate::limits::{Limiter, Limits, Shed};
use crate::listen::{self, Accept, Capacity, Listener, Protocols, Secured, Socket};
use crate::metrics::{Metrics, MetricsLayer, ServerMeter};
use crate::probes;
use crate::security::{Gate, Security, TlsFiles};
use crate::{Readiness, ServeError, ServerConfig, Web};
use futures::Stream;
use futures::future::join_all;
use std::convert::Infallible;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower::Service;

/// Cancelled when the server begins to drain; cancelling it begins the drain. Watches end when it
/// is cancelled, drivers stop at their next step boundary.
pub type Shutdown = CancellationToken;

/// Served by every server, beside its own services.
const SERVED_BESIDE: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Time for the connections to notice that they were cut off.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// A server in the making. Health is always part of it, and reflection unless configured off.
#[derive(Debug)]
pub struct Server {
    config: ServerConfig,
    routes: Routes,
    served: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
    methods: Methods,
    readiness: Readiness,
    shutdown: Shutdown,
    meter: ServerMeter,
    shed: Shed,
    security: Security,
    web: Vec<Web>,
}

impl Server {
    /// A server without services of its own.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Server {
            config,
            routes: Routes::default(),
            // First, so that the same types in a caller's set take precedence over them.
            descriptors: vec![
                tonic_types::pb::FILE_DESCRIPTOR_SET,
                tonic_health::pb::FILE_DESCRIPTOR_SET,
                tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            ],
            served: Vec::new(),
            methods: Methods::default(),
            readiness: Readiness::new(),
            shutdown: Shutdown::new(),
            meter: ServerMeter::new(&Metrics::default()),
            shed: Shed::new(&Metrics::default()),
            security: Security::default(),
            web: Vec::new(),
        }
    }

    /// Counts its calls there, and what it sheds.
    #[must_use]
    pub fn metered(mut self, metrics: &Metrics) -> Self {
        self.meter = ServerMeter::new(metrics);
        self.shed = Shed::new(metrics);
        self
    }

    /// The token that services and drivers watch.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// The handle that sets what health answers. Nothing is ready until it is set so.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Adds a generated service and makes its name known to health.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.readiness.register(S::NAME);
        self.served.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Adds an encoded `FileDescriptorSet` for reflection, as the build of the protos makes it.
    #[must_use]
    pub fn descriptors(mut self, encoded: &'static [u8]) -> Self {
        self.descriptors.push(encoded);
        self
    }

    /// Serves with TLS, and to those callers alone who may, as configured.
    #[must_use]
    pub fn secured(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Serves browsers beside, where there is an address for them: the same services, by gRPC-Web.
    #[must_use]
    pub fn web(mut self, web: impl IntoIterator<Item = Web>) -> Self {
        self.web.extend(web);
        self
    }

    /// Names streaming methods (`/package.Service/Method`): they are exempt from the server's
    /// bound on the time of a call, though not from a deadline the client sets, and count as
    /// watches.
    #[must_use]
    pub fn streams<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(Into::into);
        self.methods.add_watches(paths);
        self
    }

    /// Names unary methods that wait for something: they may take an hour, and count as watches.
    #[must_use]
    pub fn waits<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(Into::into);
        self.methods.add_waits(paths);
        self
    }

    /// From now on SIGTERM and SIGINT do not kill the process: they cancel [`Shutdown`].
    ///
    /// # Errors
    /// No signal handlers.
    pub fn end_with_signals(&self) -> Result<(), ServeError> {
        let signals = termination().map_err(ServeError::Signals)?;
        let shutdown = self.shutdown();
        tokio::spawn(async move {
            signals.await;
            tracing::info!("asked to end by a signal");
            shutdown.cancel();
        });
        Ok(())
    }

    /// Serves until [`Shutdown`], then drains. Returns at most `drain_seconds` and one second after
    /// the drain began.
    ///
    /// # Errors
    /// A malformed descriptor set, no signal handlers, or a panic where connections are accepted.
    /// Calls cut off at the end of the drain are logged and are no error.
    pub async fn serve(mut self, listener: Listener) -> Result<(), ServeError> {
        if self.config.reflection {
            self.add_reflection()?;
        }
        match listener.address() {
            Ok(address) => tracing::info!(%address, "serving"),
            Err(error) => tracing::warn!(%error, "serving on an address that cannot be told"),
        }
        let _probes = listener.health.map(|socket| {
            let probes = probes::serve(socket, &self.readiness, &self.config, &self.shed);
            AbortOnDropHandle::new(tokio::spawn(probes))
        });
        let max = listener.max_connections;
        let tls = self.security.tls.clone();
        match listener.socket {
            Socket::Tcp(socket) => self.serve_socket(socket, tls, max).await,
            // Only its owner can reach it, and nobody listens in.
            Socket::Unix(socket) => self.serve_socket(socket, None, max).await,
        }
    }

    async fn serve_socket<L: Accept>(
        self,
        socket: L,
        tls: Option<Arc<TlsFiles>>,
        max_connections: NonZeroU32,
    ) -> Result<(), ServeError> {
        let files = self.security.follow_files().map_err(ServeError::Signals)?;
        let _files = AbortOnDropHandle::new(tokio::spawn(files));
        let cut = CancellationToken::new();
        let capacity = self.capacity(max_connections);
        let incoming = listen::secured(socket, tls, Protocols::Grpc, &capacity, cut.clone());
        self.serve_incoming(incoming, cut).await
    }

    fn add_reflection(&mut self) -> Result<(), ServeError> {
        let builder = || {
            let own = tonic_reflection::server::Builder::configure();
            let described = self
                .descriptors
                .iter()
                .fold(own.include_reflection_service(false), |builder, set| {
                    builder.register_encoded_file_descriptor_set(set)
                });
            // The descriptors know services that this server does not serve.
            let served = self.served.iter().copied().chain(SERVED_BESIDE);
            served.fold(described, |builder, name| builder.with_service_name(name))
        };
        let malformed = |error| ServeError::Descriptors(format!("{error:?}"));
        let limit = self.config.max_message_bytes();
        let v1 = builder()
            .build_v1()
            .map_err(malformed)?
            .max_decoding_message_size(limit);
        let v1alpha = builder()
            .build_v1alpha()
            .map_err(malformed)?
            .max_decoding_message_size(limit);
        self.routes = std::mem::take(&mut self.routes)
            .add_service(v1)
            .add_service(v1alpha);
        Ok(())
    }

    fn capacity(&self, connections: NonZeroU32) -> Capacity {
        Capacity {
            connections,
            handshake: self.config.handshake(),
            shed: self.shed.clone(),
        }
    }

    /// What every request passes. `I` is what tonic knows of its connection below TLS.
    fn layered<I: Clone + Send + Sync + 'static>(
        &self,
        limited: Limiter<RetireLayer<Routes>>,
    ) -> impl GrpcService + Clone + Send + use<I> + 'static {
        let gate = Gate::<_, I>::new(limited, self.security.guard.clone());
        let (times, methods) = (self.config.times(), self.methods.clone());
        let service = CatchPanic::new(DeadlineLayer::new(gate, times, methods));
        let served = self.served.iter().copied().chain(SERVED_BESIDE).collect();
        let meter = self.meter.clone();
        let metered = MetricsLayer::new(service, meter, &self.descriptors, &served);
        RequestSpan::new(metered)
    }

    async fn serve_incoming<IO>(
        mut self,
        incoming: impl Stream<Item = Secured<IO>> + Send + 'static,
        cut: CancellationToken,
    ) -> Result<(), ServeError>
    where
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let limit = self.config.max_message_bytes();
        let health = self.readiness.service().max_decoding_message_size(limit);
        let routes = std::mem::take(&mut self.routes)
            .add_service(health)
            .prepare();
        // Who comes over which address makes no difference: the places are the same.
        let limits = Limits::new(&self.config, self.methods.clone(), &self.shed);
        let limited = Limiter::new(RetireLayer::new(routes, self.methods.clone()), limits);
        let stop = CancellationToken::new();
        let web = std::mem::take(&mut self.web).into_iter().map(|web| {
            let service = self.layered::<TcpConnectInfo>(limited.clone());
            let capacity = self.capacity(web.max_connections());
            let ends = [stop.clone(), cut.clone()];
            let tls = self.security.tls.clone();
            web.serve(service, self.config.with_http1(), tls, capacity, ends)
        });
        let web = join_all(web);
        let service = self.layered::<IO::ConnectInfo>(limited);
        let bounds = self.config.connection();
        let serving = connections::serve(incoming, service, bounds, stop.clone());
        let serving = async move {
            tokio::join!(serving, web);
        };
        let mut serving = AbortOnDropHandle::new(tokio::spawn(serving));

        tokio::select! {
            ended = &mut serving => return ended.map_err(ServeError::AcceptLoop),
            () = self.shutdown.cancelled() => tracing::info!("asked to end, draining"),
        }
        self.readiness.drain();
        stop.cancel();
        if let Ok(ended) = tokio::time::timeout(self.config.drain(), &mut serving).await {
            return ended.map_err(ServeError::AcceptLoop);
        }
        tracing::warn!("calls were still running at the end of the drain and are cut off");
        cut.cancel();
        match tokio::time::timeout(CUT_GRACE, &mut serving).await {
            Ok(ended) => ended.map_err(ServeError::AcceptLoop),
            Err(_) => {
                serving.abort();
                Ok(())
            }
        }
    }
}

/// Ready at the first SIGTERM or SIGINT after this call.
fn termination() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
