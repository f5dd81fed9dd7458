//! What a server counts and times, and where it is read.
//!
//! ```text
//!   Definition (name, labels, help) ─▶ Metrics::counter, gauge, histogram ─▶ handles, kept by who counts
//!                                         │
//!                refresh (gauges of what is) ─▶ Metrics::text ◀─ GET /metrics, on a port of its own
//! ```
//!
//! Every metric has a [`Definition`], which is also what its documentation is made from. The values
//! of labels come from closed lists, so that no client can make the set grow: what is not in a list
//! becomes [`OTHER`].

mod calls;
mod http;
mod layer;
mod process;

pub use calls::{Calls, ClientMeter};
pub use http::MetricsConfig;
pub(crate) use layer::{MetricsLayer, ServerMeter};

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::{counter, family::Family, gauge, histogram};
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The value of a label that is in no closed list.
pub const OTHER: &str = "_OTHER";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// What is now.
    Gauge,
    /// How often a value was at most so large.
    Histogram,
}

/// A metric, as it is exposed and documented.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// What it is.
    pub kind: MetricKind,
    /// Its name; a counter is exposed with `_total` behind it.
    pub name: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, one sentence without the full stop.
    pub help: &'static str,
    /// Upper bounds of a histogram.
    pub buckets: &'static [f64],
}

impl Definition {
    /// A counter.
    #[must_use]
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(MetricKind::Counter, name, labels, help, &[])
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(MetricKind::Gauge, name, labels, help, &[])
    }

    /// A histogram with these upper bounds.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
        buckets: &'static [f64],
    ) -> Self {
        Self::new(MetricKind::Histogram, name, labels, help, buckets)
    }

    const fn new(
        kind: MetricKind,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
        buckets: &'static [f64],
    ) -> Self {
        Self {
            kind,
            name,
            labels,
            help,
            buckets,
        }
    }

    /// The name of its samples; of a histogram `_bucket`, `_sum` and `_count` follow it.
    #[must_use]
    pub fn exposed_name(&self) -> String {
        match self.kind {
            MetricKind::Counter => format!("{}_total", self.name),
            MetricKind::Gauge | MetricKind::Histogram => self.name.to_owned(),
        }
    }

    fn set(&self, values: &[&str]) -> Labels {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        let named = self.labels.iter().zip(values);
        named
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect()
    }
}

type Labels = Vec<(&'static str, String)>;
type Refresh = Box<dyn Fn() + Send + Sync>;

/// The metrics of one server. Clones are the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    defined: Mutex<Vec<Definition>>,
    refresh: Mutex<Vec<Refresh>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Metrics")
            .field(&self.defined().len())
            .finish()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new("livemerge")
    }
}

impl Metrics {
    /// Those that every server has: what it is, and since when it runs.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let metrics = Self(Arc::new(Inner {
            registry: Mutex::default(),
            defined: Mutex::default(),
            refresh: Mutex::default(),
        }));
        process::add(&metrics, program);
        metrics
    }

    /// Adds a counter.
    #[must_use]
    pub fn counter(&self, definition: Definition) -> Counter {
        let family = Family::default();
        self.register(definition, MetricKind::Counter, family.clone());
        Counter { definition, family }
    }

    /// Adds a gauge.
    #[must_use]
    pub fn gauge(&self, definition: Definition) -> Gauge {
        let family = Family::default();
        self.register(definition, MetricKind::Gauge, family.clone());
        Gauge { definition, family }
    }

    /// Adds a histogram.
    #[must_use]
    pub fn histogram(&self, definition: Definition) -> Histogram {
        let family = Family::new_with_constructor(Buckets(definition.buckets));
        self.register(definition, MetricKind::Histogram, family.clone());
        Histogram { definition, family }
    }

    /// Calls this before each scrape, to set gauges to what is.
    pub fn refresh(&self, refresh: impl Fn() + Send + Sync + 'static) {
        lock(&self.0.refresh).push(Box::new(refresh));
    }

    /// Every metric that was added, in that order.
    #[must_use]
    pub fn defined(&self) -> Vec<Definition> {
        lock(&self.0.defined).clone()
    }

    /// All values, in the text form of OpenMetrics.
    #[must_use]
    pub fn text(&self) -> String {
        self.encode(text::encode)
    }

    /// All values, in the older text form of Prometheus.
    #[must_use]
    pub fn prometheus_text(&self) -> String {
        self.encode(prometheus_text::encode)
    }

    fn encode(&self, write: impl FnOnce(&mut String, &Registry) -> fmt::Result) -> String {
        // One scrape at a time: a gauge is cleared before it is set.
        let refresh = lock(&self.0.refresh);
        for refresh in refresh.iter() {
            refresh();
        }
        let mut out = String::new();
        let written = write(&mut out, &lock(&self.0.registry));
        written.expect("a string takes everything");
        out
    }

    fn register(
        &self,
        definition: Definition,
        kind: MetricKind,
        metric: impl prometheus_client::registry::Metric,
    ) {
        debug_assert_eq!(definition.kind, kind, "{}", definition.name);
        lock(&self.0.registry).register(definition.name, definition.help, metric);
        lock(&self.0.defined).push(definition);
    }
}

