//! What is written down of the hosts: where their machines are, and what the audit log is told.

use super::Hosts;
use super::types::{HostStatus, VmSeen};
use crate::snapshot::{Event, EventKind, NewEvent, Severity, VmRecord};
use crate::store::{EventFilter, Page, StoreError};
use livemerge_proto::ids::HostId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

impl Hosts {
    /// Notes where machines are. Only what is new is written. `false` when it could not be: it is to
    /// be tried again.
    pub(super) async fn note_homes(
        &self,
        host: &HostId,
        vms: impl Iterator<Item = &VmSeen>,
    ) -> bool {
        let records: Vec<VmRecord> = vms
            .map(|vm| VmRecord {
                id: vm.id,
                name: vm.name.clone(),
                host: host.clone(),
            })
            .filter(|record| self.home(record.id).as_ref() != Some(record))
            .collect();
        if records.is_empty() {
            return true;
        }
        match self.store.put_vms(&records).await {
            Ok(()) => {
                let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
                homes.extend(records.into_iter().map(|record| (record.id, record)));
                true
            }
            Err(error) => {
                tracing::warn!(%host, error = &error as &dyn std::error::Error, "machines could not be noted");
                false
            }
        }
    }

    pub(super) async fn note_status(&self, host: &HostId, status: HostStatus) {
        let event = match status {
            HostStatus::Up => self.event(
                EventKind::HostUp,
                Severity::Info,
                host,
                format!("host {host} is up"),
            ),
            HostStatus::Unresponsive => {
                let text =
                    format!("host {host} does not answer; nothing is assumed about its machines");
                self.event(EventKind::HostUnresponsive, Severity::Warning, host, text)
            }
            // The link has said so, and the record's words for hosts are answers and silence.
            HostStatus::Incompatible => return,
        };
        if let Err(error) = self.store.add_events(&[event]).await {
            tracing::warn!(%host, error = &error as &dyn std::error::Error, "a host's state could not be noted");
        }
    }

    /// Tells of a damaged journal, once also over restarts of this server. `false` when it could not.
    pub(super) async fn note_damaged(&self, host: &HostId, file: &str) -> bool {
        let noted = self.try_note_damaged(host, file).await;
        if let Err(error) = &noted {
            tracing::warn!(%host, file, error = error as &dyn std::error::Error, "a damaged journal could not be noted");
        }
        noted.is_ok()
    }

    async fn try_note_damaged(&self, host: &HostId, file: &str) -> Result<(), StoreError> {
        let kind = EventKind::HostJournalDamaged;
        let is_this = |event: &Event| {
            let told = event.entry.details.get("journal");
            event.entry.host.as_ref() == Some(host) && told.is_some_and(|told| told == file)
        };
        if self.told(&[kind]).await?.iter().any(is_this) {
            return Ok(());
        }
        let text = format!(
            "the journal of a merge on host {host} is damaged and was set aside as {file}: nobody goes \
             on with the merge"
        );
        let mut event = self.event(kind, Severity::Error, host, text);
        event.details.insert("journal".to_owned(), file.to_owned());
        self.store.add_events(&[event]).await
    }

    /// Tells of guests that may still be frozen, and when that is over, once each also over restarts
    /// of this server.
    pub(super) async fn note_frozen(&self, host: &HostId, vms: &[VmSeen]) {
        if let Err(error) = self.try_note_frozen(host, vms).await {
            tracing::warn!(%host, error = &error as &dyn std::error::Error, "a frozen guest could not be noted");
        }
    }

    async fn try_note_frozen(&self, host: &HostId, vms: &[VmSeen]) -> Result<(), StoreError> {
        let mut told = BTreeSet::new();
        let kinds = [EventKind::GuestStillFrozen, EventKind::GuestThawed];
        for Event { entry, .. } in self.told(&kinds).await? {
            match entry.vm {
                Some(vm) if entry.kind == EventKind::GuestStillFrozen => told.insert(vm),
                Some(vm) => told.remove(&vm),
                None => false,
            };
        }
        let news = vms
            .iter()
            .filter(|vm| vm.still_frozen != told.contains(&vm.id));
        let news: Vec<NewEvent> = news.map(|vm| self.of_frozen(host, vm)).collect();
        if news.is_empty() {
            return Ok(());
        }
        self.store.add_events(&news).await
    }

    fn of_frozen(&self, host: &HostId, vm: &VmSeen) -> NewEvent {
        let name = &vm.name;
        let event = if vm.still_frozen {
            let text = format!(
                "the file systems of machine {name} were frozen for a snapshot, and may still be: its guest's \
                 agent does not answer"
            );
            self.event(EventKind::GuestStillFrozen, Severity::Error, host, text)
        } else {
            let text = format!("the file systems of machine {name} are frozen no more");
            self.event(EventKind::GuestThawed, Severity::Info, host, text)
        };
        NewEvent {
            vm: Some(vm.id),
            ..event
        }
    }

    /// All that the audit log has of these kinds, oldest first. They are rare.
    async fn told(&self, kinds: &[EventKind]) -> Result<Vec<Event>, StoreError> {
        let filter = EventFilter {
            kinds: kinds.to_vec(),
            ..EventFilter::default()
        };
        let mut page = Page {
            after: None,
            limit: 1000,
        };
        let mut all = Vec::new();
        loop {
            let some = self.store.events(&filter, &page).await?;
            let is_last = some.len() < page.limit;
            page.after = some.last().map(|event| event.revision);
            all.extend(some);
            if is_last {
                return Ok(all);
            }
        }
    }

    pub(super) fn event(
        &self,
        kind: EventKind,
        severity: Severity,
        host: &HostId,
        message: String,
    ) -> NewEvent {
        NewEvent {
            kind,
            severity,
            occurred_at: self.clock.now(),
            host: Some(host.clone()),
            vm: None,
            snapshot: None,
            operation: None,
            actor: None,
            message,
            details: BTreeMap::new(),
        }
    }
}
