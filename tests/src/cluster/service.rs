//! A service on a runtime of its own, so that all of it can be ended at once, from anywhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

use super::between::{Between, Who};
use super::network::{Incoming, Network};

/// Time in which the threads of an ended service must be gone.
const LIMIT: Duration = Duration::from_secs(20);

/// One of the two services, whether it runs or not. Clones are the same service.
#[derive(Clone)]
pub struct Service {
    who: Who,
    network: Network,
    between: Arc<dyn Between>,
    runtime: Arc<Mutex<Option<Runtime>>>,
    threads: Arc<AtomicUsize>,
}

impl Service {
    pub(super) fn new(who: Who, network: Network, between: Arc<dyn Between>) -> Self {
        Self {
            who,
            network,
            between,
            runtime: Arc::default(),
            threads: Arc::default(),
        }
    }

    /// Whether it was started and not ended since.
    pub fn runs(&self) -> bool {
        self.runtime().is_some()
    }

    /// Ends it wherever it is, and nobody reaches it. May be called by itself: what calls then
    /// goes on to its next await, and no further.
    pub fn crash(&self) {
        let mut running = self.runtime();
        if let Some(runtime) = running.take() {
            self.network.cut(self.who.address());
            runtime.shutdown_background();
        }
    }

    /// Listens, and runs `start` on a new runtime, which then owns all that it spawns, once the
    /// earlier one is gone with its last thread: two processes never share a directory.
    pub(super) async fn start<T, F>(&self, start: impl FnOnce(Incoming) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.gone().await?;
        let (between, who) = (Arc::clone(&self.between), self.who);
        let (begun, ended) = (Arc::clone(&self.threads), Arc::clone(&self.threads));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            // Looks after each task whether it shall end.
            .event_interval(1)
            .on_thread_start(move || {
                begun.fetch_add(1, Ordering::SeqCst);
                between.thread_starts(who);
            })
            .on_thread_stop(move || {
                ended.fetch_sub(1, Ordering::SeqCst);
            })
            .enable_all()
            .build()?;
        let started = {
            let mut running = self.runtime();
            let incoming = self.network.listen(self.who.address());
            let started = runtime.spawn(start(incoming));
            *running = Some(runtime);
            started
        };
        let started = started.await.context("it ended while it started");
        if !matches!(started, Ok(Ok(_))) {
            self.crash();
        }
        started?
    }

    async fn gone(&self) -> Result<()> {
        let gone = async {
            while self.threads.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(LIMIT, gone).await;
        in_time.with_context(|| format!("{:?} does not end", self.who))
    }

    fn runtime(&self) -> MutexGuard<'_, Option<Runtime>> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
