//! Sees to it that a domain's exporter runs on this host.
//!
//! ```text
//!   activate ─▶ its lock is held, its socket answers? ─┬─ yes ▶ adopted
//!                                                      └─ no ─▶ started, and waited for
//!   watch ────▶ its lock is free again ────────────────▶ started again
//! ```

use super::domain::Domain;
use super::exporter::{Exporter, lock, serves};
use crate::StorageError;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long an exporter has until it listens.
const LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Where a domain's exporter runs.
#[derive(Debug, Clone)]
pub enum ExporterPlace {
    /// In this process, and as long as it: for tests.
    Within,
    /// In a process of its own, which outlives this one.
    Process {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
}

/// Keeps the exporter.
#[derive(Debug)]
pub(super) struct Keeper {
    domain: Arc<Domain>,
    place: ExporterPlace,
    starting: Mutex<()>,
    stop: CancellationToken,
    _until_the_end: DropGuard,
}

impl Keeper {
    pub(super) fn new(domain: Arc<Domain>, place: ExporterPlace) -> Arc<Self> {
        let stop = CancellationToken::new();
        Arc::new(Self {
            domain,
            place,
            starting: Mutex::default(),
            _until_the_end: stop.clone().drop_guard(),
            stop,
        })
    }

    /// Returns when the exporter answers.
    ///
    /// # Errors
    /// `Unreachable` when it does not; `Invalid` when it is the one of other objects.
    pub(super) async fn ensure(&self) -> Result<(), StorageError> {
        if self.answers().await? {
            return Ok(());
        }
        let _one_at_a_time = self.starting.lock().await;
        let begun = Instant::now();
        let mut started = None;
        while !self.answers().await? {
            if begun.elapsed() > LIMIT {
                return Err(self.failed(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "it does not answer",
                )));
            }
            // One that starts or ends holds the lock, and is waited for.
            if started.is_none_or(|at: Instant| at.elapsed() > LIMIT / 4)
                && lock(&self.domain.dir)?.is_some()
            {
                self.start().await?;
                started = Some(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Starts the exporter again whenever it has ended.
    pub(super) fn watch(self: &Arc<Self>) {
        let (keeper, stop) = (Arc::downgrade(self), self.stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                tokio::time::sleep(LOOK).await;
                let Some(keeper) = keeper.upgrade() else {
                    return;
                };
                match lock(&keeper.domain.dir) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => continue,
                }
                tracing::warn!(storage = %keeper.domain.id, "the exporter has ended, and is started again");
                if let Err(error) = keeper.ensure().await {
                    tracing::error!(storage = %keeper.domain.id, %error, "the exporter does not start");
                }
            }
        });
    }

    async fn answers(&self) -> Result<bool, StorageError> {
        let connected = UnixStream::connect(self.domain.socket()).await;
        if connected.is_ok() && !serves(&self.domain)? {
            let text = format!(
                "{}: the exporter of other objects runs here; end it first, or choose another directory",
                self.domain.dir.display()
            );
            return Err(StorageError::Invalid(text));
        }
        Ok(connected.is_ok())
    }

    async fn start(&self) -> Result<(), StorageError> {
        match &self.place {
            ExporterPlace::Within => {
                let exporter = Exporter::listen(Arc::clone(&self.domain)).await?;
                tokio::spawn(exporter.serve(self.stop.clone()));
                Ok(())
            }
            ExporterPlace::Process { program, arguments } => {
                let mut command = Command::new(program);
                command.args(arguments).stdin(Stdio::null());
                // It begins a session of its own, which a leader of a group cannot.
                command.kill_on_drop(false);
                let mut child = command.spawn().map_err(|error| self.failed(error))?;
                // When it ends, somebody has to ask how.
                tokio::spawn(async move { child.wait().await });
                Ok(())
            }
        }
    }

    fn failed(&self, source: io::Error) -> StorageError {
        StorageError::Unreachable {
            what: format!("the exporter of storage domain {}", self.domain.id),
            source,
        }
    }
}
