//! Medians, their spread, the table and the file of figures.

use std::path::Path;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Columns of text.
const WIDTH: u16 = 150;

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

/// Ours and the peer's values of the same rounds, and what they are of.
pub(super) struct Comparison<'a> {
    pub(super) what: &'a str,
    pub(super) beside: &'a str,
    /// The most that the ratio should be; of rates the least. Without one the row is only shown.
    pub(super) goal: Option<f64>,
    pub(super) unit: &'static str,
    pub(super) ours: &'a [f64],
    pub(super) peer: &'a [f64],
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
    entries: Vec<Entry>,
    table: Table,
    notes: Vec<String>,
}

impl Figures {
    pub(super) fn new() -> Self {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(WIDTH);
        table.set_header(["", "beside", "", "ours", "it", "ours / it", "goal"]);
        Self {
            entries: Vec::new(),
            table,
            notes: Vec::new(),
        }
    }

    /// Takes the rounds of one comparison.
    pub(super) fn add(&mut self, it: &Comparison<'_>) {
        self.take(it, "lower");
    }

    /// The same, of rates: more is better.
    pub(super) fn add_rates(&mut self, it: &Comparison<'_>) {
        self.take(it, "higher");
    }

    fn take(&mut self, it: &Comparison<'_>, better: &'static str) {
        let ratio = Spread::of(&ratios(it.ours, it.peer));
        let (ours, peer) = (Spread::of(it.ours), Spread::of(it.peer));
        self.table.add_row([
            it.what,
            it.beside,
            it.unit,
            &ours.show(1),
            &peer.show(1),
            &ratio.show(2),
            &it.goal.map_or_else(String::new, |goal| goal.to_string()),
        ]);
        let Some(goal) = it.goal else { return };
        self.entries.push(Entry {
            name: format!("{} / {}", it.what, it.beside),
            ratio: ratio.median,
            goal,
            better,
            ours: ours.median,
            peer: peer.median,
            unit: it.unit,
            runs: it.ours.len(),
        });
    }

    /// Takes a line to print below the table.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    #[allow(clippy::print_stdout, reason = "this is the bench's output")]
    pub(super) fn print(&self) {
        println!("{}", self.table);
        println!("Median (least to most); a ratio is the median of the rounds' ratios.");
        for note in &self.notes {
            println!("{note}");
        }
    }

    /// Writes the figures down for machines.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.entries)?;
        Ok(std::fs::write(path, text + "\n")?)
    }
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

    #[test]
    fn what_has_no_goal_is_shown_and_not_written() {
        let mut figures = Figures::new();
        let mut it = Comparison {
            what: "ours",
            beside: "theirs",
            goal: Some(0.5),
            unit: "ms",
            ours: &[1.0, 3.0, 2.0],
            peer: &[4.0, 4.0, 4.0],
        };
        figures.add(&it);
        figures.add_rates(&it);
        it.goal = None;
        figures.add(&it);
        assert_eq!(figures.table.row_count(), 3);
        let [entry, rates] = &figures.entries[..] else {
            panic!("{:?}", figures.entries);
        };
        assert_eq!((entry.ratio, entry.runs), (0.5, 3));
        assert_eq!((entry.better, rates.better), ("lower", "higher"));
        assert_eq!(entry.name, "ours / theirs");
    }
}
