//! What came of the cases, as a table: scenario, point, fault, and how often it ended how.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{Table, presets};

use super::case::{Case, Ending};
use super::fault::{Fault, Site};
use super::rows::LeftOut;
use super::tally::Tally;

type Row = (&'static str, Vec<(Site, Fault)>);

/// Gathers endings.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<Row, BTreeMap<String, usize>>,
    /// Cases with what was broken in them.
    pub broken: Vec<(String, Vec<String>)>,
    /// Cases whose fault never came about.
    pub missed: Vec<String>,
    /// Cases that are not played, by what they have in common.
    left_out: BTreeMap<String, usize>,
    cases: usize,
}

impl Report {
    /// Notes an ending. What is broken is told at once: the whole takes long.
    #[allow(clippy::print_stdout, reason = "it is a report")]
    pub fn note(&mut self, case: &Case, ending: &Ending) {
        let outcome = match ending {
            Ending::Kept(outcome) => outcome.clone(),
            Ending::Broken(what) => {
                println!("BROKEN  {case}: {what:?}");
                self.broken.push((case.to_string(), what.clone()));
                "BROKEN".to_owned()
            }
            Ending::Missed => {
                self.missed.push(case.to_string());
                "not reached".to_owned()
            }
        };
        self.cases += usize::from(*ending != Ending::Missed);
        // Of a second fault the table tells what it was, not where each of them was.
        let faults = case.plans.iter().map(|plan| (plan.site, plan.fault));
        let row = (case.scenario.name, faults.collect());
        *self
            .rows
            .entry(row)
            .or_default()
            .entry(outcome)
            .or_default() += 1;
    }

    /// Notes cases that are not played, and why.
    pub fn leave_out(&mut self, left_out: Vec<LeftOut>) {
        for LeftOut { what, cases } in left_out {
            *self.left_out.entry(what).or_default() += cases;
        }
    }

    /// The counts.
    pub fn tally(&self) -> Tally {
        Tally {
            cases: self.cases,
            failed: self.broken.len(),
            skipped: self.missed.len(),
            left_out: self.left_out.values().sum(),
            seeds: vec![],
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        table.set_header(["SCENARIO", "POINT", "FAULT", "ENDED AS"]);
        for ((scenario, faults), outcomes) in &self.rows {
            let join = |texts: Vec<String>| texts.join(", then ");
            let sites = faults.iter().map(|(site, _)| (*site).to_owned());
            let what = faults.iter().map(|(_, fault)| fault.to_string());
            let outcomes: Vec<String> = outcomes
                .iter()
                .map(|(outcome, count)| format!("{count} x {outcome}"))
                .collect();
            table.add_row([
                (*scenario).to_owned(),
                join(sites.collect()),
                join(what.collect()),
                outcomes.join("; "),
            ]);
        }
        writeln!(f, "{table}")?;
        for (what, cases) in &self.left_out {
            writeln!(f, "LEFT OUT  {cases} cases: {what}")?;
        }
        for case in &self.missed {
            writeln!(f, "NOT REACHED  {case}")?;
        }
        for (case, broken) in &self.broken {
            writeln!(f, "BROKEN  {case}")?;
            for what in broken {
                writeln!(f, "        {what}")?;
            }
        }
        let Tally {
            cases,
            failed,
            skipped,
            left_out,
            ..
        } = self.tally();
        write!(
            f,
            "{cases} cases, {failed} failed, {skipped} not reached, {left_out} left out"
        )
    }
}
