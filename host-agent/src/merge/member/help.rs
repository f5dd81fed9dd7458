//! What is done for a copy that does not catch up with the guest, and undone.

use super::super::ladder::is_of_the_ladder;
use super::super::step::Machine;
use super::super::types::{Help, MergeRecord, Phase, Throttle};
use super::Member;
use crate::freeze::Quiesce;
use crate::hypervisor::{HypervisorError, Layer, VmState};
use crate::overlays::{NewOverlay, OverlayOrder};
use livemerge_proto::problem::Problem;
use livemerge_storage::Locator;
use std::time::{Duration, Instant};
use tonic::Code;

impl Member {
    /// For how long the copy has not been closer to its end than ever before.
    pub(super) fn stalled_for(&mut self, machine: &Machine) -> Duration {
        let Machine::Seen { job: Some(job), .. } = machine else {
            self.closest = None;
            return Duration::ZERO;
        };
        let left = job.end.saturating_sub(job.cur);
        let closest = self.closest.filter(|(least, _)| left >= *least);
        let (_, since) = *self
            .closest
            .insert(closest.unwrap_or((left, Instant::now())));
        since.elapsed()
    }

    /// Whether nothing is done about a slow copy for now.
    pub(super) fn help_waits(&self) -> bool {
        let until = self.no_help_until;
        until.is_some_and(|until| Instant::now() < until)
    }

    /// What was refused will be refused again. What could not be told is asked for again later.
    fn no_limit_for_now(&mut self, error: &HypervisorError) {
        match error {
            HypervisorError::Unknown(_) => {
                self.no_help_until = Some(Instant::now() + self.around.policy.stalled_after);
            }
            _ => self.can_be_held_back = false,
        }
    }

    /// Does what helps the copy, or undoes it. What holds the guest back is written down first, and
    /// taken back before that is written down.
    pub(super) async fn help(&mut self, help: Help) {
        self.closest = None;
        let undone = help == Help::default();
        if undone && !self.undo_help().await {
            return tokio::time::sleep(self.pause).await;
        }
        let Some(help) = self.with_limit_before(help).await else {
            return;
        };
        let next = MergeRecord {
            help,
            ..self.record.clone()
        };
        if !self.write(next).await {
            return tokio::time::sleep(self.pause).await;
        }
        self.inherited_help = false;
        if undone {
            return;
        }
        tracing::warn!(merge = %self.record.order.id, ?help, "the copy does not catch up with the guest");
        if help.unlimited {
            self.set_speed(0).await;
        }
        if let Some(throttle) = help.throttle {
            let limited = self.limit_writes(throttle.bytes_per_second).await;
            if let Err(error) = limited {
                self.no_limit_for_now(&error);
            }
        }
    }

    /// The same, with the limit that the guest has by itself. `None` when it cannot be told.
    async fn with_limit_before(&mut self, mut help: Help) -> Option<Help> {
        if let (Some(throttle), None) = (&mut help.throttle, self.record.help.throttle) {
            let order = &self.record.order;
            let before = self.around.hypervisor.write_limit(order.vm, &order.disk);
            match before.await {
                Ok(before) => throttle.before = before,
                Err(error) => {
                    tracing::warn!(merge = %order.id, %error, "the guest's limit cannot be told");
                    self.no_limit_for_now(&error);
                    return None;
                }
            }
        }
        Some(help)
    }

    /// False when it must be tried again.
    async fn undo_help(&mut self) -> bool {
        if self.record.help.unlimited && matches!(self.record.phase, Phase::Copying { .. }) {
            self.set_speed(self.record.bytes_per_second).await;
        }
        let Some(throttle) = self.record.help.throttle else {
            return true;
        };
        let Err(error) = self.limit_writes(throttle.before).await else {
            return true;
        };
        if self.is_undone_by_another(&error, throttle).await {
            return true;
        }
        let now = self.around.clock.now();
        let (waiting, pause) = self.waits.unanswered(now, Duration::MAX);
        self.show_waiting(Some(waiting));
        self.pause = pause;
        false
    }

    /// Whether a limit that was not taken back is not there any more: the machine or its disk is gone, or
    /// somebody has set another one. A refusal alone leaves the guest held back.
    async fn is_undone_by_another(&self, error: &HypervisorError, throttle: Throttle) -> bool {
        if matches!(error, HypervisorError::NotFound(_)) {
            return true;
        }
        let order = &self.record.order;
        match self
            .around
            .hypervisor
            .write_limit(order.vm, &order.disk)
            .await
        {
            // A step that was written down and not taken leaves the one before it.
            Ok(now) => now == throttle.before || !is_of_the_ladder(now),
            Err(error) => matches!(error, HypervisorError::NotFound(_)),
        }
    }

    async fn limit_writes(&self, bytes_per_second: u64) -> Result<(), HypervisorError> {
        let order = &self.record.order;
        let hypervisor = &self.around.hypervisor;
        let set = hypervisor.limit_writes(order.vm, &order.disk, bytes_per_second);
        set.await.inspect_err(|error| {
            tracing::warn!(merge = %order.id, %error, "the guest's limit cannot be set");
        })
    }

