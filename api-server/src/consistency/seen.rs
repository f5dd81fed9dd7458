//! What hosts and storage domains have, as far as they could be looked at.

use crate::hosts::{Chain, RemovalSeen, UnsupportedDisk, VmState, VolumeSeen};
use crate::snapshot::Mark;
use jiff::Timestamp;
use livemerge_proto::ids::{HostId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_storage::{StorageId, VolumeRef};
use std::collections::{BTreeMap, HashSet};

/// All hosts.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When the look began.
    pub at: Timestamp,
    /// Each host, or why nothing of it is known.
    pub hosts: BTreeMap<HostId, Result<HostSeen, Problem>>,
}

/// One host.
#[derive(Debug, Clone, Default)]
pub struct HostSeen {
    /// Its machines.
    pub vms: BTreeMap<VmId, VmLook>,
    /// Its storage domains.
    pub storages: BTreeMap<StorageId, StorageSeen>,
    /// Files of its agent's journal that were damaged and set aside.
    pub journals: Vec<String>,
}

/// A machine.
#[derive(Debug, Clone)]
pub struct VmLook {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: VmState,
    /// What its disks have open, or would open first; also when the chains are not known.
    pub active: Vec<String>,
    /// Its chains, or why they are not known.
    pub chains: Result<Vec<Chain>, Problem>,
    /// Its disks whose chains are not told.
    pub unsupported: Vec<UnsupportedDisk>,
}

/// A storage domain as one host sees it. Two hosts may have different ones of one id.
#[derive(Debug, Clone)]
pub struct StorageSeen {
    /// Its volumes with their headers, or why they are not known.
    pub volumes: Result<Vec<VolumeSeen>, Problem>,
    /// Its removals, or why they are not known.
    pub removals: Result<Vec<RemovalSeen>, Problem>,
}

impl Seen {
    /// The hosts that could be looked at.
    pub(super) fn known(&self) -> impl Iterator<Item = (&HostId, &HostSeen)> {
        let hosts = self.hosts.iter();
        hosts.filter_map(|(id, host)| Some((id, host.as_ref().ok()?)))
    }

    /// The machine on its host; the host where it runs goes before one that only has its definition.
    pub(super) fn vm(&self, vm: VmId) -> Option<(&HostId, &HostSeen, &VmLook)> {
        let looks = self
            .known()
            .filter_map(|(id, host)| Some((id, host, host.vms.get(&vm)?)));
        looks.min_by_key(|(_, _, look)| look.state == VmState::ShutOff)
    }

    /// Why it cannot be told of every volume who refers to it; `None` when it can.
    pub(super) fn blind_spot(&self) -> Option<&Problem> {
        let hosts = self.hosts.values().filter_map(|host| host.as_ref().err());
        let vms = self.known().flat_map(|(_, host)| host.vms.values());
        let vms = vms.filter_map(|vm| vm.chains.as_ref().err());
        let storages = self.known().flat_map(|(_, host)| host.storages.values());
        let storages = storages.filter_map(|storage| storage.volumes.as_ref().err());
        hosts.chain(vms).chain(storages).next()
    }

    /// Everything that the hosts say about what something is built on or runs from.
    pub(super) fn mentions(&self) -> Mentions<'_> {
        let mut mentions = Mentions::default();
        for (_, host) in self.known() {
            let active = host.vms.values().flat_map(|vm| &vm.active);
            active.for_each(|locator| mentions.add(locator));
            let unsupported = host.vms.values().flat_map(|vm| &vm.unsupported);
            let locators = unsupported.flat_map(|disk| &disk.locators);
            locators.for_each(|locator| mentions.add(locator));
            let chains = host.vms.values().filter_map(|vm| vm.chains.as_ref().ok());
            for layer in chains.flatten().flat_map(|chain| &chain.layers) {
                mentions.add(&layer.locator);
                if let Some(mark) = &layer.mark {
                    mentions.add(mark.volume.name.as_str());
                }
            }
            let listed = host.storages.values().filter_map(StorageSeen::listed);
            for volume in listed.flatten() {
                volume.parent.iter().for_each(|parent| mentions.add(parent));
            }
        }
        mentions
    }
}

impl HostSeen {
    /// The volume as this host's domain lists it; `None` too when the domain could not be read.
    pub(super) fn volume(&self, volume: &VolumeRef) -> Option<&VolumeSeen> {
        let mut listed = self.storages.get(&volume.storage)?.listed()?.iter();
        listed.find(|seen| seen.mark.volume == *volume)
    }

    /// The volume that a locator leads to on this host. One that leads nowhere may be the way in
    /// which another host writes it: it counts as the volume whose name it ends in.
    pub(super) fn at(&self, locator: &str) -> Option<&VolumeSeen> {
        let listed = || {
            let storages = self.storages.values();
            storages.filter_map(StorageSeen::listed).flatten()
        };
        let exact = listed().find(|seen| seen.locator == locator);
        exact.or_else(|| listed().find(|seen| seen.mark.volume.name.as_str() == last(locator)))
    }
}

impl StorageSeen {
    pub(super) fn listed(&self) -> Option<&Vec<VolumeSeen>> {
        self.volumes.as_ref().ok()
    }

    pub(super) fn removal_of(&self, volume: &VolumeRef) -> Option<&RemovalSeen> {
        let mut removals = self.removals.iter().flatten();
        removals.find(|removal| removal.mark.volume == *volume)
    }
}

/// The texts in which a volume may be named.
#[derive(Debug, Default)]
pub(super) struct Mentions<'a> {
    texts: HashSet<&'a str>,
    ends: HashSet<&'a str>,
}

impl<'a> Mentions<'a> {
    pub(super) fn add(&mut self, text: &'a str) {
        if self.texts.insert(text) {
            self.ends.insert(last(text));
        }
    }

    /// Whether any text may mean this volume. Only its name counts, wherever it stands: two
    /// hosts may write one volume in two ways.
    pub(super) fn name(&self, mark: &Mark) -> bool {
        let name = mark.volume.name.as_str();
        self.ends.contains(name) || self.texts.iter().any(|text| text.contains(name))
    }
}

pub(super) fn last(locator: &str) -> &str {
    locator.rsplit('/').next().unwrap_or(locator)
}
