//! The connection to libvirt, kept up by a task.
//!
//! ```text
//!   open ─▶ subscribe ─▶ published ─▶ Connected ─▶ signals become events ─┐
//!    ▲                                                                     │ closed, or not alive
//!    └── back-off ◀── Disconnected ◀── withdrawn ◀─────────────────────────┘
//! ```
//!
//! Events are subscribed to before anybody can see the connection: who looks after `Connected`
//! misses nothing.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use livemerge_proto::ids::VmId;
use livemerge_runtime::{Backoff, Tries};
use tokio::sync::{broadcast, mpsc};
use virt::connect::Connect;

use super::apart::apart;
use super::mend::mend;
use crate::hypervisor::ffi::{Held, Signal, Subscription};
use crate::hypervisor::{BlockJobOutcome, HypervisorEvent};

/// Rest between two tries to connect.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));
/// How often the connection is asked whether it lives.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// libvirt gives a silent daemon up after so many unanswered pings of so many seconds.
const PINGS: (i32, u32) = (5, 3);

/// An open connection whose signals arrive.
pub(super) struct Connection {
    // Dropped first: it ends what is registered with the connection.
    _subscription: Subscription,
    connect: Arc<Held<Connect>>,
}

impl Connection {
    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }

    /// Blocks, for seconds when the driver runs within this process.
    fn open(
        uri: &str,
        signals: &mpsc::UnboundedSender<Signal>,
    ) -> Result<Self, virt::error::Error> {
        let connect = Arc::new(Held::new(Connect::open(Some(uri))?));
        let subscription = Subscription::new(Arc::clone(&connect), signals)?;
        // Not every driver has a daemon that could fall silent.
        let _ = connect.set_keep_alive(PINGS.0, PINGS.1);
        Ok(Self {
            _subscription: subscription,
            connect,
        })
    }

    fn alive(&self) -> bool {
        // A question that fails tells nothing; the calls themselves will.
        self.connect.is_alive().unwrap_or(true)
    }
}

/// The present connection, and what it tells.
pub(super) struct Link {
    uri: String,
    connection: RwLock<Option<Arc<Connection>>>,
    events: broadcast::Sender<HypervisorEvent>,
}

impl Link {
    pub(super) fn new(uri: &str, events: broadcast::Sender<HypervisorEvent>) -> Self {
        Self {
            uri: uri.to_owned(),
            connection: RwLock::new(None),
            events,
        }
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    pub(super) fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }

    pub(super) fn connection(&self) -> Option<Arc<Connection>> {
        self.connection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps the connection up, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        self.mend().await;
        // One of a host: whatever the seed, no other of it tries at the same time.
        let mut tries = Tries::new(BACKOFF, &self.uri);
        loop {
            let (sender, signals) = mpsc::unbounded_channel();
            match self.open(sender).await {
                Ok(connection) => {
                    tries.succeeded();
                    self.publish(Some(Arc::clone(&connection)), HypervisorEvent::Connected);
                    self.forward(connection, signals).await;
                    self.publish(None, HypervisorEvent::Disconnected);
                }
                Err(error) => tracing::warn!(uri = %self.uri, %error, "no connection to libvirt"),
            }
            tokio::time::sleep(tries.failed()).await;
        }
    }

    /// Once: from here on the files are libvirt's.
    async fn mend(&self) {
        let uri = self.uri.clone();
        match apart(move || mend(&uri)).await {
            Some(Ok(mended)) => mended.iter().for_each(|state| {
                tracing::warn!(state = %state.display(), "libvirt was killed within a pivot: its state is mended");
            }),
            Some(Err(error)) => tracing::warn!(%error, "libvirt's states cannot be looked at"),
            None => {}
        }
    }

    async fn open(
        &self,
        signals: mpsc::UnboundedSender<Signal>,
    ) -> Result<Arc<Connection>, Box<dyn std::error::Error + Send + Sync>> {
        let uri = self.uri.clone();
        let opened = apart(move || Connection::open(&uri, &signals)).await;
        Ok(Arc::new(opened.ok_or("no thread to connect on")??))
    }

    fn publish(&self, connection: Option<Arc<Connection>>, event: HypervisorEvent) {
        tracing::info!(uri = %self.uri, ?event, "libvirt");
        let before = {
            let mut slot = self
                .connection
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, connection)
        };
        self.tell(event);
        // Closing may block.
        drop(apart(move || drop(before)));
    }

    /// Returns when the connection is lost.
    async fn forward(
        &self,
        connection: Arc<Connection>,
        mut signals: mpsc::UnboundedReceiver<Signal>,
    ) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(Signal::Closed) | None => return,
                    Some(signal) => self.tell_all(event(&signal)),
                },
                _ = look.tick() => {
                    let connection = Arc::clone(&connection);
                    let alive = apart(move || connection.alive()).await;
                    if !alive.unwrap_or(true) {
                        return;
                    }
                }
            }
        }
    }

    fn tell_all(&self, event: Option<HypervisorEvent>) {
        if let Some(event) = event {
            self.tell(event);
        }
    }

    pub(super) fn tell(&self, event: HypervisorEvent) {
        // It is no error that nobody listens.
        let _ = self.events.send(event);
    }
}

/// `None` for what nobody can be interested in: names that are not ours, states not known.
fn event(signal: &Signal) -> Option<HypervisorEvent> {
    match signal {
        Signal::Lifecycle { vm } => Some(HypervisorEvent::Lifecycle {
            vm: VmId::from(*vm),
        }),
        Signal::BlockJob { vm, disk, status } => {
            let outcome = match *status {
                virt_sys::VIR_DOMAIN_BLOCK_JOB_COMPLETED => BlockJobOutcome::Completed,
                virt_sys::VIR_DOMAIN_BLOCK_JOB_FAILED => BlockJobOutcome::Failed,
                virt_sys::VIR_DOMAIN_BLOCK_JOB_CANCELED => BlockJobOutcome::Cancelled,
                virt_sys::VIR_DOMAIN_BLOCK_JOB_READY => BlockJobOutcome::Ready,
                _ => return None,
            };
            Some(HypervisorEvent::BlockJob {
                vm: VmId::from(*vm),
                disk: disk.parse().ok()?,
                outcome,
            })
        }
        Signal::Filling { vm } => Some(HypervisorEvent::Filling {
            vm: VmId::from(*vm),
        }),
        Signal::Closed => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_what_is_ours_becomes_an_event() {
        let vm = Uuid::from_u128(1);
        let job = |disk: &str, status| {
            event(&Signal::BlockJob {
                vm,
                disk: disk.to_owned(),
                status,
            })
        };
        let ready = virt_sys::VIR_DOMAIN_BLOCK_JOB_READY;
        let outcome = BlockJobOutcome::Ready;
        let told = HypervisorEvent::BlockJob {
            vm: vm.into(),
            disk: "vda".parse().unwrap(),
            outcome,
        };
        assert_eq!(job("vda", ready), Some(told));
        assert_eq!(job("vda", 99), None);
        assert_eq!(job("/path/of/a/file", ready), None);
        assert_eq!(event(&Signal::Closed), None);
    }
}
