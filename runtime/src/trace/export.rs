//! Where ended spans go: to a collector of OpenTelemetry's, by OTLP over gRPC, in batches.
//!
//! The queue is bounded: what does not fit is dropped, and nobody ever waits for a collector.

use super::context::TraceContext;
use super::live::SpanKind;
use crate::ConfigError;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
    SpanProcessor,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tonic::transport::Uri;

/// How long a batch waits for more, and how long a collector may take for it.
const BATCH_EVERY: Duration = Duration::from_secs(1);
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// What is left at the end of the process may take so long.
const LAST: Duration = Duration::from_secs(3);

/// One for the process, as logs are.
static SENT_TO: OnceLock<BatchSpanProcessor> = OnceLock::new();

/// The table `[traces]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector, `http://ADDRESS:PORT`; empty: spans are not recorded.
    pub endpoint: String,
}

impl TracesConfig {
    /// Whether it can be used.
    ///
    /// # Errors
    /// [`ConfigError::Traces`] when the endpoint is none.
    pub fn check(&self) -> Result<(), ConfigError> {
        let usable = self.endpoint.parse::<Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())
        });
        if usable || self.endpoint.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Traces {
            endpoint: self.endpoint.clone(),
        })
    }
}

/// Sends what is left when it is dropped.
#[derive(Debug)]
#[must_use = "what is left is sent when it is dropped"]
pub struct Export(());

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(sent_to) = SENT_TO.get()
            && let Err(error) = sent_to.shutdown_with_timeout(LAST)
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// Sends spans of this process from now on, as those of `service`, if that is configured. Called
/// within a runtime, and once: a later call keeps the first collector.
///
/// # Errors
/// [`ConfigError::Traces`] when the endpoint cannot be used.
pub fn start(config: &TracesConfig, service: &str, instance: &str) -> Result<Export, ConfigError> {
    config.check()?;
    if config.endpoint.is_empty() {
        return Ok(Export(()));
    }
    let unusable = |_| ConfigError::Traces {
        endpoint: config.endpoint.clone(),
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(TIME_LIMIT)
        .build()
        .map_err(unusable)?;
    let batches = BatchConfigBuilder::default()
        .with_scheduled_delay(BATCH_EVERY)
        .build();
    let mut sent_to = BatchSpanProcessor::builder(Told::new(exporter))
        .with_batch_config(batches)
        .build();
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.namespace", "livemerge"),
        KeyValue::new("service.name", service.to_owned()),
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    sent_to.set_resource(&resource.build());
    if SENT_TO.set(sent_to).is_err() {
        tracing::debug!("traces were started before");
    }
    Ok(Export(()))
}

/// Whether spans are sent somewhere.
pub(super) fn is_on() -> bool {
    SENT_TO.get().is_some()
}

/// A span that is over.
pub(super) struct Ended {
    pub(super) context: TraceContext,
    pub(super) parent: Option<u64>,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: SpanKind,
    pub(super) begun: SystemTime,
    pub(super) ended: SystemTime,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) error: Option<String>,
}

pub(super) fn record(span: Ended) {
    if let Some(sent_to) = SENT_TO.get().filter(|_| span.context.is_sampled()) {
        sent_to.on_end(data(span));
    }
}

fn data(span: Ended) -> SpanData {
    let (kind, remote) = match span.kind {
        SpanKind::Server => (opentelemetry::trace::SpanKind::Server, true),
        SpanKind::Client => (opentelemetry::trace::SpanKind::Client, false),
        SpanKind::Internal => (opentelemetry::trace::SpanKind::Internal, false),
    };
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(span.context.trace().to_be_bytes()),
            SpanId::from_bytes(span.context.span().to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::from_bytes(span.parent.unwrap_or_default().to_be_bytes()),
        parent_span_is_remote: remote && span.parent.is_some(),
        span_kind: kind,
        name: span.name,
        start_time: span.begun,
        // A machine's clock may have been set back meanwhile.
        end_time: span.ended.max(span.begun),
        attributes: span.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("livemerge").build(),
    }
}

/// Says once that a collector does not answer, and once that it does again.
#[derive(Debug)]
struct Told<E> {
    inner: E,
    fails: AtomicBool,
}

impl<E> Told<E> {
    fn new(inner: E) -> Self {
        Told {
            inner,
            fails: AtomicBool::new(false),
        }
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.inner.export(batch).await;
        let failed = self.fails.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed => tracing::warn!(%error, "traces cannot be sent"),
            Ok(()) if failed => tracing::info!("traces are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_none_is_refused_and_none_is_off() {
        let at = |endpoint: &str| TracesConfig {
            endpoint: endpoint.to_owned(),
        };
        for good in ["", "http://127.0.0.1:4317", "http://collector.example:4317"] {
            assert!(at(good).check().is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:4317", "https://a:1", "http://", "grpc://a"] {
            let refused = at(bad).check().unwrap_err().to_string();
            assert!(refused.starts_with("traces.endpoint"), "{refused}");
        }
        let _off = start(&at(""), "a", "b").unwrap();
        assert!(!is_on());
    }
}
