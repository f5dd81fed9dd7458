//! Where ended spans go: to a collector of OpenTelemetry's, by OTLP over gRPC, in batches.
//!
//! The queue is bounded: what does not fit is dropped, and nobody ever waits for a collector.

use super::context::TraceContext;
use super::live::SpanKind;
use crate::{ClientConfig, ConfigError};
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
    SpanProcessor,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tonic::transport::{Channel, Endpoint, Uri};

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
    /// The collector, `http://ADDRESS:PORT` or `https://ADDRESS:PORT`; empty: spans are not recorded.
    pub endpoint: String,
    /// The authorities whose certificate the collector must have, for `https://`. PEM, as the others.
    pub ca_file: Option<PathBuf>,
    /// The certificate to show it, if it asks for one.
    pub cert_file: Option<PathBuf>,
    /// The key of that certificate.
    pub key_file: Option<PathBuf>,
}

impl TracesConfig {
    /// Whether it can be used.
    ///
    /// # Errors
    /// [`ConfigError::Traces`] when the endpoint is none, and what keys do not fit together.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.endpoint.is_empty() {
            return Ok(());
        }
        let refused = if self.cert_file.is_some() && self.key_file.is_none() {
            ("traces.cert_file", "needs traces.key_file")
        } else if self.key_file.is_some() && self.cert_file.is_none() {
            ("traces.key_file", "needs traces.cert_file")
        } else if self.cert_file.is_some() && self.ca_file.is_none() {
            ("traces.cert_file", "needs traces.ca_file")
        } else {
            return self.admitted();
        };
        Err(ConfigError::conflict(refused.0, refused.1))
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// [`ConfigError::SecurityFile`].
    pub fn check_files(&self) -> Result<(), ConfigError> {
        self.client().open(true).map(drop)
    }

    fn admitted(&self) -> Result<(), ConfigError> {
        let uri = self.endpoint.parse::<Uri>();
        let is_one = uri.is_ok_and(|uri| {
            let host = uri.host().is_some_and(|host| !host.is_empty());
            host && matches!(uri.scheme_str(), Some("http" | "https"))
        });
        if !is_one {
            return Err(self.unusable("is not http://ADDRESS:PORT or https://ADDRESS:PORT"));
        }
        // What it is sent names machines, but no secret: across a network in plaintext, if so wished.
        let anywhere = true;
        let admitted = self.client().admit(&self.endpoint, anywhere);
        admitted.map_err(|why| self.unusable(&why.replace("client.", "traces.")))
    }

    /// It is called by the rules by which the servers call each other, with files that are read again.
    fn client(&self) -> ClientConfig {
        ClientConfig {
            ca_file: self.ca_file.clone(),
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
            ..ClientConfig::default()
        }
    }

    /// Connected when the first spans are sent.
    fn channel(&self) -> Result<Channel, ConfigError> {
        let bounds = |endpoint: Endpoint| endpoint.connect_timeout(TIME_LIMIT).timeout(TIME_LIMIT);
        let line = self.client().open(true)?.line(&self.endpoint, bounds);
        let line = line.map_err(|why| self.unusable(&why))?;
        line.channel()
            .ok_or_else(|| self.unusable("cannot be called"))
    }

    fn unusable(&self, why: &str) -> ConfigError {
        let own = format!("{} ", self.endpoint);
        ConfigError::Traces {
            endpoint: self.endpoint.clone(),
            why: why.strip_prefix(&own).unwrap_or(why).to_owned(),
        }
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
/// As [`TracesConfig::check`], and [`ConfigError::SecurityFile`].
pub fn start(config: &TracesConfig, service: &str, instance: &str) -> Result<Export, ConfigError> {
    config.check()?;
    if config.endpoint.is_empty() {
        return Ok(Export(()));
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_channel(config.channel()?)
        .with_timeout(TIME_LIMIT)
        .build()
        .map_err(|error| config.unusable(&error.to_string()))?;
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
            ..TracesConfig::default()
        };
        for good in ["", "http://127.0.0.1:4317", "http://collector.example:4317"] {
            assert!(at(good).check().is_ok(), "{good}");
        }
        for bad in ["127.0.0.1:4317", "http://", "grpc://a"] {
            let refused = at(bad).check().unwrap_err().to_string();
            assert!(refused.starts_with("traces.endpoint"), "{refused}");
        }
        let _off = start(&at(""), "a", "b").unwrap();
        assert!(!is_on());
    }

    #[test]
    fn keys_that_do_not_fit_together_are_named() {
        let file = |is: bool| is.then(|| PathBuf::from("/a.pem"));
        let with = |endpoint: &str, [ca, cert, key]: [bool; 3]| TracesConfig {
            endpoint: endpoint.to_owned(),
            ca_file: file(ca),
            cert_file: file(cert),
            key_file: file(key),
        };
        let (tls, plain) = ("https://a:4317", "http://a:4317");
        for (config, wrong) in [
            (with(tls, [true, false, false]), None),
            (with(tls, [true, true, true]), None),
            (
                with(tls, [false, false, false]),
                Some("needs traces.ca_file"),
            ),
            (with(tls, [true, true, false]), Some("traces.cert_file")),
            (with(tls, [true, false, true]), Some("traces.key_file")),
            (
                with(plain, [true, false, false]),
                Some("traces.ca_file is set"),
            ),
        ] {
            let refused = config.check().err().map(|error| error.to_string());
            let as_wished = match (&refused, wrong) {
                (None, None) => true,
                (Some(refused), Some(wrong)) => refused.contains(wrong),
                _ => false,
            };
            assert!(as_wished, "{config:?}: {refused:?}");
        }
    }
}
