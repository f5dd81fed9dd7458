//! The layer that counts and times what is served, a panic and a passed deadline included.

use super::calls::{Meter, names};
use super::{Metrics, OTHER};
use crate::layers::{AnswerFuture, GrpcService};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tower::Service;

/// What meters the calls that are served.
#[derive(Clone, Debug)]
pub(crate) struct ServerMeter(Arc<Meter>);

impl ServerMeter {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        ServerMeter(Arc::new(Meter::of_server(metrics)))
    }
}

/// Counts and times calls.
#[derive(Clone, Debug)]
pub(crate) struct MetricsLayer<S> {
    inner: S,
    meter: ServerMeter,
    known: Arc<HashSet<String>>,
}

impl<S> MetricsLayer<S> {
    /// Methods that none of the `served` services of these descriptors has count as [`OTHER`].
    pub(crate) fn new(
        inner: S,
        meter: ServerMeter,
        descriptors: &[&[u8]],
        served: &HashSet<&str>,
    ) -> Self {
        MetricsLayer {
            inner,
            meter,
            known: Arc::new(methods(descriptors, served)),
        }
    }
}

/// The paths of these services' methods.
fn methods(descriptors: &[&[u8]], served: &HashSet<&str>) -> HashSet<String> {
    let mut known = HashSet::new();
    // One that is malformed keeps the server from its start, by reflection.
    let sets = descriptors
        .iter()
        .filter_map(|set| FileDescriptorSet::decode(*set).ok());
    for file in sets.flat_map(|set| set.file) {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if served.contains(name.as_str()) {
                let methods = service.method.iter();
                known.extend(methods.map(|method| format!("/{name}/{}", method.name())));
            }
        }
    }
    known
}

impl<S: GrpcService> Service<http::Request<Body>> for MetricsLayer<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = AnswerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let (service, method) = match self.known.contains(path) {
            true => names(path),
            false => (OTHER, OTHER),
        };
        let call = self.meter.0.begin(service, method);
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(call.over(answer.await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[tokio::test]
    async fn what_is_not_served_counts_as_one_thing() {
        let metrics = Metrics::default();
        let health = [tonic_health::pb::FILE_DESCRIPTOR_SET];
        let served = HashSet::from(["grpc.health.v1.Health"]);
        let answer = |_| async { Ok(Status::ok("").into_http::<Body>()) };
        let meter = ServerMeter::new(&metrics);
        let mut layer = MetricsLayer::new(tower::service_fn(answer), meter, &health, &served);
        for path in ["/grpc.health.v1.Health/Check", "/a.B/C", "/", "/x"] {
            let request = http::Request::post(path).body(Body::empty()).unwrap();
            drop(layer.call(request).await.unwrap());
        }
        let text = metrics.text();
        let count = |service: &str, method: &str, count: u32| {
            let labels = format!("service=\"{service}\",method=\"{method}\",code=\"OK\"");
            let line = format!("livemerge_grpc_server_handled_total{{{labels}}} {count}");
            assert!(text.contains(&line), "{line}: {text}");
        };
        count("grpc.health.v1.Health", "Check", 1);
        count(OTHER, OTHER, 3);
    }
}
