//! Who keeps one guest frozen, and sees to it that it is thawed.

use super::marks::Mark;
use super::{Consistency, Freezes, Frozen, blocking, unavailable};
use crate::hypervisor::{HypervisorError, HypervisorEvent, VmState};
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Backoff, Tries};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, broadcast, oneshot};
use tokio::time::timeout;

/// Between two tries of a thaw that is not answered.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
/// How long a thaw may take before the guest is shown as frozen: an agent that libvirt has just begun
/// to ask answers a little later.
const SHOWN_AFTER: Duration = Duration::from_secs(3);
/// How long a starting agent looks whether the overlays are on, while the guest stands still.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps one machine. Ends when its guest is thawed, or the agent stops.
pub(super) struct Keeper {
    freezes: Arc<Freezes>,
    vm: VmId,
    _lane: OwnedMutexGuard<()>,
}

/// The keeper's end of what it tells its caller.
pub(super) struct Told {
    answer: oneshot::Sender<Result<(), Problem>>,
    released: oneshot::Receiver<()>,
    held: oneshot::Sender<bool>,
}

/// The caller's end.
pub(super) struct Asked {
    answer: oneshot::Receiver<Result<(), Problem>>,
    frozen: Frozen,
}

impl Told {
    pub(super) fn new() -> (Asked, Self) {
        let (told, answer) = oneshot::channel();
        let (release, released) = oneshot::channel();
        let (holds, held) = oneshot::channel();
        let frozen = Frozen { release, held };
        let told = Self {
            answer: told,
            released,
            held: holds,
        };
        (Asked { answer, frozen }, told)
    }
}

impl Asked {
    pub(super) async fn answered(self) -> Result<Frozen, Problem> {
        match self.answer.await {
            Ok(answer) => answer.map(|()| self.frozen),
            Err(_ended) => Err(Problem::new(Reason::InternalBug, "a freeze broke off")),
        }
    }
}

impl Keeper {
    pub(super) fn new(freezes: Arc<Freezes>, vm: VmId, lane: OwnedMutexGuard<()>) -> Self {
        Self {
            freezes,
            vm,
            _lane: lane,
        }
    }

    /// Freezes, holds as long as the caller wants and the bound allows, thaws.
    pub(super) async fn freeze_and_thaw(self, mark: Mark, told: Told) {
        if let Err(problem) = self.mark(mark).await {
            // Nobody may listen any more, here and below: the guest comes first.
            let _ = told.answer.send(Err(problem));
            return;
        }
        let frozen = match self.freeze().await {
            Ok(()) => told.answer.send(Ok(())).is_ok(),
            Err(NotFrozen::Surely(problem)) => {
                self.unmark().await;
                let _ = told.answer.send(Err(problem));
                return;
            }
            Err(NotFrozen::Perhaps(problem)) => {
                let _ = told.answer.send(Err(problem));
                false
            }
        };
        let in_time = frozen
            && timeout(self.freezes.policy.hold, told.released)
                .await
                .is_ok();
        if frozen && !in_time {
            tracing::warn!(vm = %self.vm, "the guest was frozen for as long as it may be: it is thawed");
        }
        let mut first = Some(told.held);
        self.thaw(|still_frozen| {
            if let Some(held) = first.take() {
                let _ = held.send(in_time && still_frozen);
            }
        })
        .await;
    }

    /// Thaws what an earlier process of the agent has left. If the overlays were on before, and the
    /// guest is still frozen, it was so when they came.
    pub(super) async fn after_restart(self, mark: Option<Mark>) {
        if !self.until_connected().await {
            return;
        }
        let on = match &mark {
            Some(mark) => self.are_on(&mark.overlays).await,
            None => false,
        };
        let mut frozen_with_them = false;
        self.thaw(|still_frozen| frozen_with_them = on && still_frozen)
            .await;
        if let Some(mark) = mark.filter(|_| frozen_with_them) {
            let freezes = &self.freezes;
            freezes
                .take(self.vm, mark.request, Consistency::Frozen)
                .await;
        }
    }

    async fn freeze(&self) -> Result<(), NotFrozen> {
        let freezes = &self.freezes;
        fail::fail_point!("agent::before-freeze");
        let frozen = freezes
            .hypervisor
            .freeze_guest(self.vm, freezes.policy.answer)
            .await;
        fail::fail_point!("agent::after-freeze");
        match frozen {
            Ok(0) => {
                let why = "its agent has found none that it can freeze";
                Err(NotFrozen::Perhaps(unavailable(self.vm, why)))
            }
            Ok(_) => Ok(()),
            Err(
                HypervisorError::Refused(why)
                | HypervisorError::Migrating(why)
                | HypervisorError::NotFound(why),
            ) => Err(NotFrozen::Surely(unavailable(self.vm, &why))),
            Err(HypervisorError::Unknown(why)) if freezes.hypervisor.connected() => {
                Err(NotFrozen::Perhaps(unavailable(self.vm, &why)))
            }
            Err(error) => {
                let problem = Problem::new(Reason::HypervisorUnreachable, error.to_string());
                Err(NotFrozen::Perhaps(problem))
            }
        }
    }

