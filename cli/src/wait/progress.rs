//! [`Progress`]: what a person sees on stderr while an operation goes on.
//!
//! A bar when stderr is a terminal; elsewhere one line for each change of phase, so that a log
//! stays short.

use super::phase::describe;
use crate::output::text::escape;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use livemerge_proto::v1;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

const COPYING: &str = "[{bar:20}] {bytes} of {total_bytes}  {wide_msg}";
const OTHERWISE: &str = "{spinner} {wide_msg}";
const SPIN: Duration = Duration::from_millis(100);

/// Shows one operation.
pub(super) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere; holds the last line.
    Lines(String),
    /// Only what is said beside it.
    Silent,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new(0).with_style(style(OTHERWISE));
        // No terminal, or one that cannot go back in a line.
        if bar.is_hidden() {
            return Self::Lines(String::new());
        }
        bar.set_message("asking the server");
        bar.enable_steady_tick(SPIN);
        Self::Bar(bar)
    }

    pub(super) fn silent() -> Self {
        Self::Silent
    }

    /// Shows the operation as it stands.
    pub(super) fn show(&mut self, operation: &v1::Operation) {
        let phase = describe(operation);
        match self {
            Self::Bar(bar) => Totals::of(operation).draw(bar, &phase),
            Self::Lines(last) if *last != phase => {
                say(format_args!("operation {}: {phase}", escape(&operation.id)));
                *last = phase;
            }
            Self::Lines(_) | Self::Silent => {}
        }
    }

    /// Says something beside the progress.
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| say(escape(text))),
            Self::Lines(_) | Self::Silent => say(escape(text)),
        }
    }
}

/// The bar goes with the wait; what the operation came to is on stdout.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// A reader of stderr that went away is no reason to stop waiting.
fn say(text: impl Display) {
    let _unread = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// All disks of an operation as one.
#[derive(Debug, PartialEq, Eq)]
struct Totals {
    done: u64,
    total: u64,
    rate: u64,
    left: Option<Duration>,
}

impl Totals {
    fn of(operation: &v1::Operation) -> Self {
        let sum = |bytes: fn(&v1::DiskProgress) -> i64| {
            let each = operation
                .disks
                .iter()
                .map(|disk| u64::try_from(bytes(disk)).unwrap_or(0));
            each.fold(0, u64::saturating_add)
        };
        let left = operation
            .disks
            .iter()
            .filter_map(|disk| disk.time_left.as_ref());
        Self {
            done: sum(|disk| disk.done_bytes),
            total: sum(|disk| disk.total_bytes),
            rate: sum(|disk| disk.bytes_per_second),
            left: left.filter_map(|left| Duration::try_from(*left).ok()).max(),
        }
    }

    fn draw(&self, bar: &ProgressBar, phase: &str) {
        bar.set_style(style(if self.total > 0 { COPYING } else { OTHERWISE }));
        bar.set_length(self.total);
        bar.set_position(self.done.min(self.total));
        bar.set_message(self.message(phase));
    }

    /// What a narrow terminal cuts off stands last. Rate and time left are the host's, which has
    /// the better view of both.
    fn message(&self, phase: &str) -> String {
        let mut parts = Vec::new();
        if self.rate > 0 {
            parts.push(format!("{}/s", HumanBytes(self.rate)));
        }
        if let Some(left) = self.left {
            parts.push(format!("{:#} left", HumanDuration(left)));
        }
        parts.push(phase.to_owned());
        parts.join("  ")
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▓░")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(done: i64, total: i64, rate: i64, left: Option<i64>) -> v1::DiskProgress {
        v1::DiskProgress {
            done_bytes: done,
            total_bytes: total,
            bytes_per_second: rate,
            time_left: left.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        }
    }

    #[test]
    fn disks_add_up_and_nonsense_counts_as_nothing() {
        let disks = vec![
            disk(1 << 20, 4 << 20, 1 << 20, Some(3)),
            disk(-1, i64::MIN, -1, Some(-1)),
        ];
        let totals = Totals::of(&v1::Operation {
            disks,
            ..Default::default()
        });
        let left = Some(Duration::from_secs(3));
        assert_eq!(
            totals,
            Totals {
                done: 1 << 20,
                total: 4 << 20,
                rate: 1 << 20,
                left
            }
        );
        assert_eq!(totals.message("merging"), "1.00 MiB/s  3s left  merging");
    }

    #[test]
    fn templates_are_sound() {
        for template in [COPYING, OTHERWISE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