    pub(super) async fn set_speed(&self, bytes_per_second: u64) {
        let _as_fast_as_it_is = self.try_speed(bytes_per_second).await;
    }

    async fn try_speed(&self, bytes_per_second: u64) -> Result<(), HypervisorError> {
        let order = &self.record.order;
        let hypervisor = &self.around.hypervisor;
        let set = hypervisor.set_speed(order.vm, &order.disk, bytes_per_second);
        set.await.inspect_err(|error| {
            tracing::warn!(merge = %order.id, %error, "the job's speed cannot be set");
        })
    }

    /// A guest that runs through its pivot may write faster than a limited job copies: QEMU would copy
    /// for ever and never switch. For one that was stopped it is lifted before that.
    pub(super) async fn lift_limit(&self) -> Result<(), HypervisorError> {
        if self.record.bytes_per_second == 0 || self.record.phase.suspended() {
            return Ok(());
        }
        self.try_speed(0).await
    }

    /// The job goes on for now, with the limit that was lifted for its pivot.
    pub(super) async fn limit_again(&self) {
        let limit = self.record.bytes_per_second;
        if self.record.pivots() && limit > 0 && !self.record.help.unlimited {
            self.set_speed(limit).await;
        }
    }

    /// The spare overlay, if it is on.
    pub(super) fn sees_the_spare(&self, machine: &Machine) -> Option<Locator> {
        let (
            Machine::Seen {
                disk: Some(disk), ..
            },
            Phase::Overlaying { .. },
        ) = (machine, &self.record.phase)
        else {
            return None;
        };
        let volume = |layer: &&Layer| self.around.volumes.volume_of(&layer.locator);
        let spare = self.record.order.spare.as_ref()?;
        let mut layers = disk.chain.iter();
        let on = layers.find(|layer| volume(layer).as_ref() == Some(spare));
        on.map(|layer| layer.locator.clone())
    }

    /// Whether a guest that lives writes what it wrote before. Of one that has ended, or is seen no
    /// more, it is not known what it wrote last.
    pub(super) fn writes_the_old_top(&self, machine: &Machine) -> bool {
        let Machine::Seen {
            state: VmState::Running | VmState::Paused,
            disk: Some(disk),
            ..
        } = machine
        else {
            return false;
        };
        let active = disk.chain.last().map(|layer| &layer.locator);
        self.overlaid.is_none() && active.is_some() && active == self.record.removed.last()
    }

    /// Whether the machine is off, and would write what it wrote before. Where it wrote last is not
    /// known: QEMU may have ended with the spare on, before its definition said so.
    pub(super) fn would_write_the_old_top(&self, machine: &Machine) -> bool {
        let Machine::Seen {
            state: VmState::ShutOff,
            disk: Some(disk),
            ..
        } = machine
        else {
            return false;
        };
        let next = disk.next_start.as_ref();
        self.overlaid.is_none() && next.is_some() && next == self.record.removed.last()
    }

    /// What was perhaps made and is certainly not on, or has ended with its machine and holds nothing: left
    /// behind it would hold on to the layers below, and no later delete could merge them. Whatever
    /// needs it keeps it from being removed; what is left is told by a look for volumes that nothing
    /// names.
    pub(super) async fn take_back_the_spare(&self) {
        let adding = matches!(self.record.phase, Phase::Overlaying { .. });
        let Some(order) = overlay_order(&self.record).filter(|_| adding) else {
            return;
        };
        let taken = match self.is_unused(&order).await {
            Ok(true) => self.around.overlays.take_back(&order).await,
            Ok(false) => Ok(()),
            Err(unknown) => Err(unknown),
        };
        if let Err(problem) = taken {
            tracing::warn!(merge = %self.record.order.id, %problem, "the spare overlay may be left");
        }
    }

    async fn is_unused(&self, order: &OverlayOrder) -> Result<bool, Problem> {
        if self.surely_not_overlaid || !self.off_without_spare {
            return Ok(self.surely_not_overlaid);
        }
        let mut unused = true;
        for overlay in &order.overlays {
            unused &= self.around.volumes.holds_nothing(&overlay.overlay).await?;
        }
        Ok(unused)
    }

    pub(super) async fn add_overlay(&self) -> Result<(), HypervisorError> {
        let none = || HypervisorError::Refused("no name for one was ordered".to_owned());
        let order = overlay_order(&self.record).ok_or_else(none)?;
        match self.around.overlays.create(&order).await {
            Ok(_overlaid) => Ok(()),
            Err(unknown) if unknown.reason.code() == Code::Unavailable => {
                Err(HypervisorError::Unknown(unknown.message))
            }
            Err(refused) => Err(HypervisorError::Refused(refused.message)),
        }
    }
}

/// The overlay that an active commit gets when nothing else lets it end.
fn overlay_order(record: &MergeRecord) -> Option<OverlayOrder> {
    let order = &record.order;
    let overlay = NewOverlay {
        disk: order.disk.clone(),
        below: order.removed.last()?.volume.clone(),
        overlay: order.spare.clone()?,
    };
    Some(OverlayOrder {
        request: order.id.into(),
        given: None,
        vm: order.vm,
        overlays: vec![overlay],
        // It is no snapshot: the guest goes on.
        quiesce: Quiesce::Never,
    })
}
