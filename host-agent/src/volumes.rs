//! The storage domains of this host, together: which volume a layer is, what shares it, and the
//! removal of a volume that nothing needs.
//!
//! A removal asks three witnesses, and one that cannot answer is a no:
//!
//! ```text
//!   definitions of all machines, live and inactive  (hypervisor)
//!   headers of all volumes of the domain            (storage, at its gate)
//!   whoever has the volume open                     (storage, at its gate)
//! ```

mod links;
mod notes;
mod removing;
mod room;

use crate::domains::{Domain, RemovalPolicy};
use crate::hypervisor::{Hypervisor, HypervisorError, Layer};
use crate::metrics::VolumeMeter;
use futures::{StreamExt as _, TryStreamExt as _};
use links::Links;
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{
    Capabilities, ClusterBytes, Content, Dependent, Identity, LiveVolumes, Locator, NewVolume,
    RemovalId, Space, StorageError, StorageId, Survey, VolumeInfo, VolumeRef, survey,
};
use notes::Notes;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A storage domain, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its room.
    pub space: Space,
    /// What lies in it and is neither a volume nor ours.
    pub foreign: Vec<String>,
    /// What its back end can do.
    pub capabilities: Capabilities,
    /// How its volumes are removed.
    pub removal: RemovalPolicy,
}

/// The storage domains that this host sees.
pub struct Volumes {
    domains: BTreeMap<StorageId, Domain>,
    hypervisor: Arc<dyn Hypervisor>,
    links: Links,
    meter: OnceLock<VolumeMeter>,
    /// Whose trace a removal is part of that ends later.
    notes: Notes,
}

impl Volumes {
    /// Over these domains.
    pub fn new(domains: Vec<Domain>, hypervisor: Arc<dyn Hypervisor>) -> Self {
        let domains = domains
            .into_iter()
            .map(|domain| (domain.store.id().clone(), domain))
            .collect();
        Self {
            domains,
            hypervisor,
            links: Links::default(),
            meter: OnceLock::new(),
            notes: Notes::default(),
        }
    }

    /// The same, which keeps in a directory of which trace a removal is part.
    pub fn noting(self, dir: &Path) -> Self {
        let notes = Notes::in_dir(dir);
        Self { notes, ..self }
    }

    /// Counts removals and room from now on.
    pub(crate) fn observe(&self, meter: VolumeMeter) {
        // The first one stays.
        let _ = self.meter.set(meter);
    }

    /// The ids of the domains.
    pub fn ids(&self) -> impl Iterator<Item = &StorageId> {
        self.domains.keys()
    }

