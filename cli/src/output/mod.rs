//! Writes answers to stdout, as tables for people or as JSON for scripts.
//!
//! Whoever reads may go away early (`livemerge event list | head`): that is no failure, see
//! [`Stop::ReaderGone`].

mod document;
mod finding;
mod json;
pub(crate) mod plan;
mod row;
mod table;
pub(crate) mod text;

pub(crate) use document::ChainDocument;
pub(crate) use document::snapshot_state;
pub(crate) use finding::Repaired;
pub(crate) use plan::PlanDocument;
pub(crate) use table::columns;

use crate::failure::{Exit, Failure};
use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables for people
    Table,
    /// JSON for scripts: lists as arrays, times in RFC 3339, ids as text, sizes in bytes
    Json,
}

/// What lists hold.
pub(crate) trait Listed: Sized {
    /// What scripts get.
    type Document<'a>: Serialize
    where
        Self: 'a;

    /// The head of a list's columns.
    const COLUMNS: &'static [&'static str];

    /// What scripts get.
    fn document(&self) -> Self::Document<'_>;
    /// One line of a list; no text in it steers the terminal.
    fn row(&self) -> Vec<String>;
    /// What a list has one more column for, if any of its items is worth it.
    const EXTRA: Option<Extra<Self>> = None;
}

/// A column that most lists do without: its head, whether an item is worth it, and what it says.
pub(crate) type Extra<T> = (&'static str, fn(&T) -> bool, fn(&T) -> String);

fn table<T: Listed>(items: &[T], terminal: bool) -> String {
    let extra = T::EXTRA.filter(|(_, worth, _)| items.iter().any(worth));
    let mut columns = T::COLUMNS.to_vec();
    columns.extend(extra.map(|(head, _, _)| head));
    let rows = items.iter().map(|item| {
        let mut row = item.row();
        row.extend(extra.map(|(_, _, says)| says(item)));
        row
    });
    table::list(&columns, rows, terminal)
}

/// What can be shown alone, too.
pub(crate) trait Detailed: Listed {
    /// All that a person wants to see of one, by name; no text in it steers the terminal.
    fn details(&self) -> Vec<(&'static str, String)>;
}

/// Why a command ends before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Failed(Failure),
    /// Nobody reads stdout any more.
    ReaderGone,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::Failed(Failure::new(
            Exit::Internal,
            format!("cannot write the output: {error}"),
        ))
    }
}

/// Shows a list to a person beside the answer. A reader of stderr that went away is no failure.
pub(crate) fn on_stderr<T: Listed>(items: &[T]) {
    let mut stderr = io::stderr().lock();
    let terminal = stderr.is_terminal();
    let list = table(items, terminal);
    let _unread = writeln!(stderr, "{list}");
}

/// Writes to stdout in one form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Writes in this form.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// The form.
    pub(crate) fn format(self) -> Format {
        self.format
    }

    /// Writes a list.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn list<T: Listed>(self, items: &[T]) -> Result<(), Stop> {
        match self.format {
            Format::Json => self.json(&items.iter().map(Listed::document).collect::<Vec<_>>()),
            Format::Table => self.text(&table(items, io::stdout().is_terminal())),
        }
    }

    /// Writes one thing.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn one<T: Detailed>(self, item: &T) -> Result<(), Stop> {
        match self.format {
            Format::Json => self.json(&item.document()),
            Format::Table => self.text(&table::details(item.details())),
        }
    }

    /// Writes a document.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn json(self, document: &impl Serialize) -> Result<(), Stop> {
        self.text(&json::pretty(document)?)
    }

    /// Writes a document on one line.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn json_line(self, document: &impl Serialize) -> Result<(), Stop> {
        self.text(&json::line(document)?)
    }

    /// Writes lines.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn text(self, text: &str) -> Result<(), Stop> {
        let mut stdout = io::stdout().lock();
        if !text.is_empty() {
            writeln!(stdout, "{text}")?;
        }
        stdout.flush()?;
        Ok(())
    }
}
