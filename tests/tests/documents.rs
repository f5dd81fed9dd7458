//! The tables of the documents name the tests that show what they say: each of them is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The heading of the column in which tests are named.
const COLUMN: &str = "shown by";
const DOCUMENTS: [&str; 2] = ["docs/operations.md", "docs/architecture.md"];
/// Stands for the rest of a long name.
const REST: char = '…';

fn root() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(own.parent().context("the workspace")?.to_owned())
}

/// What is named in the column of each table that has it.
fn named(text: &str) -> Vec<String> {
    let mut column = None;
    let mut names = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 3 {
            column = None;
        } else if let Some(cell) = column.and_then(|column: usize| cells.get(column)) {
            // Every second part stands between two marks.
            names.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
        } else {
            column = cells.iter().position(|cell| *cell == COLUMN);
        }
    }
    names
}

/// What is in the tree: the paths of its sources, and the functions in them.
#[derive(Default)]
struct Tree {
    paths: Vec<String>,
    functions: Vec<String>,
}

impl Tree {
    fn read(&mut self, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                self.read(&path)?;
                self.paths.push(path.display().to_string());
            } else if path.extension().is_some_and(|suffix| suffix == "rs") {
                let text = fs::read_to_string(&path)?;
                let of_line = |line: &str| {
                    let (_, rest) = line.split_once("fn ")?;
                    let name = rest.split(['(', '<']).next()?;
                    Some(name.to_owned())
                };
                self.functions.extend(text.lines().filter_map(of_line));
                self.paths.push(path.display().to_string());
            }
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        if let Some((start, end)) = name.split_once(REST) {
            let is = |function: &String| function.starts_with(start) && function.ends_with(end);
            return self.functions.iter().any(is);
        }
        if let Some((before, rest)) = name.split_once('{') {
            let Some((parts, after)) = rest.split_once('}') else {
                return false;
            };
            let whole = |part: &str| self.has(&format!("{before}{part}{after}"));
            return parts.split(',').all(whole);
        }
        let path = format!("/{name}");
        let is_path = |at: &String| at.ends_with(&path) || at.ends_with(&format!("{path}.rs"));
        self.functions.iter().any(|function| function == name) || self.paths.iter().any(is_path)
    }
}

#[test]
fn every_test_that_a_document_names_is_there() -> Result<()> {
    let root = root()?;
    let mut tree = Tree::default();
    tree.read(&root)?;
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let names = named(&fs::read_to_string(root.join(document))?);
        assert!(names.len() > 10, "{document} names {names:?}");
        let not_there = names.into_iter().filter(|name| !tree.has(name));
        missing.extend(not_there.map(|name| format!("{document}: {name}")));
    }
    assert_eq!(missing, Vec::<String>::new());
    Ok(())
}

#[test]
fn names_are_taken_from_their_column_alone() {
    let text = "| `no` | shown by |\n|---|---|\n| `no` | `a`, `b_…` and `c/d.rs` |\n\n| x | `no` |\n|---|---|\n";
    assert_eq!(named(text), ["a", "b_…", "c/d.rs"]);
}

#[test]
fn a_name_is_a_function_a_path_or_the_ends_of_one() {
    let tree = Tree {
        paths: vec!["/w/tests/sweep.rs".to_owned(), "/w/tests/events".to_owned()],
        functions: vec!["a_guest_runs_on".to_owned()],
    };
    for there in [
        "a_guest_runs_on",
        "a_guest_…",
        "…_runs_on",
        "tests/sweep.rs",
        "tests/{sweep,events}",
    ] {
        assert!(tree.has(there), "{there}");
    }
    for missing in ["a_guest", "…_runs", "sweeps", "tests/{sweep,other}.rs"] {
        assert!(!tree.has(missing), "{missing}");
    }
}
