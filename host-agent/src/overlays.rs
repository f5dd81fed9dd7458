//! Puts fresh overlays on a machine's disks: all of them in one step, or none.
//!
//! ```text
//!   look ─┬─ all on ─────────────────────────────────────▶ chains
//!         ├─ late ─────────────────────────────────────▶ refused, nothing is done
//!         ├─ none on ─▶ create volumes ─▶ freeze ─▶ add ─▶ thaw ─┬─ done ──▶ chains
//!         │                                                      └─ no ────▶ look again: on after all?
//!         └─ no                                                                    │ certainly not
//!            └──────────────▶ volumes of the order removed ◀───────────────────────┘ ─▶ refused
//! ```
//!
//! - The names of the overlays come with the order, so a repetition is told by what the chain
//!   shows: overlays that are active already are the answer, not an error.
//! - Whoever is refused has nothing left of the order, of its earlier tries neither. What cannot be
//!   told is no refusal, and leaves everything as it is for the next try.
//! - A machine that is shut off gets them by its definition, one that runs by QEMU: that is the
//!   hypervisor's matter.
//! - Orders for one machine are carried out one after the other, and none that is late (`latest`).
//! - The guest is frozen between the last preparation and the first thing that follows, see `freeze`.

use crate::chains::{self, Chain};
use crate::freeze::{Consistency, Freezes, Frozen, Quiesce};
use crate::hypervisor::{DiskView, Hypervisor, HypervisorError, Overlay, VmState, VmView};
use crate::lanes::Lanes;
use crate::latest::{Given, Latest};
use crate::volumes::{Volumes, unanswered};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{
    Locator, NewVolume, Parent, RemovalId, RemovalOrder, VolumeInfo, VolumeRef,
};
use std::sync::Arc;
use tonic::Code;

/// Asks for overlays.
#[derive(Debug, Clone)]
pub struct OverlayOrder {
    /// The request, from which the removals get their ids if it must be undone.
    pub request: uuid::Uuid,
    /// When it was given; `None` for one that no server has given, and that nobody repeats.
    pub given: Option<Given>,
    /// The machine.
    pub vm: VmId,
    /// One a disk.
    pub overlays: Vec<NewOverlay>,
    /// Whether the guest is frozen meanwhile.
    pub quiesce: Quiesce,
}

impl OverlayOrder {
    fn of(&self, disk: &DiskTarget) -> Option<&NewOverlay> {
        self.overlays.iter().find(|overlay| overlay.disk == *disk)
    }
}

/// One disk's overlay.
#[derive(Debug, Clone)]
pub struct NewOverlay {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// The active volume, which becomes the backing.
    pub below: VolumeRef,
    /// The volume to create.
    pub overlay: VolumeRef,
}

/// Puts overlays on the disks of this host's machines.
pub struct Overlays {
    hypervisor: Arc<dyn Hypervisor>,
    volumes: Arc<Volumes>,
    lanes: Arc<Lanes<VmId>>,
    latest: Arc<Latest>,
    /// Who freezes guests; without, none is frozen.
    freezes: Option<Arc<Freezes>>,
}

/// Overlays that are on.
#[derive(Debug)]
pub struct Overlaid {
    /// The disks' chains.
    pub chains: Vec<Chain>,
    /// What lies below them.
    pub consistency: Consistency,
}

/// Why the overlays are not on, as far as known, and what becomes of their volumes.
enum NotOn {
    /// They stay: it cannot be told whether somebody uses them.
    Leave(Problem),
    /// They go: the overlays are certainly not on, and this order will not bring them.
    Undo(Problem),
}

impl Overlays {
    /// On these domains. Guests are not frozen.
    pub fn new(
        hypervisor: Arc<dyn Hypervisor>,
        volumes: Arc<Volumes>,
        latest: Arc<Latest>,
    ) -> Self {
        Self {
            hypervisor,
            volumes,
            lanes: Arc::default(),
            latest,
            freezes: None,
        }
    }

    /// The same, orders of which follow those of `self`, with guests frozen as an order wishes.
    #[must_use]
    pub fn freezing(&self, freezes: Arc<Freezes>) -> Self {
        Self {
            hypervisor: Arc::clone(&self.hypervisor),
            volumes: Arc::clone(&self.volumes),
            lanes: Arc::clone(&self.lanes),
            latest: Arc::clone(&self.latest),
            freezes: Some(freezes),
        }
    }