    /// What a domain is, holds that is nobody's, and has room for.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn describe(&self, storage: &StorageId) -> Result<Described, Problem> {
        let domain = self.domain(storage)?;
        let unanswered = |error: StorageError| problem(&error).with("storage", storage);
        Ok(Described {
            space: self.space(storage).await?,
            foreign: domain.store.foreign().await.map_err(unanswered)?,
            capabilities: domain.store.capabilities(),
            removal: domain.removal,
        })
    }

    /// The volume that QEMU has open under this locator; `None` when it lies in no domain.
    pub fn volume_of(&self, locator: &Locator) -> Option<VolumeRef> {
        let volume = |store: &Arc<dyn LiveVolumes>, name| VolumeRef {
            storage: store.id().clone(),
            name,
        };
        // First without a look: what leads to one domain is not asked for in another one's name.
        let spelled = |store| Some(volume(store, store.spells(locator)?));
        let resolved = |store| Some(volume(store, store.resolve(locator)?));
        let mut stores = self.stores();
        stores
            .find_map(spelled)
            .or_else(|| self.stores().find_map(resolved))
    }

    /// What storage knows of a volume.
    pub async fn stat(&self, volume: &VolumeRef) -> Result<VolumeInfo, Problem> {
        let store = self.store(&volume.storage)?;
        store
            .stat(&volume.name)
            .await
            .map_err(|error| problem(&error).with("volume", volume))
    }

    /// All volumes of a domain, by name.
    pub async fn list(&self, storage: &StorageId) -> Result<Vec<VolumeInfo>, Problem> {
        let volumes = self.store(storage)?.list().try_collect::<Vec<_>>().await;
        let mut volumes = volumes.map_err(|error| problem(&error))?;
        volumes.sort_by(|a, b| a.volume.cmp(&b.volume));
        Ok(volumes)
    }

    /// What a reader of a volume sees of each volume of its chain, its own first, where that lies, and
    /// the room that it would need in the volume that is kept.
    pub async fn survey(&self, from: &VolumeRef, kept: &VolumeRef) -> Result<Survey, Problem> {
        let clusters = ClusterBytes {
            from: self.stat(from).await?.cluster_bytes,
            kept: self.stat(kept).await?.cluster_bytes,
        };
        let seen = self.store(&from.storage)?.extents(&from.name);
        let kept = self.store(&kept.storage)?.extents(&kept.name);
        let survey = survey(seen, kept, clusters).await;
        survey.map_err(|error| problem(&error).with("volume", from))
    }

    /// Whether a volume has nothing of its own: who reads it reads what lies below.
    pub async fn holds_nothing(&self, volume: &VolumeRef) -> Result<bool, Problem> {
        let mut extents = self.store(&volume.storage)?.extents(&volume.name);
        while let Some(extent) = extents.next().await {
            let extent = extent.map_err(|error| problem(&error).with("volume", volume))?;
            if extent.depth == 0 && extent.content != Content::Nothing {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a volume that nobody has open at least so large. One that is has nothing done to it,
    /// whoever has it open.
    ///
    /// # Errors
    /// `VOLUME_NOT_FOUND` also when the name has another volume by now; `VOLUME_IN_USE`.
    pub async fn grow(
        &self,
        volume: &VolumeRef,
        identity: &Identity,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, Problem> {
        let info = self.stat(volume).await?;
        if info.identity != *identity {
            let text = format!("{volume} is another volume by now");
            return Err(Problem::new(Reason::VolumeNotFound, text).with("volume", volume));
        }
        if info.virtual_bytes >= virtual_bytes {
            return Ok(info);
        }
        let store = self.store(&volume.storage)?;
        let grown = store.grow(&volume.name, virtual_bytes).await;
        grown.map_err(|error| problem(&error).with("volume", volume))
    }

    /// Makes a volume usable on this host, and gives what QEMU opens.
    pub async fn activate(&self, volume: &VolumeRef) -> Result<Locator, Problem> {
        let active = self.store(&volume.storage)?.activate(&volume.name).await;
        active.map_err(|error| problem(&error).with("volume", volume))
    }

    /// What is built on these layers, in every domain of this host.
    pub async fn built_on(&self, layers: &[Locator]) -> Result<BuiltOn, Problem> {
        let mut all = Vec::new();
        for (storage, domain) in &self.domains {
            let dependents = domain.store.dependents(layers).await;
            let dependents = dependents.map_err(|error| problem(&error))?;
            all.extend(dependents.into_iter().map(|found| (storage.clone(), found)));
        }
        Ok(BuiltOn(all))
    }

    /// Where in a disk's chain the volume is, however the definition spells it.
    pub fn layer_of<'a>(
        &self,
        volume: &VolumeRef,
        chain: &'a [Layer],
    ) -> Option<(usize, &'a Layer)> {
        let is = |layer: &Layer| self.volume_of(&layer.locator).as_ref() == Some(volume);
        chain.iter().enumerate().find(|(_, layer)| is(layer))
    }

    /// Creates a volume. The same volume again is no error.
    pub async fn create(
        &self,
        storage: &StorageId,
        volume: &NewVolume,
    ) -> Result<VolumeInfo, Problem> {
        self.store(storage)?
            .create(volume)
            .await
            .map_err(|error| problem(&error))
    }

    /// Brings a removed volume back that is kept.
    pub async fn restore(
        &self,
        storage: &StorageId,
        removal: RemovalId,
    ) -> Result<VolumeInfo, Problem> {
        let restored = self.store(storage)?.restore(removal).await;
        restored.map_err(|error| match error {
            StorageError::NotFound { .. } => {
                Problem::new(Reason::RemovalNotFound, error.to_string()).with("removal", removal)
            }
            other => problem(&other).with("removal", removal),
        })
    }

    fn stores(&self) -> impl Iterator<Item = &Arc<dyn LiveVolumes>> {
        self.domains.values().map(|domain| &domain.store)
    }

    fn store(&self, storage: &StorageId) -> Result<&Arc<dyn LiveVolumes>, Problem> {
        self.domain(storage).map(|domain| &domain.store)
    }

    fn domain(&self, storage: &StorageId) -> Result<&Domain, Problem> {
        self.domains.get(storage).ok_or_else(|| {
            let text = format!("this host has no storage domain {storage}");
            Problem::new(Reason::VolumeNotFound, text).with("storage", storage)
        })
    }
}

/// What is built on some layers, with the domain that it lies in.
#[derive(Debug)]
pub struct BuiltOn(Vec<(StorageId, Dependent)>);

impl BuiltOn {
    /// Locators outside a disk's chain that are built on one of its layers.
    pub fn sharers(&self, layer: &Locator, chain: &[Locator], volumes: &Volumes) -> Vec<String> {
        let own: Vec<_> = chain
            .iter()
            .filter_map(|layer| volumes.volume_of(layer))
            .collect();
        let is_own = |storage: &StorageId, found: &Dependent| match &found.volume {
            Some(name) => own
                .iter()
                .any(|own| own.storage == *storage && own.name == *name),
            None => chain.contains(&found.locator),
        };
        // Nobody reads what is kept of a removed volume: a merge may change what it is built on.
        let on = self
            .0
            .iter()
            .filter(|(_, found)| found.on == *layer && !found.kept);
        on.filter(|(storage, found)| !is_own(storage, found))
            .map(|(_, found)| found.locator.to_string())
            .collect()
    }
}

/// A hypervisor that does not answer, or does not know the machine.
pub(crate) fn unanswered(error: &HypervisorError) -> Problem {
    let reason = match error {
        HypervisorError::NotFound(_) => Reason::VmNotFound,
        HypervisorError::Refused(_) => Reason::StrategyUnsupported,
        HypervisorError::Storage(_) => Reason::StorageUnreachable,
        HypervisorError::Migrating(_) => Reason::VmMigrating,
        HypervisorError::Unknown(_) => Reason::HypervisorUnreachable,
    };
    Problem::new(reason, error.to_string())
}

/// A storage error as its caller's next move.
fn problem(error: &StorageError) -> Problem {
    let reason = match error {
        StorageError::NotFound { .. } => Reason::VolumeNotFound,
        StorageError::InUse { .. } => Reason::VolumeInUse,
        StorageError::NoSpace { .. } => Reason::InsufficientSpace,
        StorageError::NotKept { .. } => Reason::RemovalNotKept,
        StorageError::Busy { .. }
        | StorageError::Unreachable { .. }
        | StorageError::Denied { .. } => Reason::StorageUnreachable,
        StorageError::Corrupt { .. } => Reason::ChainCorrupt,
        StorageError::Invalid(_) => Reason::FieldInvalid,
    };
    let text = match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    Problem::new(reason, text)
}

#[cfg(test)]
mod tests;
