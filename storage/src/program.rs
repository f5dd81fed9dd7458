//! Calls of a program: arguments only, a time limit, bounded output or one that is read line by line,
//! and an error that says what the caller does next.
//!
//! A failed call says nothing of the volume's existence, so none of its errors is `NotFound`.

use crate::StorageError;
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
/// An answer that is read as a whole: far more than a group of ten thousand volumes takes.
const MOST_ANSWER: u64 = 64 << 20;

/// A program that is called.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    limit: Duration,
    /// Codes with which it ends well, beside 0.
    also: &'static [i32],
    /// What it means when it ends like this, having said that.
    failure: fn(ExitStatus, &str) -> StorageError,
}

impl Program {
    pub(crate) fn new(
        path: impl Into<PathBuf>,
        failure: fn(ExitStatus, &str) -> StorageError,
    ) -> Self {
        Self {
            path: path.into(),
            limit: LIMIT,
            also: &[],
            failure,
        }
    }

    /// The same, for a call that answers with one of these codes, too.
    pub(crate) fn ending(&self, also: &'static [i32]) -> Self {
        Self {
            also,
            ..self.clone()
        }
    }

    #[cfg(test)]
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Runs it to its end, or kills it at the limit.
    pub(crate) async fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<(), StorageError> {
        self.ended(self.command(args, Stdio::null())).await?;
        Ok(())
    }

    /// Runs one that changes what must not be left half changed: it is never killed. At the limit the
    /// caller is told, and it goes on by itself, also when this process ends.
    ///
    /// `keeps` is kept until it has ended; by who goes on without this process `input` is. What it prints
    /// it prints to `printed`, which must not be a pipe: it would not survive that nobody reads on.
    pub(crate) async fn change<A: AsRef<OsStr>>(
        &self,
        args: &[A],
        input: Stdio,
        printed: Stdio,
        keeps: impl Send + 'static,
    ) -> Result<(), StorageError> {
        let mut command = self.command(args, printed);
        command.kill_on_drop(false).stdin(input);
        let mut child = command.spawn().map_err(|error| self.unreachable(error))?;
        // Not before: one that has not begun has no end that would let it go.
        let keeps = Keeps(Some(keeps));
        // The command has a copy of the input, too.
        drop(command);
        let ended = tokio::spawn(async move {
            let said = text(child.stderr.take(), MOST_TEXT).await;
            let status = child.wait().await;
            keeps.end();
            Ok((status?, said?))
        });
        let ended = match timeout(self.limit, ended).await {
            Ok(ended) => ended.map_err(io::Error::other).flatten(),
            Err(_late) => Err(no_end(self.limit)),
        };
        let (status, said) = ended.map_err(|error| self.unreachable(error))?;
        self.success(status, &said)
    }

    /// The same, and gives what it prints.
    ///
    /// # Errors
    /// `Unreachable` when that is no text, or too much of it.
    pub(crate) async fn answer<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String, StorageError> {
        let answer = self.ended(self.command(args, Stdio::piped())).await?;
        if answer.len() as u64 > MOST_ANSWER {
            return Err(self.unreachable(io::Error::other("it says too much")));
        }
        String::from_utf8(answer).map_err(|e| self.unreachable(io::Error::other(e)))
    }

    /// Runs it and gives what it prints, line by line and each as far as it is sensible. It is
    /// killed at the limit, or when nobody reads on.
    pub(crate) fn lines<A: AsRef<OsStr>>(
        &self,
        args: &[A],
    ) -> BoxStream<'static, Result<String, StorageError>> {
        let (mut command, program) = (self.command(args, Stdio::piped()), self.clone());
        let lines = async_stream::try_stream! {
            let (limit, unreachable) = (program.limit, |error| program.unreachable(error));
            let until = Instant::now() + limit;
            let mut child = command.spawn().map_err(unreachable)?;
            let errors = tokio::spawn(text(child.stderr.take(), MOST_TEXT));
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
            program.success(status, &errors.map_err(unreachable)?)?;
        };
        lines.boxed()
    }

    fn command<A: AsRef<OsStr>>(&self, args: &[A], stdout: Stdio) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args).env("LC_ALL", "C").kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        command
    }

    /// What it has printed by its good end.
    async fn ended(&self, mut command: Command) -> Result<Vec<u8>, StorageError> {
        let ended = async move {
            let mut child = command.spawn()?;
            let answer = text(child.stdout.take(), MOST_ANSWER + 1);
            let said = text(child.stderr.take(), MOST_TEXT);
            let (answer, said) = tokio::try_join!(answer, said)?;
            Ok((child.wait().await?, answer, said))
        };
        let ended = timeout(self.limit, ended).await;
        let ended = ended.unwrap_or_else(|_| Err(no_end(self.limit)));
        let (status, answer, said) = ended.map_err(|error| self.unreachable(error))?;
        self.success(status, &said)?;
        Ok(answer)
    }

    fn success(&self, status: ExitStatus, said: &[u8]) -> Result<(), StorageError> {
        if status.success() || status.code().is_some_and(|code| self.also.contains(&code)) {
            return Ok(());
        }
        Err((self.failure)(status, String::from_utf8_lossy(said).trim()))
    }

    /// It did not end, or said what cannot be understood.
    pub(crate) fn unreachable(&self, source: io::Error) -> StorageError {
        let name = self.path.file_name().unwrap_or_default();
        StorageError::Unreachable {
            what: name.display().to_string(),
            source,
        }
    }
}

