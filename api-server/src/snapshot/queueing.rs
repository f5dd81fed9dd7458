//! An operation waits for its turn: the places that its merges take are limited, and others were
//! there first.

use super::hub::Waiting;
use super::lane::{Run, asked_of};
use super::turns::{Place, Standing, Turn};
use super::types::{CreatePhase, DeletePhase, Operation, OperationState, Snapshot, Work};
use crate::store::Change;
use livemerge_proto::ids::HostId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest time between two looks at where a machine is whose host is in maintenance.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Run {
    /// The places that its merges need. Until they are free the operation is queued.
    pub(super) async fn take_turn(&mut self) -> Turn {
        if let Some(turn) = self.around.turns.put_by_for(self.operation.id) {
            return turn;
        }
        if self.merges() {
            let places = self.needed_places().await;
            return self.around.turns.keep(places);
        }
        let ticket = loop {
            if !self.wait_for_maintenance().await {
                return Turn::default();
            }
            let places = match self.places.take() {
                Some(places) => places,
                None => self.needed_places().await,
            };
            let mut ticket = self.around.turns.queue(self.operation.id, places);
            while let Standing::Waits { at, position } = ticket.standing() {
                if self.is_called_off() {
                    return Turn::default();
                }
                self.show_queued(&at, position).await;
                tokio::select! {
                    () = ticket.changed() => {}
                    () = asked_of(&mut self.asked, self.operation.id) => self.reread().await,
                }
            }
            // In a queue for long: a maintenance may have begun since.
            if self.maintenance().is_none() {
                break ticket;
            }
        };
        if self.operation.state.ended() {
            return Turn::default();
        }
        if self.operation.state == OperationState::Queued {
            self.stand(OperationState::Running).await;
        }
        let id = self.operation.id;
        self.around.hub.update(id, |view| view.waiting = None);
        ticket.turn()
    }

    /// Whether it had its turn before this server began: it goes on, whatever the limits say.
    pub(super) fn merges(&self) -> bool {
        matches!(self.operation.work, Work::Delete(DeletePhase::Disks(_)))
    }

    /// Waits, as long as nothing of it is begun, until its host is in no maintenance. False when it is
    /// called off: planning ends it.
    async fn wait_for_maintenance(&mut self) -> bool {
        let mut maintained = self.around.hosts.maintained();
        loop {
            // A change from here on is heard of.
            maintained.mark_unchanged();
            let Some(cause) = self.maintenance() else {
                return true;
            };
            if self.is_called_off() {
                return false;
            }
            // The machine may be on another host when it is over.
            self.places = None;
            self.show_waits(Waiting::in_queue(cause, 0)).await;
            tokio::select! {
                _ = maintained.changed() => {}
                // The machine may be on another host by now.
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = asked_of(&mut self.asked, self.operation.id) => self.reread().await,
            }
        }
    }

    /// Why nothing of it is begun now.
    fn maintenance(&self) -> Option<Problem> {
        let begun = match &self.operation.work {
            Work::Create(phase) => *phase != CreatePhase::Planning,
            Work::Delete(phase) => *phase != DeletePhase::Planning,
        };
        if begun || self.operation.state.ended() {
            return None;
        }
        self.around.hosts.takes_no_work(self.operation.vm)
    }

    fn is_called_off(&self) -> bool {
        self.operation.cancel_requested || self.operation.state.ended()
    }

    /// Shows what its turn waits for.
    async fn show_queued(&mut self, at: &Place, position: u32) {
        let text = format!("as many operations merge at {at} as may at once");
        let cause = Problem::new(Reason::MergeLimitReached, text);
        self.show_waits(Waiting::in_queue(cause, position)).await;
    }

    async fn show_waits(&mut self, waiting: Waiting) {
        if self.operation.state != OperationState::Queued {
            self.stand(OperationState::Queued).await;
        }
        let id = self.operation.id;
        self.around
            .hub
            .update(id, |view| view.waiting = Some(waiting));
    }

    async fn needed_places(&mut self) -> BTreeSet<Place> {
        match &self.operation.work {
            Work::Delete(_) if !self.operation.state.ended() => self.places().await,
            _ => BTreeSet::new(),
        }
    }

    /// Where its merges take room, as far as is known: when nothing is, nothing holds it up.
    async fn places(&mut self) -> BTreeSet<Place> {
        let named = self.operation.snapshots().collect();
        let (snapshots, _) = loop {
            match self.around.snapshots(self.operation.vm, &named).await {
                Ok(found) => break found,
                Err(error) => self.rest(&error).await,
            }
        };
        let host = match &self.operation.host {
            Some(host) => Some(host.clone()),
            None => self
                .around
                .hosts
                .of_vm(self.operation.vm)
                .map(|host| host.id),
        };
        places(&snapshots, host)
    }

    /// Writes down that it waits for its turn, or does no longer. When that cannot be written, it is
    /// not said.
    async fn stand(&mut self, state: OperationState) {
        let operation = Operation {
            state,
            ..self.operation.clone()
        };
        let change = Change {
            operation,
            snapshots: vec![],
            events: vec![],
        };
        if let Err(error) = self.note(&change).await {
            tracing::warn!(operation = %self.operation.id, error = &error as &dyn std::error::Error, "its state cannot be written");
            self.reread().await;
        }
    }
}

/// Where the merges of these snapshots take room.
pub(super) fn places(snapshots: &[Snapshot], host: Option<HostId>) -> BTreeSet<Place> {
    let disks = snapshots.iter().flat_map(|snapshot| &snapshot.disks);
    let storages = disks.map(|disk| Place::Storage(disk.volume.storage.clone()));
    storages.chain(host.map(Place::Host)).collect()
}
