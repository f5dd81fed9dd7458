//! Hostile input: every reader of what others have written gets the corpus of its fuzz target
//! (`fuzz/corpus`), all that the target has found (`fuzz/found`), and some thousand inputs that are made of
//! the corpus, always the same ones. `make fuzz` looks for new ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod mutate;
mod seeds;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use livemerge_api_server::fuzzing as server;
use livemerge_host_agent::fuzzing as agent;
use livemerge_storage::fuzzing as storage;
use mutate::Mutator;
use tempfile::TempDir;

const MADE: usize = 4000;
/// Each goes through services, and some of them to a disk.
const MADE_REQUESTS: usize = 1500;
/// All of it stays small enough to be read by whoever clones the repository.
const CORPUS_BYTES: u64 = 400 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus() -> PathBuf {
    fuzz().join("corpus")
}

/// The corpus of a target, by name.
fn files(target: &str) -> Vec<(String, Vec<u8>)> {
    read(&corpus().join(target))
}

/// What a target has found, by name.
fn found(target: &str) -> Vec<(String, Vec<u8>)> {
    let archive = fuzz().join(format!("found/{target}.tar.gz"));
    let dir = TempDir::new().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(dir.path());
    assert!(tar.status().unwrap().success(), "{tar:?}");
    read(dir.path())
}

fn read(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Runs what is kept, and what is made of it. What fails is written where it can be looked at.
fn replay(target: &str, made: usize, run: impl Fn(&[u8])) {
    let files = files(target);
    assert!(!files.is_empty(), "{target} has nothing to begin with");
    let found = found(target);
    assert!(!found.is_empty(), "{target} has found nothing");
    for (name, input) in files.iter().chain(&found) {
        survives(target, name, input, &run);
    }
    let mut mutator = Mutator::new(files.into_iter().map(|(_, input)| input).collect());
    for number in 0..made {
        survives(target, &format!("made-{number}"), &mutator.next(), &run);
    }
}

fn survives(target: &str, name: &str, input: &[u8], run: impl Fn(&[u8])) {
    if catch_unwind(AssertUnwindSafe(|| run(input))).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}-{name}"));
        fs::write(&path, input).unwrap();
        panic!("{target} does not survive {name}, see {}", path.display());
    }
}

#[test]
fn no_image_s_head_upsets_its_reader() {
    replay("qcow2_head", MADE, storage::qcow2_head);
}

#[test]
fn no_report_of_lvm_s_upsets_its_reader() {
    replay("lvm_report", MADE, storage::lvm_report);
}

#[test]
fn nothing_that_qemu_s_tools_say_upsets_its_reader() {
    replay("qemu_json", MADE, storage::qemu_json);
}

#[test]
fn no_definition_upsets_its_reader() {
    replay("definition", MADE, agent::definition);
}

#[test]
fn no_answer_of_qemu_s_monitor_upsets_its_reader() {
    replay("qmp_answer", MADE, agent::qmp_answer);
}

#[test]
fn no_journal_upsets_its_reader() {
    replay("journal", MADE, agent::journal);
}

#[test]
fn no_request_upsets_the_agent() {
    replay("agent_requests", MADE_REQUESTS, agent::agent_requests);
}

#[test]
fn no_request_upsets_the_server() {
    replay("server_requests", MADE_REQUESTS, server::server_requests);
}

/// Deeper than any definition, in each place that may nest.
#[test]
fn what_nests_without_end_is_refused() {
    for open in ["<a>", "<domain>", "<backingStore>", "<!--", "<![CDATA["] {
        agent::definition(open.repeat(100_000).as_bytes());
    }
    for open in ["{\"return\":", "[", "{\"file\":"] {
        agent::qmp_answer(open.repeat(100_000).as_bytes());
        agent::journal(open.repeat(100_000).as_bytes());
        storage::qemu_json(open.repeat(100_000).as_bytes());
        storage::lvm_report(open.repeat(100_000).as_bytes());
    }
}

#[test]
fn the_corpus_is_small() {
    let sizes = [
        "qcow2_head",
        "lvm_report",
        "qemu_json",
        "definition",
        "qmp_answer",
    ]
    .into_iter()
    .chain(["journal", "agent_requests", "server_requests"])
    .flat_map(files)
    .map(|(_, input)| input.len() as u64);
    assert!(sizes.sum::<u64>() < CORPUS_BYTES);
}