/// What is kept until a program has ended. Where nobody waits for that any more it is never dropped.
struct Keeps<T>(Option<T>);

impl<T> Keeps<T> {
    fn end(mut self) {
        self.0 = None;
    }
}

impl<T> Drop for Keeps<T> {
    fn drop(&mut self) {
        std::mem::forget(self.0.take());
    }
}

/// The beginning of what is said, which is heard out.
async fn text(said: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(mut said) = said {
        (&mut said).take(most).read_to_end(&mut text).await?;
        copy(&mut said, &mut sink()).await?;
    }
    Ok(text)
}

fn no_end(limit: Duration) -> io::Error {
    let text = format!("no end after {limit:?}");
    io::Error::new(io::ErrorKind::TimedOut, text)
}

fn no_pipe() -> io::Error {
    io::Error::other("its output cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::error::TryRecvError;

    fn failed(status: ExitStatus, text: &str) -> StorageError {
        StorageError::Unreachable {
            what: "sh".to_owned(),
            source: io::Error::other(format!("{status}: {text}")),
        }
    }

    fn shell(limit: Duration) -> Program {
        Program::new("/bin/sh", failed).within(limit)
    }

    async fn run(script: &str, limit: Duration) -> Result<(), StorageError> {
        shell(limit).run(&["-c", script]).await
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
    async fn a_change_goes_on_behind_the_limit_and_keeps_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let go_on = dir.path().join("go-on");
        let script = format!("until [ -e {} ]; do sleep 0.01; done", go_on.display());
        let (kept, mut ended) = tokio::sync::oneshot::channel::<()>();
        let slow = shell(Duration::from_millis(50));
        let late = slow
            .change(&["-c", &script], Stdio::null(), Stdio::null(), kept)
            .await;
        assert!(
            matches!(&late, Err(StorageError::Unreachable { source, .. })
                if source.kind() == io::ErrorKind::TimedOut),
            "{late:?}"
        );
        assert_eq!(ended.try_recv(), Err(TryRecvError::Empty));
        std::fs::write(&go_on, "").unwrap();
        ended.await.unwrap_err();
    }

    #[tokio::test]
    async fn a_change_that_does_not_begin_keeps_nothing() {
        let (kept, ended) = tokio::sync::oneshot::channel::<()>();
        let missing = Program::new("/nowhere/lvm", failed);
        let change = missing.change(&["lvs"], Stdio::null(), Stdio::null(), kept);
        change.await.unwrap_err();
        ended.await.unwrap_err();
    }

    /// As when the process ends that has called it.
    #[test]
    fn a_change_is_not_killed_with_who_called_it() {
        let dir = tempfile::tempdir().unwrap();
        let (begun, done) = (dir.path().join("begun"), dir.path().join("done"));
        let script = format!(
            "touch {}; until [ -e {} ]; do sleep 0.01; done; flock -n {} true || touch {}",
            begun.display(),
            dir.path().join("go-on").display(),
            dir.path().join("lock").display(),
            done.display()
        );
        let lock = std::fs::File::create(dir.path().join("lock")).unwrap();
        lock.lock().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let input = lock.try_clone().unwrap();
        runtime.spawn(async move {
            let change = shell(LIMIT);
            let args = ["-c", &script];
            change.change(&args, input.into(), Stdio::null(), ()).await
        });
        let wait = |path: &std::path::Path| {
            while !path.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait(&begun);
        runtime.shutdown_background();
        drop(lock);
        std::fs::write(dir.path().join("go-on"), "").unwrap();
        wait(&done);
    }

    #[tokio::test]
    async fn one_that_is_missing_does_not_mean_that_the_volume_is() {
        let missing = Program::new("/nowhere/qemu-img", failed);
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
        shell(limit).lines(&["-c", script])
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

    #[tokio::test]
    async fn one_may_end_well_in_another_way() {
        let told = shell(LIMIT).ending(&[3]);
        assert_eq!(told.answer(&["-c", "echo x; exit 3"]).await.unwrap(), "x\n");
        told.run(&["-c", "exit 2"]).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_answer_is_whole_or_an_error() {
        let answer = async |script: &str| shell(LIMIT).answer(&["-c", script]).await;
        let said = answer("seq 100000; yes talk | head -c 1000000 >&2").await;
        assert_eq!(said.unwrap().lines().count(), 100_000);
        for bad in [
            "head -c 70000000 /dev/zero",
            "printf '\\377'",
            "echo half; exit 3",
        ] {
            let refused = answer(bad).await.unwrap_err();
            assert!(
                matches!(refused, StorageError::Unreachable { .. }),
                "{refused:?}"
            );
        }
    }
}
