//! What the demo says: lines as it goes, and the table at its end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use livemerge_proto::v1;

use crate::guest::oracle::Verdict;

/// Collects the steps and prints.
pub(super) struct Report {
    table: Table,
    step_begun: Instant,
}

impl Report {
    pub(super) fn begin() -> Self {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["what was done", "took", ""]);
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        Self {
            table,
            step_begun: Instant::now(),
        }
    }

    #[allow(clippy::print_stdout, reason = "this is the demo's output")]
    pub(super) fn say(&mut self, text: &str) {
        println!("{text}");
    }

    /// The time until now belongs to no step.
    pub(super) fn pass(&mut self) {
        self.step_begun = Instant::now();
    }

    /// A step has ended now.
    pub(super) fn step(&mut self, what: &str) {
        self.row(what, self.step_begun.elapsed(), String::new());
    }

    /// A snapshot was deleted. The time is the operation's, from its acceptance to the volume's end.
    pub(super) fn deleted(&mut self, how: &str, operation: &v1::Operation, stall: Duration) {
        let (moved, freed) = operation.disks.iter().fold((0, 0), |(moved, freed), disk| {
            (moved + disk.done_bytes, freed + disk.freed_bytes)
        });
        let note = format!(
            "{} moved, {} freed, longest stall {} ms",
            size(moved),
            size(freed),
            stall.as_millis()
        );
        self.say(&format!("  {note}"));
        let what = format!("snapshot {} deleted: {how}", operation.snapshot_name);
        self.row(&what, time_of(operation), note);
    }

    /// Prints the table and tells whether all is well.
    pub(super) fn end(
        &mut self,
        verdict: &Verdict,
        written: u64,
        errors: u64,
        stall: Duration,
    ) -> Result<()> {
        let lost = verdict.lost.len();
        let table = self.table.to_string();
        self.say(&format!("\n{table}\n"));
        self.say(&format!(
            "longest stall that the guest saw  {} ms",
            stall.as_millis()
        ));
        self.say(&format!("records acknowledged              {written}"));
        self.say(&format!(
            "of them still to be on the disk   {}",
            verdict.acknowledged
        ));
        self.say(&format!("write errors in the guest         {errors}"));
        self.say(&format!("records lost                      {lost}"));
        ensure!(
            lost == 0,
            "acknowledged records are lost: {:?}",
            verdict.lost
        );
        ensure!(errors == 0, "the guest saw write errors");
        Ok(())
    }

    fn row(&mut self, what: &str, took: Duration, note: String) {
        self.table.add_row([
            what.to_owned(),
            format!("{:.2} s", took.as_secs_f64()),
            note,
        ]);
        self.pass();
    }
}

/// From the acceptance to the end, by the server's clock.
fn time_of(operation: &v1::Operation) -> Duration {
    let (Some(begun), Some(ended)) = (operation.created_at, operation.ended_at) else {
        return Duration::ZERO;
    };
    let nanos = i128::from(ended.seconds - begun.seconds) * 1_000_000_000
        + i128::from(ended.nanos - begun.nanos);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// Bytes for people.
fn size(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
