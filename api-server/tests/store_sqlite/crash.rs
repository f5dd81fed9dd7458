//! A server that is killed at any moment has done what it said, and nothing by halves.

use crate::{by_hand, child, history};
use livemerge_api_server::store::SqliteStore;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

/// The process stands still while its files are copied: they are what its death at that moment
/// would leave. Only the index beside the log is left out, as it is rebuilt after a crash.
#[tokio::test]
async fn a_crash_leaves_whole_steps() {
    if let Some(dir) = child::role() {
        return write_until_killed(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(dir.path());
    for round in 0..24_u64 {
        writer.wait_for_steps(writer.acknowledged() + 1 + round * 37 % 60);
        // Anywhere within the step.
        std::thread::sleep(Duration::from_micros(round * 613 % 2_500));
        writer.stop();
        let acknowledged = writer.acknowledged();
        let copy = tempfile::tempdir().unwrap();
        for file in ["record.db", "record.db-wal"] {
            fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
        }
        if round % 2 == 1 {
            tear(&copy.path().join("record.db-wal"));
        }
        found_whole(copy.path(), acknowledged).await;
        writer.go_on();
    }
    writer.kill();
    found_whole(dir.path(), writer.acknowledged()).await;
}

/// A frame of the log that was under way.
fn tear(log: &Path) {
    let torn: Vec<u8> = (0..3_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    OpenOptions::new()
        .append(true)
        .open(log)
        .unwrap()
        .write_all(&torn)
        .unwrap();
}

async fn found_whole(dir: &Path, acknowledged: u64) {
    let path = dir.join("record.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let steps = history::steps(&store).await;
    // The last may have been made and not yet acknowledged.
    assert!(
        (acknowledged..=acknowledged + 1).contains(&steps),
        "{steps} of {acknowledged}"
    );
    for number in steps..steps + 3 {
        history::step(&store, number).await.unwrap();
    }
    assert_eq!(history::steps(&store).await, steps + 3);
    drop(store);
    let check = sqlx::query_scalar::<_, String>("PRAGMA integrity_check");
    assert_eq!(
        check.fetch_all(&mut by_hand(&path).await).await.unwrap(),
        ["ok"]
    );
}

async fn write_until_killed(dir: &Path) {
    let store = SqliteStore::open(&dir.join("record.db")).await.unwrap();
    let mut acknowledged = File::create(dir.join("acknowledged")).unwrap();
    for number in 0.. {
        history::step(&store, number).await.unwrap();
        acknowledged.write_all(b".").unwrap();
    }
}

/// The process that writes.
struct Writer<'a> {
    dir: &'a Path,
    process: Child,
}

impl<'a> Writer<'a> {
    fn start(dir: &'a Path) -> Self {
        let mut command = child::command(
            &[],
            "crash::a_crash_leaves_whole_steps",
            dir.to_str().unwrap(),
        );
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        Self { dir, process }
    }

    fn acknowledged(&self) -> u64 {
        fs::metadata(self.dir.join("acknowledged")).map_or(0, |file| file.len())
    }

    fn wait_for_steps(&mut self, steps: u64) {
        while self.acknowledged() < steps {
            assert!(
                self.process.try_wait().unwrap().is_none(),
                "the writer ended"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED)
            .unwrap()
            .unwrap();
        assert!(status.stopped(), "{status:?}");
    }

    fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // Killed already when all went well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