/// A counter with its labels.
#[derive(Clone, Debug)]
pub struct Counter {
    definition: Definition,
    family: Family<Labels, counter::Counter>,
}

impl Counter {
    /// One more. The values are those of the definition's labels, in its order.
    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1);
    }

    /// So many more; with 0 it is shown from now on.
    pub fn add(&self, values: &[&str], more: u64) {
        let labels = self.definition.set(values);
        self.family.get_or_create(&labels).inc_by(more);
    }
}

/// A gauge with its labels.
#[derive(Clone, Debug)]
pub struct Gauge {
    definition: Definition,
    family: Family<Labels, gauge::Gauge<f64, AtomicU64>>,
}

impl Gauge {
    /// It is so much.
    pub fn set(&self, values: &[&str], value: f64) {
        let labels = self.definition.set(values);
        self.family.get_or_create(&labels).set(value);
    }

    /// It changes by so much.
    pub fn add(&self, values: &[&str], by: f64) {
        let labels = self.definition.set(values);
        self.family.get_or_create(&labels).inc_by(by);
    }

    /// Nothing is known of it any more.
    pub fn clear(&self) {
        self.family.clear();
    }
}

/// A histogram with its labels.
#[derive(Clone, Debug)]
pub struct Histogram {
    definition: Definition,
    family: Family<Labels, histogram::Histogram, Buckets>,
}

impl Histogram {
    /// A value more.
    pub fn observe(&self, values: &[&str], value: f64) {
        let labels = self.definition.set(values);
        self.family.get_or_create(&labels).observe(value);
    }
}

#[derive(Clone, Debug)]
struct Buckets(&'static [f64]);

impl prometheus_client::metrics::family::MetricConstructor<histogram::Histogram> for Buckets {
    fn new_metric(&self) -> histogram::Histogram {
        histogram::Histogram::new(self.0.iter().copied())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Definition = Definition::counter("x_done", &["how"], "What was done");
    const OPEN: Definition = Definition::gauge("x_open", &[], "What is open");
    const TIME: Definition = Definition::histogram("x_seconds", &[], "How long", &[0.5, 1.0]);

    #[test]
    fn what_is_counted_is_exposed_with_its_labels() {
        let metrics = Metrics::new("livemerge-test");
        let (done, open, time) = (
            metrics.counter(DONE),
            metrics.gauge(OPEN),
            metrics.histogram(TIME),
        );
        done.inc(&["well"]);
        done.add(&["badly"], 0);
        time.observe(&[], 0.7);
        metrics.refresh(move || {
            open.clear();
            open.set(&[], 3.0);
        });
        let text = metrics.text();
        for line in [
            "x_done_total{how=\"well\"} 1",
            "x_done_total{how=\"badly\"} 0",
            "x_open 3.0",
            "x_seconds_bucket{le=\"0.5\"} 0",
            "x_seconds_bucket{le=\"1.0\"} 1",
            "# HELP x_done What was done.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("livemerge_build_info{program=\"livemerge-test\""));
        assert!(
            metrics
                .prometheus_text()
                .contains("# TYPE x_done_total counter")
        );
    }
}
