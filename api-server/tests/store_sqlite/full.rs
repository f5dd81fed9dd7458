//! A disk that is full, or breaks: what was acknowledged stays, nothing is half-written, and the
//! store works again as soon as the disk does.

use crate::{child, history};
use livemerge_api_server::store::{SqliteStore, StoreError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Writes beyond a size fail with `EFBIG`, which is an I/O error to SQLite.
#[tokio::test]
async fn a_disk_that_breaks() {
    if let Some(dir) = child::role() {
        return fail_and_heal(
            Path::new(&dir),
            |dir| bound_file_size(Some(largest(dir) + 30_000)),
            |_| bound_file_size(None),
        )
        .await;
    }
    let dir = tempfile::tempdir().unwrap();
    // The signal that comes with the error would end the process.
    let deaf = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    succeeds(child::command(
        &deaf,
        "full::a_disk_that_breaks",
        dir.path().to_str().unwrap(),
    ));
}

/// A small file system of its own, which a ballast fills: `ENOSPC`.
#[tokio::test]
async fn a_disk_that_is_full() {
    if let Some(dir) = child::role() {
        return fail_and_heal(Path::new(&dir), fill, |dir| {
            fs::remove_file(dir.join("ballast")).unwrap();
        })
        .await;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let mut own = vec![
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
    ];
    let mut probe = Command::new(own[0]);
    probe
        .args(&own[1..])
        .arg("mount -t tmpfs none \"$0\"")
        .arg(dir);
    if !probe.output().is_ok_and(|probe| probe.status.success()) {
        println!("SKIPPED: no file system can be mounted here, not even in a namespace of its own");
        return;
    }
    let mount = format!("mount -t tmpfs -o size=4m none '{dir}' && exec \"$0\" \"$@\"");
    own.push(&mount);
    succeeds(child::command(&own, "full::a_disk_that_is_full", dir));
}

async fn fail_and_heal(dir: &Path, fail: impl Fn(&Path), heal: impl Fn(&Path)) {
    let path = dir.join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut made = 0;
    for _ in 0..3 {
        for _ in 0..5 {
            history::step(&store, made).await.unwrap();
            made += 1;
        }
        fail(dir);
        let mut refused = 0;
        while refused < 10 {
            match history::step(&store, made).await {
                Ok(()) => made += 1,
                Err(StoreError::Unavailable(_)) => refused += 1,
                Err(StoreError::Unknown(_)) => {
                    refused += 1;
                    made = known(history::steps(&store).await, made);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(
            history::steps(&store).await,
            made,
            "it can be read all the time"
        );
        heal(dir);
        history::step(&store, made)
            .await
            .expect("it works as soon as the disk does");
        made += 1;
        assert_eq!(history::steps(&store).await, made);
    }
    drop(store);
    assert_eq!(
        history::steps(&SqliteStore::open(&path).await.unwrap()).await,
        made
    );
}

/// What the store does not know is either done or not.
fn known(found: u64, made: u64) -> u64 {
    assert!((made..=made + 1).contains(&found), "{found} of {made}");
    found
}

fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn largest(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .max()
        .unwrap()
}

fn bound_file_size(bytes: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: bytes.or(maximum),
            maximum,
        },
    )
    .unwrap();
}

fn fill(dir: &Path) {
    let mut ballast = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("ballast"))
        .unwrap();
    while ballast.write(&[0; 4_096]).is_ok_and(|written| written > 0) {}
}