    /// Thaws until that is answered, and takes the mark away. Tells of each answer whether the guest
    /// was frozen until then.
    async fn thaw(&self, mut told: impl FnMut(bool)) {
        let (freezes, vm) = (&self.freezes, self.vm);
        let mut events = freezes.hypervisor.events();
        let mut tries = Tries::new(BACKOFF, vm);
        let begun = Instant::now();
        while self.is_marked().await {
            fail::fail_point!("agent::before-thaw");
            let thawed = freezes
                .hypervisor
                .thaw_guest(vm, freezes.policy.answer)
                .await;
            fail::fail_point!("agent::after-thaw");
            told(matches!(thawed, Ok(1..)));
            let error = match thawed {
                Ok(_) | Err(HypervisorError::NotFound(_)) => break,
                Err(_) if self.is_off().await => break,
                Err(error) => error,
            };
            tracing::error!(%vm, %error, "the guest may still be frozen");
            if freezes.hypervisor.connected() && begun.elapsed() >= SHOWN_AFTER {
                self.show_stuck(true);
            }
            let pause = tokio::time::sleep(tries.failed());
            tokio::select! {
                () = pause => {}
                () = concerns(&mut events, vm) => {}
                // The next start goes on.
                () = freezes.shutdown.cancelled() => return,
            }
        }
        self.unmark().await;
        self.show_stuck(false);
    }

    /// Waits until something can be asked at all. `false` when the agent stops.
    async fn until_connected(&self) -> bool {
        let mut events = self.freezes.hypervisor.events();
        while !self.freezes.hypervisor.connected() {
            tokio::select! {
                _again = timeout(BACKOFF.most(), concerns(&mut events, self.vm)) => {}
                () = self.freezes.shutdown.cancelled() => return false,
            }
        }
        true
    }

    /// A guest without a QEMU is not frozen.
    async fn is_off(&self) -> bool {
        match self.freezes.hypervisor.vm(self.vm).await {
            Ok(vm) => vm.state == VmState::ShutOff,
            Err(error) => matches!(error, HypervisorError::NotFound(_)),
        }
    }

    async fn are_on(&self, overlays: &[String]) -> bool {
        let look = timeout(LOOK, self.freezes.hypervisor.vm(self.vm)).await;
        let Ok(Ok(vm)) = look else { return false };
        let active = vm.disks.iter().filter_map(|disk| disk.active());
        let active: Vec<String> = active.map(|layer| layer.locator.to_string()).collect();
        overlays.iter().all(|overlay| active.contains(overlay))
    }

    async fn mark(&self, mark: Mark) -> Result<(), Problem> {
        let (marks, vm) = (Arc::clone(&self.freezes.marks), self.vm);
        let marked = blocking(move || marks.mark(vm, &mark)).await;
        marked.map_err(|error| {
            tracing::error!(%vm, %error, "the mark of a frozen guest cannot be written");
            let text = "the agent's journal cannot be written";
            Problem::new(Reason::StoreUnavailable, text)
        })
    }

    /// A mark that somebody has taken away means that he has seen to the guest. One that cannot be
    /// looked for is there.
    async fn is_marked(&self) -> bool {
        let (marks, vm) = (Arc::clone(&self.freezes.marks), self.vm);
        blocking(move || marks.is_marked(vm)).await.unwrap_or(true)
    }

    /// A mark that stays costs the next start of the agent a thaw.
    async fn unmark(&self) {
        let (marks, vm) = (Arc::clone(&self.freezes.marks), self.vm);
        if let Err(error) = blocking(move || marks.unmark(vm)).await {
            tracing::warn!(%vm, %error, "the mark of a thawed guest cannot be taken away");
        }
    }

    fn show_stuck(&self, so: bool) {
        self.freezes.stuck.send_if_modified(|stuck| match so {
            true => stuck.insert(self.vm),
            false => stuck.remove(&self.vm),
        });
    }
}

enum NotFrozen {
    /// Nothing is to be undone.
    Surely(Problem),
    /// It may be all the same, now or soon.
    Perhaps(Problem),
}

/// Ends when something happens after which a thaw may be answered otherwise.
async fn concerns(events: &mut broadcast::Receiver<HypervisorEvent>, vm: VmId) {
    use broadcast::error::RecvError;
    loop {
        match events.recv().await {
            Ok(HypervisorEvent::Connected) | Err(RecvError::Lagged(_)) => return,
            Ok(HypervisorEvent::Lifecycle { vm: other }) if other == vm => return,
            Ok(_) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
