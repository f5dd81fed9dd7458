//! What came of kills: each by the moment that was really seen before it, and what was lost is
//! counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1::MergePhase;

use super::{Victim, switch};
use crate::guest::oracle::Verdict;

/// What came of one kill.
#[derive(Debug, Clone, Default)]
pub struct Kill {
    /// The moment that was seen, after which the delay began; a later one than was waited for when
    /// the merge was faster than the look. Empty when it did not come so far.
    pub moment: String,
    /// The delay.
    pub delay: Duration,
    /// Whether the merge had been won when the victim died.
    pub merged: bool,
    /// Whether QEMU had said that it has switched the guest; only of kills around that.
    pub switched: bool,
    /// Whether the machine starts from the volume that is kept; only of those, too.
    pub on_base: bool,
    /// Whether QEMU had a block job of which libvirt had not written anything down.
    pub unmarked: bool,
    /// Whether libvirt came back without the machine, which went on.
    pub forgotten: bool,
    /// Whether QEMU ended itself when its images did not answer.
    pub fell: bool,
    /// How many acknowledged records were looked for afterwards, in all images together.
    pub looked_for: u64,
    /// How many of them were not there.
    pub lost: u64,
}

impl Kill {
    pub(super) fn after(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    pub(super) fn saw(&mut self, phase: MergePhase) {
        self.moment = format!("{phase:?}");
    }

    /// Counts what the oracle found in an image. It must have missed nothing.
    pub(super) fn count(&mut self, image: &str, verdict: &Verdict) -> Result<()> {
        self.looked_for += verdict.acknowledged;
        self.lost += verdict.lost.len() as u64;
        ensure!(verdict.acknowledged > 0, "the guest wrote nothing");
        ensure!(
            verdict.lost.is_empty(),
            "lost in {image}: {:?}",
            verdict.lost
        );
        Ok(())
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moment, delay, .. } = self;
        let end = if self.merged { "merged" } else { "not merged" };
        let fell = if self.fell { ", QEMU ended itself" } else { "" };
        write!(f, "{delay:.1?} after {moment}: {end}{fell}, ")?;
        write!(f, "{} of {} records lost", self.lost, self.looked_for)
    }
}

/// What came of many kills of one victim.
#[derive(Debug, Default)]
pub struct Kills {
    /// After which all was as it must be.
    pub done: Vec<Kill>,
    /// Those after which something was not, as far as they came, and why.
    pub failed: Vec<(Kill, anyhow::Error)>,
    /// Those that were not tried any more.
    pub outstanding: usize,
}

impl Kills {
    /// All of them, if each was as it must be.
    ///
    /// # Errors
    /// Names the first kill that was not.
    pub fn all(self) -> Result<Vec<Kill>> {
        match self.failed.into_iter().next() {
            None => Ok(self.done),
            Some((kill, error)) => Err(error).with_context(|| format!("{kill:?}")),
        }
    }

    pub(super) fn append(&mut self, mut part: Self) {
        self.done.append(&mut part.done);
        self.outstanding += part.outstanding;
        self.failed.append(&mut part.failed);
    }
}

#[allow(clippy::print_stdout, reason = "this is the sweep's output")]
pub(super) fn print(done: &BTreeMap<Victim, Kills>) {
    println!("kills of real processes, each delayed at random after a moment was seen:");
    for (victim, kills) in done {
        for row in rows(kills) {
            println!("  {victim:?}, {row}");
        }
        if *victim == Victim::MachineInPivot {
            let (Ok(sides) | Err(sides)) = switch::sides(&kills.done);
            println!("  {victim:?}: {sides}");
        }
        if kills.outstanding > 0 {
            println!("  {victim:?}: {} kills were not tried", kills.outstanding);
        }
    }
}

fn rows(kills: &Kills) -> Vec<String> {
    let failed = kills.failed.iter().map(|(kill, _)| kill);
    let mut moments = BTreeMap::<&str, Vec<&Kill>>::new();
    for kill in kills.done.iter().chain(failed) {
        moments.entry(&kill.moment).or_default().push(kill);
    }
    let row = |(moment, kills): (&str, Vec<&Kill>)| {
        let count = |is: fn(&Kill) -> bool| kills.iter().filter(|kill| is(kill)).count();
        let moment = if moment.is_empty() {
            "before any moment"
        } else {
            moment
        };
        format!(
            "{moment}: {} kills, {} after the merge was won, {} of a job and {} of a machine that \
             libvirt did not know, {} of a QEMU that ended itself, {} records lost of {}",
            kills.len(),
            count(|kill| kill.merged),
            count(|kill| kill.unmarked),
            count(|kill| kill.forgotten),
            count(|kill| kill.fell),
            kills.iter().map(|kill| kill.lost).sum::<u64>(),
            kills.iter().map(|kill| kill.looked_for).sum::<u64>(),
        )
    };
    moments.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(acknowledged: u64, lost: &[u64]) -> Verdict {
        Verdict {
            acknowledged,
            found: acknowledged - lost.len() as u64,
            lost: lost.to_vec(),
        }
    }

    #[test]
    fn what_was_done_is_told_beside_what_failed_and_losses_are_counted() -> Result<()> {
        let mut good = Kill::after(Duration::from_millis(3));
        good.saw(MergePhase::Ready);
        good.count("a", &verdict(8, &[]))?;
        let mut bad = Kill::default();
        bad.saw(MergePhase::Verifying);
        let error = bad.count("b", &verdict(8, &[5, 6])).unwrap_err();
        let mut all = Kills {
            done: vec![good],
            ..Kills::default()
        };
        all.append(Kills {
            failed: vec![(bad, error)],
            outstanding: 3,
            ..Kills::default()
        });
        let rows = rows(&all);
        assert!(rows[0].starts_with("Ready: 1 kills") && rows[0].ends_with("0 records lost of 8"));
        assert!(rows[1].starts_with("Verifying: 1 kills"), "{rows:?}");
        assert!(rows[1].ends_with("2 records lost of 8"), "{rows:?}");
        assert_eq!(all.outstanding, 3);
        assert!(format!("{:#}", all.all().unwrap_err()).contains("[5, 6]"));
        Ok(())
    }

    #[test]
    fn a_guest_that_wrote_nothing_shows_nothing() {
        assert!(Kill::default().count("a", &verdict(0, &[])).is_err());
    }
}
