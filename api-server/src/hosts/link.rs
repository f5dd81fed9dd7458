//! The line to one host's agent: two watches, and the state that they show.
//!
//! ```text
//!   UNRESPONSIVE ──both watches begin with the full state──▶ UP
//!        ▲                                                    │ a watch breaks
//!        └────────── silent for too long ◀── reconnecting ◀───┘
//! ```
//!
//! An agent of a version that is not worked with is INCOMPATIBLE instead of UP: it is asked for its version
//! again and again, and for nothing else.
//!
//! While reconnecting, merges and machines are unknown, and so is the version of who answers next; only the
//! status waits for the silence to be too long, so that a short break of the line is no event.

mod watches;

use super::Hosts;
use super::answer;
use super::convert;
use super::types::{HostStatus, HostView, MergeSeen, VmSeen};
use livemerge_proto::agent_api;
use livemerge_proto::ids::{HostId, MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::v1;
use livemerge_proto::v1::{watch_host_response, watch_merges_response};
use livemerge_runtime::client::{Seen, Watch, WatchPolicy};
use livemerge_runtime::{Backoff, Line, Tries};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use watches::{MERGES_SILENCE, Piece};

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

pub(super) struct Link {
    hosts: Arc<Hosts>,
    host: HostId,
    channel: Line,
    view: watch::Sender<HostView>,
    last_heard: Instant,
    notes: Retry,
}

/// When the machines' homes are noted again, because they could not be.
struct Retry {
    at: Option<Instant>,
    tries: Tries,
}

impl Retry {
    /// After a try: later each time, until one succeeds.
    fn tried(&mut self, noted: bool) {
        if noted {
            self.tries.succeeded();
        }
        self.at = (!noted).then(|| Instant::now() + self.tries.failed());
    }
}

/// Never without an instant.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl Link {
    pub(super) fn new(
        hosts: Arc<Hosts>,
        host: HostId,
        channel: Line,
        view: watch::Sender<HostView>,
    ) -> Self {
        let notes = Retry {
            at: None,
            tries: Tries::new(BACKOFF, (&host, "notes")),
        };
        Self {
            hosts,
            host,
            channel,
            view,
            last_heard: Instant::now(),
            notes,
        }
    }

    /// Keeps the line until dropped.
    pub(super) async fn keep(mut self) {
        let mut watch = self.watch();
        loop {
            let (note_at, silent_at) = (self.notes.at, self.silent_at());
            let seen = tokio::select! {
                () = at(note_at) => {
                    self.note_homes_again().await;
                    continue;
                }
                () = at(silent_at) => {
                    self.check_silence().await;
                    continue;
                }
                seen = watch.next() => seen,
            };
            let broken = match seen {
                Ok(Seen::Piece(piece)) => match self.take(piece).await {
                    Ok(()) => continue,
                    Err(status) => {
                        watch.leave();
                        status
                    }
                },
                // Whatever it is, somebody mends it: the host stays, and is asked again.
                Ok(Seen::Lost(status) | Seen::Afresh(status)) | Err(status) => status,
            };
            tracing::info!(host = %self.host, code = ?broken.code(), "the line broke: {}", broken.message());
            if answer::is_missing(&broken) {
                // It lacks a watch, and says no number without one.
                let said = self.view.borrow().api_version;
                self.is_incompatible(said.unwrap_or_default());
            }
            self.forget();
            self.check_silence().await;
        }
    }

    /// Both watches in one, opened again together: each begins with the full state.
    fn watch(&self) -> Watch<'static, (), Piece> {
        let silence = self.hosts.policy.silence;
        let policy = WatchPolicy {
            open: silence,
            silence: silence.max(MERGES_SILENCE),
            backoff: BACKOFF,
        };
        let heartbeat = self.hosts.policy.heartbeat;
        let channel = self.hosts.calls().over(self.channel.clone());
        let open = move |_| watches::open(channel.clone(), heartbeat, silence);
        Watch::new(policy, &self.host, None, open, |_| None)
    }

    async fn take(&mut self, piece: Piece) -> Result<(), Status> {
        match piece {
            Piece::Machines(item) => self.heard_of_host(item).await,
            Piece::Merges(item) => self.heard_of_merges(*item),
        }
    }

    /// When the host will have been silent for too long, as long as it is not said to be.
    fn silent_at(&self) -> Option<Instant> {
        let is_silent = self.view.borrow().status == HostStatus::Unresponsive;
        (!is_silent).then(|| self.last_heard + self.hosts.policy.silence)
    }

    /// Behind an endpoint that was given away another agent may answer: what it shows is not this
    /// host's, and orders meant for this host are not for it.
    fn check_host(&self, shown: Option<&v1::HostInfo>) -> Result<(), Status> {
        let shown = shown.map_or("", |host| &host.host_id);
        if shown == self.host.to_string() {
            return Ok(());
        }
        let text = format!("the agent at this endpoint is of host {shown:?}");
        Err(Status::failed_precondition(text))
    }

    /// What is not understood is not used, whatever else it shows.
    fn check_version(&mut self, number: i32) -> Result<(), Status> {
        if agent_api::is_understood(number) {
            self.show(|view| view.api_version = Some(number));
            return Ok(());
        }
        Err(self.is_incompatible(number).into())
    }

    /// Said once for each that comes.
    fn is_incompatible(&mut self, number: i32) -> Problem {
        let problem = answer::incompatible(&self.host, number);
        let was = self.view.borrow().status;
        if was != HostStatus::Incompatible {
            tracing::error!(host = %self.host, "{problem}");
        }
        self.last_heard = Instant::now();
        let now = self.hosts.clock.now();
        self.show(|view| {
            view.status = HostStatus::Incompatible;
            view.api_version = Some(number);
            view.last_seen_at = Some(now);
        });
        problem
    }

    async fn heard_of_host(&mut self, item: watch_host_response::Item) -> Result<(), Status> {
        use watch_host_response::Item;
        match item {
            Item::State(state) => {
                self.check_host(state.host.as_ref())?;
                self.check_version(state.host.as_ref().map_or(0, |host| host.api_version))?;
                let vms: Vec<VmSeen> = state
                    .vms
                    .iter()
                    .map(convert::vm)
                    .collect::<Result<_, _>>()?;
                let host = state.host.unwrap_or_default();
                let connected = host.hypervisor_connected;
                self.note_homes(&vms).await;
                self.note_journals(host.damaged_journals).await;
                self.hosts.note_frozen(&self.host, &vms).await;
                let vms: BTreeMap<VmId, VmSeen> = vms.into_iter().map(|vm| (vm.id, vm)).collect();
                self.show(|view| {
                    view.hypervisor_connected = connected;
                    view.vms = Some(Arc::new(vms));
                });
            }
            Item::Changed(vm) => {
                let vm = convert::vm(&vm)?;
                self.note_homes(std::slice::from_ref(&vm)).await;
                self.note_frozen(&vm).await;
                self.show(|view| {
                    if let Some(vms) = view.vms.as_mut() {
                        Arc::make_mut(vms).insert(vm.id, vm);
                    }
                });
            }
            Item::RemovedVmId(id) => {
                let id: VmId = convert::id(&id)?;
                self.show(|view| {
                    if let Some(vms) = view.vms.as_mut() {
                        Arc::make_mut(vms).remove(&id);
                    }
                });
            }
            Item::Heartbeat(beat) => {
                self.show(|view| view.hypervisor_connected = beat.hypervisor_connected);
            }
        }
        self.heard().await;
        Ok(())
    }

    async fn note_homes(&mut self, vms: &[VmSeen]) {
        let noted = self.hosts.note_homes(&self.host, vms.iter()).await;
        // What could not be noted before is not noted by another machine's success.
        if !noted || self.notes.at.is_none() {
            self.notes.tried(noted);
        }
    }

    /// What cannot be told now is told when the host shows its whole state again.
    async fn note_journals(&self, shown: Vec<String>) {
        let mut told = self.view.borrow().damaged_journals.clone();
        for file in shown {
            if !told.contains(&file) && self.hosts.note_damaged(&self.host, &file).await {
                told.insert(file);
            }
        }
        self.show(|view| view.damaged_journals = told);
    }

    /// Most changes are of another kind.
    async fn note_frozen(&self, vm: &VmSeen) {
        let known = self.view.borrow().vms.clone().unwrap_or_default();
        let was = known.get(&vm.id).is_some_and(|vm| vm.still_frozen);
        if vm.still_frozen != was {
            self.hosts
                .note_frozen(&self.host, std::slice::from_ref(vm))
                .await;
        }
    }

    /// All that the host shows now, since some of it could not be noted.
    async fn note_homes_again(&mut self) {
        let vms = self.view.borrow().vms.clone().unwrap_or_default();
        let noted = self.hosts.note_homes(&self.host, vms.values()).await;
        self.notes.tried(noted);
    }

    fn heard_of_merges(&mut self, item: watch_merges_response::Item) -> Result<(), Status> {
        use watch_merges_response::Item;
        match item {
            Item::State(list) => {
                let merges: BTreeMap<MergeId, MergeSeen> = list
                    .merges
                    .iter()
                    .map(convert::merge)
                    .collect::<Result<_, _>>()?;
                self.show(|view| view.merges = Some(Arc::new(merges)));
            }
            Item::Changed(merge) => {
                let (id, seen) = convert::merge(&merge)?;
                self.show(|view| {
                    if let Some(merges) = view.merges.as_mut() {
                        Arc::make_mut(merges).insert(id, seen);
                    }
                });
            }
            Item::Heartbeat(_) => {}
        }
        Ok(())
    }

    /// A sign of life.
    async fn heard(&mut self) {
        self.last_heard = Instant::now();
        let now = self.hosts.clock.now();
        let was = self.view.borrow().status;
        self.show(|view| {
            view.status = HostStatus::Up;
            view.last_seen_at = Some(now);
        });
        if was != HostStatus::Up {
            self.hosts.note_status(&self.host, HostStatus::Up).await;
        }
    }

    /// What a host that is not heard has is unknown, and which agent answers next.
    fn forget(&self) {
        self.show(|view| {
            view.expect_another();
            view.vms = None;
            view.merges = None;
            view.hypervisor_connected = false;
        });
    }

    async fn check_silence(&self) {
        let silent = self.last_heard.elapsed() >= self.hosts.policy.silence;
        if silent && self.view.borrow().status != HostStatus::Unresponsive {
            self.show(|view| {
                view.status = HostStatus::Unresponsive;
                view.expect_another();
            });
            self.hosts
                .note_status(&self.host, HostStatus::Unresponsive)
                .await;
        }
    }

    fn show(&self, change: impl FnOnce(&mut HostView)) {
        self.view.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            *view != before
        });
    }
}
