//! The events of a run in words, for whoever has to understand a failure, or holds two runs against each other.
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

/// How much of a run is put in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traced {
    /// Nothing.
    Not,
    /// The last events.
    Last,
    /// All of it.
    Whole,
}

/// The events that are kept, oldest first.
#[derive(Debug)]
pub(super) struct Trace {
    kept: usize,
    lines: VecDeque<String>,
}

impl Trace {
    /// Of the thread that makes it, which must also run what is traced.
    pub(super) fn new(traced: Traced) -> Self {
        TELLS.set(traced != Traced::Not);
        let wanted = std::env::var("LIVEMERGE_TRACE").ok();
        let wanted = wanted.and_then(|wanted| wanted.parse().ok());
        Self {
            kept: match traced {
                Traced::Not => 0,
                Traced::Last => wanted.unwrap_or(KEPT),
                Traced::Whole => usize::MAX,
            },
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
