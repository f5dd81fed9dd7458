//! Medians, their spread, the table and the file of figures.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::{Round, Rounds};

/// The goal against virsh, by size in MiB.
fn goal_against_virsh(mib: u64) -> f64 {
    if mib < 1024 { 0.5 } else { 1.05 }
}
/// The goal against the floor, after two durable commits are taken off.
const GOAL_AGAINST_FLOOR: f64 = 1.2;

/// The median of some values, and the smallest and the largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
            return Self {
                median: f64::NAN,
                least: f64::NAN,
                most: f64::NAN,
            };
        };
        let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
        Self {
            median: middle,
            least: *least,
            most: *most,
        }
    }

    fn show(self, decimals: usize) -> String {
        format!(
            "{:.decimals$} ({:.decimals$} to {:.decimals$})",
            self.median, self.least, self.most
        )
    }
}

#[derive(Debug, Serialize)]
struct Entry {
    name: String,
    ratio: f64,
    goal: f64,
    better: &'static str,
    ours: f64,
    peer: f64,
    unit: &'static str,
    runs: usize,
}

/// What was measured so far.
pub(super) struct Figures {
    commit_ms: f64,
    entries: Vec<Entry>,
    table: Table,
}

impl Figures {
    pub(super) fn new(commit: Duration) -> Self {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "overlay",
            "",
            "ms",
            "ours / it",
            "goal",
            "longest guest stall, ms",
        ]);
        Self {
            commit_ms: commit.as_secs_f64() * 1000.0,
            entries: Vec::new(),
            table,
        }
    }

    /// Takes the rounds of one size.
    pub(super) fn add(&mut self, mib: u64, rounds: &Rounds) {
        let ours = times(&rounds.ours);
        let peer = times(&rounds.peer);
        let floor: Vec<f64> = rounds.floor.iter().map(|took| ms(*took)).collect();
        let commits = 2.0 * self.commit_ms;
        let bare: Vec<f64> = ours.iter().map(|took| took - commits).collect();

        self.row(
            &format!("{mib} MiB"),
            "ours",
            &ours,
            None,
            Some(&rounds.ours),
        );
        let goal = goal_against_virsh(mib);
        let against = Spread::of(&ratios(&ours, &peer));
        self.row(
            "",
            "virsh and rm",
            &peer,
            Some((against, goal)),
            Some(&rounds.peer),
        );
        self.entry(
            format!(
                "delete a snapshot of {mib} MiB / virsh blockcommit --active --pivot --wait and rm"
            ),
            against,
            goal,
            &ours,
            &peer,
        );
        let against = Spread::of(&ratios(&bare, &floor));
        self.row(
            "",
            "floor",
            &floor,
            Some((against, GOAL_AGAINST_FLOOR)),
            None,
        );
        self.entry(
            format!(
                "delete a snapshot of {mib} MiB, less two durable commits / the same by raw QMP"
            ),
            against,
            GOAL_AGAINST_FLOOR,
            &bare,
            &floor,
        );
    }

    fn entry(&mut self, name: String, ratio: Spread, goal: f64, ours: &[f64], peer: &[f64]) {
        self.entries.push(Entry {
            name,
            ratio: ratio.median,
            goal,
            better: "lower",
            ours: Spread::of(ours).median,
            peer: Spread::of(peer).median,
            unit: "ms",
            runs: ours.len(),
        });
    }

    fn row(
        &mut self,
        size: &str,
        who: &str,
        times: &[f64],
        against: Option<(Spread, f64)>,
        rounds: Option<&[Round]>,
    ) {
        let (ratio, goal) = against.map_or_else(Default::default, |(ratio, goal)| {
            (ratio.show(2), format!("{goal}"))
        });
        let stall = rounds.map_or_else(String::new, |rounds| {
            let stalls: Vec<f64> = rounds.iter().map(|round| ms(round.stall)).collect();
            Spread::of(&stalls).show(0)
        });
        let times = Spread::of(times).show(1);
        self.table
            .add_row([size, who, &times, &ratio, &goal, &stall]);
    }

    #[allow(clippy::print_stdout, reason = "this is the bench's output")]
    pub(super) fn print(&self) {
        println!("{}", self.table);
        println!(
            "Median (least to most). One durable commit of the record takes {:.1} ms; the ratio to \
             the floor is without two of them.",
            self.commit_ms
        );
    }

    /// Writes the figures down for machines.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.entries)?;
        Ok(std::fs::write(path, text + "\n")?)
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn times(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| ms(round.took)).collect()
}

fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(a, b)| a / b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        assert_eq!(ratios(&[1.0, 6.0], &[2.0, 3.0]), [0.5, 2.0]);
    }
}
