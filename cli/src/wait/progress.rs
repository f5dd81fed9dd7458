//! [`Progress`]: what a person sees on stderr while an operation goes on.
//!
//! ```text
//!   ⠹ merging
//!   vda 1/2  [███████▓░░░░░░░░░░░░] 1.20 GiB of 3.50 GiB  80.00 MiB/s  29s left  copying
//!   vdb      caught up
//! ```
//!
//! A line a disk when stderr is a terminal; elsewhere one line for each change of phase, so that a
//! log stays short.

use super::phase::{current, describe, headline, of_disk};
use crate::output::text::escape;
use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use livemerge_proto::v1;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::time::Duration;

const HEAD: &str = "{spinner} {wide_msg}";
const COPYING: &str = "{prefix}  [{bar:20}] {bytes} of {total_bytes}  {wide_msg}";
const OTHERWISE: &str = "{prefix}  {wide_msg}";
const SPIN: Duration = Duration::from_millis(100);

/// Shows one operation.
pub(super) enum Progress {
    /// On a terminal.
    Bars(Bars),
    /// Elsewhere; holds the last line.
    Lines(String),
    /// Only what is said beside it.
    Silent,
}

impl Progress {
    pub(super) fn new() -> Self {
        let all = MultiProgress::new();
        // No terminal, or one that cannot go back in a line.
        if all.is_hidden() {
            return Self::Lines(String::new());
        }
        let head = all.add(line(HEAD));
        head.set_message("asking the server");
        head.enable_steady_tick(SPIN);
        let disks = Vec::new();
        Self::Bars(Bars { all, head, disks })
    }

    pub(super) fn silent() -> Self {
        Self::Silent
    }

    /// Shows the operation as it stands.
    pub(super) fn show(&mut self, operation: &v1::Operation) {
        match self {
            Self::Bars(bars) => bars.show(operation),
            Self::Lines(last) => {
                let phase = describe(operation);
                if *last != phase {
                    say(format_args!("operation {}: {phase}", escape(&operation.id)));
                    *last = phase;
                }
            }
            Self::Silent => {}
        }
    }

    /// Says something beside the progress.
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Bars(bars) => bars.all.suspend(|| say(escape(text))),
            Self::Lines(_) | Self::Silent => say(escape(text)),
        }
    }
}

/// A line for the operation, and one for each disk.
pub(super) struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    disks: Vec<ProgressBar>,
}

impl Bars {
    fn show(&mut self, operation: &v1::Operation) {
        self.head.set_message(headline(operation));
        let disks: Vec<_> = current(operation).collect();
        let names: Vec<String> = disks.iter().map(|disk| disk.name()).collect();
        let width = names.iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0);
        self.have(disks.len());
        for ((bar, disk), name) in self.disks.iter().zip(disks).zip(names) {
            bar.set_prefix(format!("{name:width$}"));
            draw(bar, disk.merge);
        }
    }

    /// A plan can turn out to have other disks than at first.
    fn have(&mut self, count: usize) {
        while self.disks.len() < count {
            let bar = self.all.add(line(OTHERWISE));
            // A change may come too soon after another one to be drawn at once.
            bar.enable_steady_tick(SPIN);
            self.disks.push(bar);
        }
        for gone in self.disks.drain(count..) {
            gone.finish_and_clear();
        }
    }
}

/// The lines go with the wait; what the operation came to is on stdout.
impl Drop for Bars {
    fn drop(&mut self) {
        self.have(0);
        self.head.finish_and_clear();
    }
}

fn line(template: &str) -> ProgressBar {
    ProgressBar::no_length().with_style(style(template))
}

fn draw(bar: &ProgressBar, merge: &v1::DiskProgress) {
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let (done, total) = (bytes(merge.done_bytes), bytes(merge.total_bytes));
    bar.set_style(style(if total > 0 { COPYING } else { OTHERWISE }));
    bar.set_length(total);
    bar.set_position(done.min(total));
    bar.set_message(message(merge));
}

/// What a narrow terminal cuts off stands last. Rate and time left are the host's, which has the
/// better view of both.
fn message(merge: &v1::DiskProgress) -> String {
    let mut parts = Vec::new();
    if let Some(rate) = u64::try_from(merge.bytes_per_second)
        .ok()
        .filter(|r| *r > 0)
    {
        parts.push(format!("{}/s", HumanBytes(rate)));
    }
    if let Some(left) = merge
        .time_left
        .and_then(|left| Duration::try_from(left).ok())
    {
        parts.push(format!("{:#} left", HumanDuration(left)));
    }
    parts.push(of_disk(merge.phase()).to_owned());
    parts.join("  ")
}

/// A reader of stderr that went away is no reason to stop waiting.
fn say(text: impl Display) {
    let _unread = io::stderr().write_all(format!("{text}\n").as_bytes());
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

    #[test]
    fn nonsense_is_left_out() {
        let left = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let mut merge = v1::DiskProgress {
            phase: v1::MergePhase::Copying.into(),
            bytes_per_second: 1 << 20,
            time_left: left(3),
            ..Default::default()
        };
        assert_eq!(message(&merge), "1.00 MiB/s  3s left  copying");
        (merge.bytes_per_second, merge.time_left) = (-1, left(-1));
        assert_eq!(message(&merge), "copying");
    }

    #[test]
    fn templates_are_sound() {
        for template in [HEAD, COPYING, OTHERWISE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