    /// Puts the overlays on, and tells the disks' chains and what lies below.
    ///
    /// # Errors
    /// A problem. Nothing of the order is left, unless it says that something did not answer, or that
    /// the machine is not here: then it may be elsewhere, with the overlays on.
    pub async fn create(&self, order: &OverlayOrder) -> Result<Overlaid, Problem> {
        let _one_of_a_machine = self.lanes.of(order.vm).lock_owned().await;
        match self.bring(order).await {
            Ok(consistency) => Ok(Overlaid {
                chains: self.chains(order).await?,
                consistency,
            }),
            Err(NotOn::Leave(problem)) => Err(problem),
            Err(NotOn::Undo(problem)) => {
                self.undo(order).await?;
                Err(problem)
            }
        }
    }

    /// Takes away what is left of an order that nobody will repeat, and that is not on.
    ///
    /// # Errors
    /// When something does not answer.
    pub async fn take_back(&self, order: &OverlayOrder) -> Result<(), Problem> {
        let _one_of_a_machine = self.lanes.of(order.vm).lock_owned().await;
        self.undo(order).await
    }

    async fn bring(&self, order: &OverlayOrder) -> Result<Consistency, NotOn> {
        // Before whatever may refuse it: after a refusal no earlier copy is carried out.
        let late = self.is_late(order).await.map_err(NotOn::Leave)?;
        let vm = self.look(order).await?;
        if let Some(late) = late {
            return match self.all_on(order, &vm) {
                Ok(true) => Ok(self.told_before(order).await),
                _ => Err(NotOn::Leave(late)),
            };
        }
        if self.all_on(order, &vm).map_err(NotOn::Undo)? {
            return Ok(self.told_before(order).await);
        }
        let stays = chains::stays(&vm, self.hypervisor.as_ref()).await;
        stays.map_err(by_its_code)?;
        let mut overlays = Vec::with_capacity(order.overlays.len());
        for wanted in &order.overlays {
            fail::fail_point!("agent::before-overlay");
            let created = self.create_volume(wanted).await.map_err(by_its_code)?;
            let usable = self.volumes.activate(&created.volume).await;
            overlays.push(Overlay {
                disk: wanted.disk.clone(),
                locator: usable.map_err(by_its_code)?,
            });
        }
        let frozen = self.freeze(order, &vm, &overlays).await?;
        fail::fail_point!("agent::before-overlays-on");
        let put_on = self.hypervisor.add_overlays(order.vm, &overlays).await;
        fail::fail_point!("agent::after-overlays-on");
        let was_frozen = match frozen {
            Some(frozen) => frozen.thaw().await,
            None => false,
        };
        match put_on {
            Ok(()) => Ok(self.tell(order, &vm, was_frozen).await),
            Err(error @ HypervisorError::Unknown(_)) => Err(NotOn::Leave(unanswered(&error))),
            // An earlier try may have put them on, and this one was refused for that.
            Err(error) => {
                let now = self.look(order).await?;
                match self.all_on(order, &now) {
                    Ok(true) => Ok(self.told_before(order).await),
                    _ => Err(NotOn::Undo(unanswered(&of_storage(error, &vm)))),
                }
            }
        }
    }

    /// Why it is not carried out, if another order of the machine was given after it.
    async fn is_late(&self, order: &OverlayOrder) -> Result<Option<Problem>, Problem> {
        let Some(given) = order.given else {
            return Ok(None);
        };
        match self.latest.pass(order.vm, given).await {
            Ok(()) => Ok(None),
            Err(late) if late.reason == Reason::StaleGeneration => Ok(Some(late)),
            Err(problem) => Err(problem),
        }
    }

