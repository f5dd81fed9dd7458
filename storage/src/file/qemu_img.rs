//! Calls of `qemu-img`: arguments only, a time limit, bounded output, and an error that says what
//! the caller does next.
//!
//! A failed call says nothing of the volume's existence, so none of its errors is `NotFound`.

use crate::{Format, StorageError};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, copy, sink};
use tokio::process::Command;

/// No call here moves data: what takes longer hangs on dead storage.
const LIMIT: Duration = Duration::from_secs(60);
/// An error is a line or two.
const MOST_TEXT: u64 = 4096;

/// How `qemu-img` is called.
#[derive(Debug)]
pub(super) struct QemuImg {
    program: PathBuf,
    limit: Duration,
}

impl Default for QemuImg {
    fn default() -> Self {
        Self {
            program: "qemu-img".into(),
            limit: LIMIT,
        }
    }
}

impl QemuImg {
    /// Runs it to its end, or kills it at the limit.
    pub(super) async fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<(), StorageError> {
        let mut command = Command::new(&self.program);
        command.args(args).env("LC_ALL", "C").kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let ended = tokio::time::timeout(self.limit, ended(command)).await;
        let ended = ended.unwrap_or_else(|_| {
            let text = format!("no end after {:?}", self.limit);
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        });
        match ended.map_err(unreachable)? {
            (status, _) if status.success() => Ok(()),
            (status, text) => Err(failure(status, text.trim())),
        }
    }
}

async fn ended(mut command: Command) -> io::Result<(ExitStatus, String)> {
    let mut child = command.spawn()?;
    let mut text = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        (&mut stderr).take(MOST_TEXT).read_to_end(&mut text).await?;
        copy(&mut stderr, &mut sink()).await?;
    }
    Ok((
        child.wait().await?,
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

fn failure(status: ExitStatus, text: &str) -> StorageError {
    if text.contains("No space left on device") {
        return StorageError::NoSpace { needed: 0, free: 0 };
    }
    let held = ["Failed to get", "Failed to lock"]
        .iter()
        .any(|said| text.contains(said));
    if held && text.contains("lock") {
        let by = "a process that has it open".to_owned();
        return StorageError::InUse {
            what: "the image".to_owned(),
            by,
        };
    }
    unreachable(io::Error::other(format!("{status}: {text}")))
}

fn unreachable(source: io::Error) -> StorageError {
    StorageError::Unreachable {
        what: "qemu-img".to_owned(),
        source,
    }
}

/// A format's name on QEMU's command lines.
pub(super) fn format_name(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "qcow2",
        Format::Raw => "raw",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(script: &str, limit: Duration) -> Result<(), StorageError> {
        let shell = QemuImg {
            program: "/bin/sh".into(),
            limit,
        };
        shell.run(&["-c", script]).await
    }

    #[tokio::test]
    async fn one_that_hangs_is_unknown_and_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!(
            "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 100000",
            pid.display()
        );
        let mut limit = Duration::from_millis(100);
        // Longer each time, until a busy machine has started a shell within it.
        while !pid.exists() {
            let error = run(&script, limit).await.unwrap_err();
            assert!(
                matches!(&error, StorageError::Unreachable { source, .. }
                    if source.kind() == io::ErrorKind::TimedOut),
                "{error:?}"
            );
            limit *= 2;
        }
        let process = PathBuf::from("/proc").join(std::fs::read_to_string(pid).unwrap().trim());
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_it_says_becomes_what_the_caller_does_next() {
        let limit = LIMIT;
        run("exit 0", limit).await.unwrap();
        let full = run("echo 'x: No space left on device' >&2; exit 1", limit).await;
        assert!(
            matches!(full, Err(StorageError::NoSpace { .. })),
            "{full:?}"
        );
        for said in [
            "Failed to get \\\"write\\\" lock",
            "Failed to lock byte 100",
        ] {
            let held = run(&format!("echo \"{said}\" >&2; exit 1"), limit).await;
            assert!(matches!(held, Err(StorageError::InUse { .. })), "{held:?}");
        }
        let other = run("echo 'No such file or directory' >&2; exit 1", limit).await;
        assert!(
            matches!(other, Err(StorageError::Unreachable { .. })),
            "{other:?}"
        );
    }

    #[tokio::test]
    async fn one_that_is_missing_does_not_mean_that_the_volume_is() {
        let missing = QemuImg {
            program: "/nowhere/qemu-img".into(),
            limit: LIMIT,
        };
        let error = missing.run(&["info"]).await.unwrap_err();
        assert!(
            matches!(error, StorageError::Unreachable { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn one_that_talks_without_end_is_heard_out_and_cut() {
        let script = "yes talk | head -c 1000000 >&2; exit 1";
        let Err(StorageError::Unreachable { source, .. }) = run(script, LIMIT).await else {
            panic!("it failed");
        };
        assert!(source.to_string().len() < 5000);
    }
}
