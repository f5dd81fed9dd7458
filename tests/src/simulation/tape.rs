//! The steps of a run, as text: kept, they play again exactly, whatever is drawn by then.
//!
//! ```text
//!   # what it has found, in words
//!   world 332
//!   ! ClockJumps 1780…        an event while things go wrong, and the number that it draws from
//!   - ServerGoesOn 9231…      one after faults have stopped, or before they begin
//! ```
//!
//! A step that is not possible when its turn comes is left out: a tape that was shortened has only
//! what its finding needs.

use std::fmt;
use std::str::FromStr;

use super::event::Event;
use super::{Steps, Violation, replay};

/// An event of a run, and what it draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TapeStep {
    pub(super) event: Event,
    pub(super) faults: bool,
    pub(super) number: u64,
}

/// All steps of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tape {
    pub(super) world: u64,
    pub(super) steps: Vec<TapeStep>,
}

impl Tape {
    /// The steps that are needed for the same kind of violation, as far as leaving out finds them.
    #[must_use]
    pub fn shortened(&self, steps: Steps, violation: &Violation) -> Self {
        let invariant = violation.invariant();
        let finds = |tape: &Self| {
            let found = replay(tape, steps).err();
            found.is_some_and(|found| found.invariant() == invariant)
        };
        let mut tape = self.clone();
        if !finds(&tape) {
            return tape;
        }
        let mut chunk = tape.steps.len().div_ceil(2).max(1);
        loop {
            let mut place = 0;
            while place < tape.steps.len() {
                let mut shorter = tape.clone();
                let end = (place + chunk).min(shorter.steps.len());
                shorter.steps.drain(place..end);
                if finds(&shorter) {
                    tape = shorter;
                } else {
                    place += chunk;
                }
            }
            if chunk == 1 {
                return tape;
            }
            chunk = chunk.div_ceil(2);
        }
    }
}

impl fmt::Display for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "world {}", self.world)?;
        for step in &self.steps {
            let mark = if step.faults { '!' } else { '-' };
            writeln!(f, "{mark} {:?} {}", step.event, step.number)?;
        }
        Ok(())
    }
}

impl FromStr for Tape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |line: &str| format!("no line of a tape: {line:?}");
        let mut tape = Self {
            world: 0,
            steps: Vec::new(),
        };
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["world", seed] => tape.world = seed.parse().map_err(|_| bad(line))?,
                [mark @ ("!" | "-"), event, number] => tape.steps.push(TapeStep {
                    event: Event::named(event).ok_or_else(|| bad(line))?,
                    faults: *mark == "!",
                    number: number.parse().map_err(|_| bad(line))?,
                }),
                _ => return Err(bad(line)),
            }
        }
        Ok(tape)
    }
}