    /// Freezes the guest, if that is wished and can be.
    async fn freeze(
        &self,
        order: &OverlayOrder,
        vm: &VmView,
        overlays: &[Overlay],
    ) -> Result<Option<Frozen>, NotOn> {
        let Some(freezes) = &self.freezes else {
            return Ok(None);
        };
        if order.quiesce == Quiesce::Never || vm.state == VmState::ShutOff {
            return Ok(None);
        }
        match freezes.freeze(vm, order.request, overlays).await {
            Ok(frozen) => Ok(Some(frozen)),
            Err(problem) if order.quiesce == Quiesce::Required => {
                Err(match problem.reason.code() {
                    Code::Unavailable => NotOn::Leave(problem),
                    _ => NotOn::Undo(problem),
                })
            }
            Err(problem) => {
                tracing::info!(vm = %order.vm, %problem, "goes on without a freeze");
                Ok(None)
            }
        }
    }

    /// What lies below overlays that are on now; whoever asks again is told the same.
    async fn tell(&self, order: &OverlayOrder, vm: &VmView, was_frozen: bool) -> Consistency {
        let consistency = match vm.state {
            _ if was_frozen => Consistency::Frozen,
            VmState::ShutOff if self.is_still_off(order.vm).await => Consistency::Off,
            _ => Consistency::Crash,
        };
        if let Some(freezes) = &self.freezes {
            freezes.take(order.vm, order.request, consistency).await;
        }
        consistency
    }

    /// Somebody may have started it between the look and the overlays.
    async fn is_still_off(&self, vm: VmId) -> bool {
        let now = self.hypervisor.vm(vm).await;
        now.is_ok_and(|vm| vm.state == VmState::ShutOff)
    }

    async fn told_before(&self, order: &OverlayOrder) -> Consistency {
        match &self.freezes {
            Some(freezes) => freezes.taken(order.vm, order.request).await,
            None => Consistency::Unknown,
        }
    }

    async fn look(&self, order: &OverlayOrder) -> Result<VmView, NotOn> {
        let vm = self.hypervisor.vm(order.vm).await;
        vm.map_err(|error| NotOn::Leave(chains::vm_error(order.vm, &error)))
    }

    /// Whether all overlays are active. Anything between none and all is no state that this can
    /// make.
    fn all_on(&self, order: &OverlayOrder, vm: &VmView) -> Result<bool, Problem> {
        let mut on = 0;
        for wanted in &order.overlays {
            let disk = chains::disk_of(vm, &wanted.disk)?;
            on += usize::from(self.is_on(wanted, disk)?);
        }
        match on {
            0 => Ok(false),
            all if all == order.overlays.len() => Ok(true),
            _ => Err(Problem::new(
                Reason::ChainDiverged,
                "some of the overlays are on, some are not",
            )),
        }
    }

    fn is_on(&self, wanted: &NewOverlay, disk: &DiskView) -> Result<bool, Problem> {
        let active = disk.active();
        let active = active.and_then(|layer| self.volumes.volume_of(&layer.locator));
        if active.as_ref() == Some(&wanted.overlay) {
            return Ok(true);
        }
        if active.as_ref() == Some(&wanted.below) && disk.mirror.is_none() {
            return Ok(false);
        }
        let text = format!(
            "disk {} is not writing to {} alone",
            wanted.disk, wanted.below
        );
        Err(Problem::new(Reason::ChainDiverged, text).with("disk", &wanted.disk))
    }

    async fn create_volume(&self, wanted: &NewOverlay) -> Result<VolumeInfo, Problem> {
        let below = self.volumes.stat(&wanted.below).await?;
        chains::readable(&below)?;
        let overlay = NewVolume {
            name: wanted.overlay.name.clone(),
            virtual_bytes: below.virtual_bytes,
            parent: Some(Parent {
                locator: below.locator,
                format: Some(below.format),
            }),
        };
        let storage = &wanted.overlay.storage;
        let created = self.volumes.create(storage, &overlay).await?;
        Ok(created)
    }

    /// The disks' chains, with the overlays on. They are: what cannot be read now is no refusal any
    /// more, and what else is built on the layers is no part of the answer when it cannot be told.
    async fn chains(&self, order: &OverlayOrder) -> Result<Vec<Chain>, Problem> {
        let (hypervisor, volumes) = (self.hypervisor.as_ref(), &self.volumes);
        let all = match chains::read(order.vm, None, hypervisor, volumes).await {
            Ok(all) => Ok(all),
            Err(_) => chains::read_bare(order.vm, None, hypervisor, volumes).await,
        };
        let all = all.map_err(|problem| {
            let text = format!("the overlays are on, and not shown: {}", problem.message);
            Problem::new(Reason::StorageUnreachable, text)
        })?;
        let mut chains = all.chains;
        chains.retain(|chain| order.of(&chain.disk).is_some());
        Ok(chains)
    }

