//! The last events of a run, for whoever has to understand a failure.
//!
//! Words cost more than the run itself, so they are made only while a thread [`tells`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

/// Events that are kept, unless `LIVEMERGE_TRACE` says how many.
const KEPT: usize = 60;
/// Longest line, in characters.
const WIDTH: usize = 400;

thread_local! {
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the run of this thread is traced.
pub(super) fn tells() -> bool {
    TELLS.get()
}

/// The last events, oldest first.
#[derive(Debug)]
pub(super) struct Trace {
    kept: usize,
    lines: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(on: bool) -> Self {
        TELLS.set(on);
        let kept = std::env::var("LIVEMERGE_TRACE").ok();
        Self {
            kept: kept.and_then(|kept| kept.parse().ok()).unwrap_or(KEPT),
            lines: VecDeque::new(),
        }
    }

    /// Notes what happens now.
    pub(super) fn note(&mut self, now: Duration, what: impl FnOnce() -> String) {
        if !tells() {
            return;
        }
        if self.lines.len() >= self.kept {
            self.lines.pop_front();
        }
        let line = format!("{:>10.3} s  {}", now.as_secs_f64(), what());
        self.lines.push_back(line.chars().take(WIDTH).collect());
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
