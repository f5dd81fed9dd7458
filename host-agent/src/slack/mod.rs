//! Takes back the room that a commit has left its volume and that the volume does not need.
//!
//! ```text
//!   commit verified ─▶ noted (marks.rs) ─▶ merge written down as done
//!                        │
//!                        ▼ every 30 s, and after a restart
//!     machine off, and at the last look too? ─▶ its lane ─▶ off still, no job, not its active layer?
//!                                                  ─▶ reduce (storage) ─▶ activate ─▶ note settled
//! ```
//!
//! - Only of a machine that is off: a running QEMU has the whole chain open, and nothing that is there
//!   for everybody keeps it, or an operator, from opening that volume for writing in the middle: image
//!   locks are on the node that was opened, and libvirt gives QEMU nodes of its own. Storage takes the
//!   volume out of everybody's reach while it is cut, which it can only while nobody has it open.
//! - Off at two looks: a machine that is only restarted does not find its volume out of reach.
//! - The machine's lane is held meanwhile, so that no merge of it begins. A layer that the guest writes
//!   keeps what it has.
//! - No merge waits for it, and none fails by it. What fails is tried again at the next look, which comes
//!   later each time.

pub(crate) mod marks;

use crate::hypervisor::{Hypervisor, HypervisorError, VmState, VmView};
use crate::merge::Merges;
use crate::volumes::Volumes;
use livemerge_proto::ids::{MergeId, VmId};
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Backoff, Shutdown, Tries};
use marks::Mark;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// When something fails at each.
const AGAIN: Backoff = Backoff::new(EVERY, Duration::from_secs(300));

/// Takes back room until the agent stops. Without a domain that gives volumes their room there is
/// nothing to do.
pub(crate) async fn keep(slack: Slack, shutdown: Shutdown) {
    if !slack.volumes.any_provided() {
        return;
    }
    let mut seen = Looked::default();
    let mut tries = Tries::new(AGAIN, "slack");
    let looks = async {
        loop {
            seen = slack.look(&seen.off).await;
            tokio::time::sleep(tries.after(!seen.failed, EVERY)).await;
        }
    };
    shutdown.run_until_cancelled(looks).await;
}

/// What is worked with.
pub(crate) struct Slack {
    pub(crate) merges: Arc<Merges>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) volumes: Arc<Volumes>,
}

/// What a look has come to.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// The machines that are off.
    pub(crate) off: HashSet<VmId>,
    /// Whether something that was due did not succeed.
    pub(crate) failed: bool,
}

/// What is known of a machine whose volume was noted.
enum Found {
    Off(Box<VmView>),
    /// It has QEMU.
    On,
    /// Perhaps because an earlier try has stopped where the volume was not active.
    Unreadable,
    Gone,
}

impl Slack {
    /// Looks at all that is noted.
    pub(crate) async fn look(&self, off_before: &HashSet<VmId>) -> Looked {
        let mut looked = Looked::default();
        for (merge, mark) in self.merges.slack().await {
            match self.found(mark.vm).await {
                Found::Off(_) => {
                    looked.off.insert(mark.vm);
                    if off_before.contains(&mark.vm) {
                        looked.failed |= !self.look_at(merge, &mark).await;
                    }
                }
                Found::On => {}
                Found::Unreadable => {
                    self.make_readable(&mark).await;
                    looked.failed = true;
                }
                Found::Gone => self.merges.settle_slack(merge).await,
            }
        }
        looked
    }

    /// Of a machine that was off at the last look, too. Whether nothing has failed.
    async fn look_at(&self, merge: MergeId, mark: &Mark) -> bool {
        // While a merge goes on, or waits, the volume may be about to be written.
        let Ok(_alone) = self.merges.lane(mark.vm).try_lock_owned() else {
            return true;
        };
        let Found::Off(vm) = self.found(mark.vm).await else {
            return true;
        };
        match self.hypervisor.job(mark.vm, &mark.disk).await {
            Ok(None) if self.is_inner(&vm, mark) => self.reduce(merge, mark).await,
            Ok(None) => {
                self.merges.settle_slack(merge).await;
                true
            }
            Ok(Some(_)) => true,
            Err(_) => false,
        }
    }

    /// Whether it still lies below another layer of the disk.
    fn is_inner(&self, vm: &VmView, mark: &Mark) -> bool {
        let Some(disk) = vm.disk(&mark.disk) else {
            return false;
        };
        let layer = self.volumes.layer_of(&mark.kept.volume, &disk.chain);
        layer.is_some_and(|(place, _)| place + 1 < disk.chain.len())
    }

    async fn found(&self, vm: VmId) -> Found {
        match self.hypervisor.vm(vm).await {
            Ok(view) if view.state == VmState::ShutOff => Found::Off(Box::new(view)),
            Err(HypervisorError::NotFound(_)) => Found::Gone,
            Ok(_) => Found::On,
            Err(_) => Found::Unreadable,
        }
    }

    /// Neither the agent nor the machine's next start could open what is not active.
    async fn make_readable(&self, mark: &Mark) {
        let Ok(_alone) = self.merges.lane(mark.vm).try_lock_owned() else {
            return;
        };
        if let Err(problem) = self.volumes.activate(&mark.kept.volume).await {
            tracing::debug!(volume = %mark.kept.volume, %problem, "is not made active");
        }
    }

    /// Whether it has succeeded, or never will.
    async fn reduce(&self, merge: MergeId, mark: &Mark) -> bool {
        let volume = &mark.kept.volume;
        let had = match self.volumes.stat(volume).await {
            Ok(info) if info.identity == mark.kept.identity => info.allocated_bytes,
            Ok(_) => {
                self.merges.settle_slack(merge).await;
                return true;
            }
            Err(problem) if problem.reason == Reason::VolumeNotFound => {
                self.merges.settle_slack(merge).await;
                return true;
            }
            Err(problem) => {
                tracing::debug!(%volume, %problem, "its room cannot be told");
                return false;
            }
        };
        let reduced = self.volumes.reduce(volume).await;
        // The machine's next start opens it, wherever an earlier try has stopped.
        if let Err(problem) = self.volumes.activate(volume).await {
            tracing::warn!(%volume, %problem, "is not active after a look at its room");
            return false;
        }
        match reduced {
            Ok(room) => {
                let freed_bytes = had.saturating_sub(room);
                tracing::info!(%merge, %volume, room, freed_bytes, "room taken back after a merge");
            }
            // Nothing of it would be otherwise the next time.
            Err(problem) if problem.reason == Reason::ChainCorrupt => {
                tracing::error!(%volume, %problem, "keeps its room");
            }
            Err(problem) => {
                tracing::warn!(%volume, %problem, "its room is not taken back yet");
                return false;
            }
        }
        self.merges.settle_slack(merge).await;
        true
    }
}