    /// Takes away volumes that never came into use, those of earlier tries too. A no is reported:
    /// the volume holds nothing, and its name belongs to this order alone.
    ///
    /// # Errors
    /// When something does not answer. Left behind, the overlay would hold on to the volume below
    /// for ever: the order is no refusal yet, and its next try takes the overlay away.
    async fn undo(&self, order: &OverlayOrder) -> Result<(), Problem> {
        for wanted in &order.overlays {
            match self.undo_one(order, wanted).await {
                Ok(()) => {}
                Err(problem) if problem.reason.code() == Code::Unavailable => return Err(problem),
                Err(problem) => {
                    let volume = &wanted.overlay;
                    tracing::warn!(%volume, %problem, "an unused overlay could not be removed");
                }
            }
        }
        Ok(())
    }

    async fn undo_one(&self, order: &OverlayOrder, wanted: &NewOverlay) -> Result<(), Problem> {
        let volume = match self.volumes.stat(&wanted.overlay).await {
            Ok(volume) => volume,
            Err(problem) if problem.reason == Reason::VolumeNotFound => return Ok(()),
            Err(problem) => return Err(problem),
        };
        let parent = volume.parent.as_ref();
        let on = parent.and_then(|parent| self.volumes.volume_of(&parent.locator));
        if on.as_ref() != Some(&wanted.below) {
            // Another one that has the name: no try of this order made it.
            return Ok(());
        }
        let removal = RemovalOrder::new(
            removal_of(order, &volume.volume),
            volume.volume.name,
            volume.identity,
        );
        self.start_from_below(order, wanted, &volume.locator)
            .await?;
        let storage = &wanted.overlay.storage;
        self.volumes.take_back(storage, &removal).await.map(drop)
    }

    /// A machine that runs may have been told, before the overlay was to be on, to start from it next time:
    /// it starts from what it writes. One that is off has it on, and needs it.
    async fn start_from_below(
        &self,
        order: &OverlayOrder,
        wanted: &NewOverlay,
        overlay: &Locator,
    ) -> Result<(), Problem> {
        let vm = match self.hypervisor.vm(order.vm).await {
            Ok(vm) if vm.state != VmState::ShutOff => vm,
            Ok(_) | Err(HypervisorError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(unanswered(&error)),
        };
        let disk = chains::disk_of(&vm, &wanted.disk)?;
        let active = disk.active().map(|layer| &layer.locator);
        let Some(active) =
            active.filter(|active| self.volumes.volume_of(active).as_ref() == Some(&wanted.below))
        else {
            return Ok(());
        };
        let removed = std::slice::from_ref(overlay);
        let set = self
            .hypervisor
            .set_next_start(order.vm, &wanted.disk, removed, active);
        set.await.map_err(|error| unanswered(&error))
    }
}

/// Where a server has a layer it may be back at the next try. What failed on a disk would fail for ever.
fn of_storage(error: HypervisorError, vm: &VmView) -> HypervisorError {
    let mut layers = vm.disks.iter().flat_map(|disk| &disk.chain);
    let on_a_server = layers.any(|layer| matches!(layer.locator, Locator::Nbd(_)));
    match error {
        HypervisorError::Storage(text) if !on_a_server => HypervisorError::Refused(text),
        other => other,
    }
}

/// Storage that says no has done nothing; what does not answer may have. A machine that is not here
/// may be elsewhere, with the overlays on.
fn by_its_code(problem: Problem) -> NotOn {
    match problem.reason {
        Reason::StorageUnreachable | Reason::HypervisorUnreachable | Reason::VmNotFound => {
            NotOn::Leave(problem)
        }
        _ => NotOn::Undo(problem),
    }
}

/// A removal has one volume; the same order undone again repeats the same removals.
fn removal_of(order: &OverlayOrder, volume: &VolumeRef) -> RemovalId {
    let id = uuid::Uuid::new_v5(&order.request, volume.to_string().as_bytes());
    RemovalId::from(id)
}

#[cfg(test)]
mod tests;
