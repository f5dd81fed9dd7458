//! What every server says of itself.

use super::{Definition, Metrics};
use crate::{Clock, SystemClock};
use std::time::Instant;

const BUILD: Definition = Definition::gauge(
    "livemerge_build_info",
    &["program", "version", "commit"],
    "Always 1, for what runs; the commit is empty where the build did not know it",
);
const STARTED: Definition = Definition::gauge(
    "livemerge_start_time_seconds",
    &[],
    "When the process started, in seconds since 1970",
);
const UPTIME: Definition = Definition::gauge(
    "livemerge_uptime_seconds",
    &[],
    "For how long the process has run",
);

pub(super) fn add(metrics: &Metrics, program: &str) {
    // Set by who builds, as the Containerfile does.
    let commit = option_env!("LIVEMERGE_COMMIT").unwrap_or("");
    let build = metrics.gauge(BUILD);
    build.set(&[program, env!("CARGO_PKG_VERSION"), commit], 1.0);
    let started_at = SystemClock.now().as_duration().as_secs_f64();
    metrics.gauge(STARTED).set(&[], started_at);
    let (uptime, begun) = (metrics.gauge(UPTIME), Instant::now());
    metrics.refresh(move || uptime.set(&[], begun.elapsed().as_secs_f64()));
}
