//! Calls of `qemu-img`: arguments only, a time limit, bounded output or one that is read line by
//! line, and an error that says what the caller does next.
//!
//! A failed call says nothing of the volume's existence, so none of its errors is `NotFound`.

use crate::{Format, StorageError};
use futures::stream::{BoxStream, StreamExt as _};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader, copy, sink};
use tokio::process::Command;
use tokio::time::{Instant, timeout, timeout_at};

/// No call here moves data: what takes longer hangs on dead storage.
const LIMIT: Duration = Duration::from_secs(60);
/// An error is a line or two, and so is a piece of an answer.
const MOST_TEXT: u64 = 4096;

/// How `qemu-img` is called.
#[derive(Debug)]
pub(crate) struct QemuImg {
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
    pub(crate) async fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<(), StorageError> {
        let ended = timeout(self.limit, ended(self.command(args, Stdio::null()))).await;
        let ended = ended.unwrap_or_else(|_| Err(no_end(self.limit)));
        let (status, text) = ended.map_err(unreachable)?;
        success(status, &text)
    }

    /// Runs it and gives what it prints, line by line and each as far as it is sensible. It is
    /// killed at the limit, or when nobody reads on.
    pub(crate) fn lines<A: AsRef<OsStr>>(
        &self,
        args: &[A],
    ) -> BoxStream<'static, Result<String, StorageError>> {
        let (mut command, limit) = (self.command(args, Stdio::piped()), self.limit);
        let lines = async_stream::try_stream! {
            let until = Instant::now() + limit;
            let mut child = command.spawn().map_err(unreachable)?;
            let errors = tokio::spawn(text(child.stderr.take()));
            let mut printed = BufReader::new(child.stdout.take().ok_or_else(|| unreachable(no_pipe()))?);
            loop {
                let mut line = String::new();
                let mut bounded = (&mut printed).take(MOST_TEXT);
                let read = timeout_at(until, bounded.read_line(&mut line)).await;
                if read.unwrap_or_else(|_| Err(no_end(limit))).map_err(unreachable)? == 0 {
                    break;
                }
                yield line;
            }
            let status = timeout_at(until, child.wait()).await;
            let status = status.unwrap_or_else(|_| Err(no_end(limit))).map_err(unreachable)?;
            let errors = errors.await.map_err(io::Error::other).flatten();
            success(status, &errors.map_err(unreachable)?)?;
        };
        lines.boxed()
    }

    fn command<A: AsRef<OsStr>>(&self, args: &[A], stdout: Stdio) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("LC_ALL", "C").kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        command
    }
}

async fn ended(mut command: Command) -> io::Result<(ExitStatus, String)> {
    let mut child = command.spawn()?;
    let text = text(child.stderr.take()).await?;
    Ok((child.wait().await?, text))
}

/// The beginning of what is said, which is heard out.
async fn text(said: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut text = Vec::new();
    if let Some(mut said) = said {
        (&mut said).take(MOST_TEXT).read_to_end(&mut text).await?;
        copy(&mut said, &mut sink()).await?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn no_end(limit: Duration) -> io::Error {
    let text = format!("no end after {limit:?}");
    io::Error::new(io::ErrorKind::TimedOut, text)
}

fn no_pipe() -> io::Error {
    io::Error::other("its output cannot be read")
}

fn success(status: ExitStatus, text: &str) -> Result<(), StorageError> {
    if status.success() {
        return Ok(());
    }
    Err(failure(status, text.trim()))
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

pub(crate) fn unreachable(source: io::Error) -> StorageError {
    StorageError::Unreachable {
        what: "qemu-img".to_owned(),
        source,
    }
}

/// A format's name on QEMU's command lines.
pub(crate) fn format_name(format: Format) -> &'static str {
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

    fn lines(script: &str, limit: Duration) -> BoxStream<'static, Result<String, StorageError>> {
        let shell = QemuImg {
            program: "/bin/sh".into(),
            limit,
        };
        shell.lines(&["-c", script])
    }

    #[tokio::test]
    async fn an_answer_comes_line_by_line_and_fails_at_its_end() {
        let many = "seq 100000; yes talk | head -c 1000000 >&2; echo last; exit 3";
        let mut said = lines(many, LIMIT);
        for number in 1..=100_000 {
            let line = said.next().await.unwrap().unwrap();
            assert_eq!(line, format!("{number}\n"));
        }
        assert_eq!(said.next().await.unwrap().unwrap(), "last\n");
        let failed = said.next().await.unwrap().unwrap_err();
        assert!(matches!(failed, StorageError::Unreachable { .. }));
        assert!(said.next().await.is_none());
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let mut said = lines("head -c 1000000 /dev/zero", LIMIT);
        while let Some(line) = said.next().await {
            assert!(line.unwrap().len() as u64 <= MOST_TEXT);
        }
    }

    #[tokio::test]
    async fn an_answer_that_hangs_is_unknown() {
        let mut said = lines("echo one; exec sleep 100000", Duration::from_millis(100));
        let hung = loop {
            match said.next().await.unwrap() {
                Ok(line) => assert_eq!(line, "one\n"),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&hung, StorageError::Unreachable { source, .. }
                if source.kind() == io::ErrorKind::TimedOut),
            "{hung:?}"
        );
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_on_ends_its_process() {
        let mut said = lines("echo $$; exec sleep 100000", LIMIT);
        let pid = said.next().await.unwrap().unwrap();
        drop(said);
        let process = PathBuf::from("/proc").join(pid.trim());
        while process.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
