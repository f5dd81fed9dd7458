//! Activating volumes, for machines and for a look; and whether somebody has one open.

use super::domain::{Domain, locked};
use super::name::Role;
use super::report::Group;
use super::turn::Turn;
use crate::{Locator, StorageError, VolumeInfo, VolumeName};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// What watches devices opens each for a moment when it was written: that is no use.
const SETTLES: Duration = Duration::from_millis(300);
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Far more than any chain has.
const MAX_DEPTH: usize = 1000;

/// A volume that can be read through its chain: what was activated for that is put back when this is
/// dropped.
pub(super) struct Readable {
    domain: Arc<Domain>,
    activated: Vec<String>,
}

impl Readable {
    /// Puts it back now.
    pub(super) async fn end(mut self) {
        put_back_alone(&self.domain, std::mem::take(&mut self.activated)).await;
    }
}

impl Drop for Readable {
    fn drop(&mut self) {
        let activated = std::mem::take(&mut self.activated);
        if let (false, Ok(runtime)) = (activated.is_empty(), Handle::try_current()) {
            let domain = Arc::clone(&self.domain);
            runtime.spawn(async move { put_back_alone(&domain, activated).await });
        }
    }
}

/// While nobody else finds that it is active, and counts on that.
async fn put_back_alone(domain: &Arc<Domain>, activated: Vec<String>) {
    if activated.is_empty() {
        return;
    }
    if let Ok(turn) = domain.name_turn().await {
        domain.put_back(activated, &turn).await;
    }
}

impl Domain {
    /// With everything that it is built on in this group: QEMU opens all of it.
    pub(super) async fn activate(
        self: Arc<Self>,
        name: VolumeName,
    ) -> Result<Locator, StorageError> {
        self.name.check(&name)?;
        let turn = self.look_turn().await?;
        let group = self.report().await?;
        let (_, chain) = self.chain(&group, &name, &turn).await?;
        locked(&self.wanted).extend(chain.iter().cloned());
        self.activate_all(&group, &chain, &turn).await?;
        Ok(Locator::Block(self.name.path(name.as_str())))
    }

    /// Lets somebody read a volume through its chain.
    pub(super) async fn readable_chain(
        self: &Arc<Self>,
        name: &VolumeName,
    ) -> Result<(VolumeInfo, Readable), StorageError> {
        let turn = self.look_turn().await?;
        let group = self.report().await?;
        let (info, chain) = self.chain(&group, name, &turn).await?;
        let activated = self.activate_all(&group, &chain, &turn).await?;
        let domain = Arc::clone(self);
        Ok((info, Readable { domain, activated }))
    }

    /// A volume and the names of all that it is built on in this group, its own first.
    async fn chain(
        self: &Arc<Self>,
        group: &Group,
        name: &VolumeName,
        turn: &Turn,
    ) -> Result<(VolumeInfo, Vec<VolumeName>), StorageError> {
        let info = self.info(group.clone(), name, turn).await?;
        let mut chain = vec![name.clone()];
        let mut below = info.parent.clone();
        while let Some(parent) = below.and_then(|parent| self.resolve(&parent.locator)) {
            if chain.contains(&parent) || chain.len() == MAX_DEPTH {
                let text = format!("the chain of {} has no end", self.what(name));
                return Err(StorageError::Invalid(text));
            }
            below = self.info(group.clone(), &parent, turn).await?.parent;
            chain.push(parent);
        }
        Ok((info, chain))
    }

    pub(super) async fn deactivate(self: Arc<Self>, name: VolumeName) -> Result<(), StorageError> {
        self.name.check(&name)?;
        let turn = self.name_turn().await?;
        let group = self.closed(&name).await?;
        locked(&self.wanted).remove(&name);
        if group
            .volume(&name)
            .is_some_and(|volume| volume.device.is_some())
        {
            self.lvm.during(&turn).deactivate(&[name.as_str()]).await?;
        }
        Ok(())
    }

    /// Activates those of a group that are not, and gives their names.
    pub(super) async fn activate_all(
        &self,
        group: &Group,
        names: &[VolumeName],
        turn: &Turn,
    ) -> Result<Vec<String>, StorageError> {
        let mut inactive = Vec::new();
        for name in names {
            let volume = group.volume(name).ok_or_else(|| self.not_found(name))?;
            if volume.device.is_none() {
                inactive.push(volume.name.as_str());
            }
        }
        if !inactive.is_empty() {
            self.lvm.during(turn).activate(&inactive).await?;
        }
        Ok(inactive.into_iter().map(Into::into).collect())
    }

    /// Deactivates what was activated for a look. One that somebody has open meanwhile, or wants,
    /// stays as it is; so does one that cannot be deactivated, which does no harm.
    pub(super) async fn put_back(&self, activated: Vec<String>, turn: &Turn) {
        let is_wanted = |name: &str| matches!(Role::of(name), Role::Volume(name) if locked(&self.wanted).contains(&name));
        let names: Vec<_> = activated
            .iter()
            .map(String::as_str)
            .filter(|name| !is_wanted(name))
            .collect();
        if !names.is_empty() {
            let _ = self.lvm.during(turn).deactivate(&names).await;
        }
    }

    pub(super) async fn in_use(self: &Arc<Self>, name: &VolumeName) -> Result<bool, StorageError> {
        self.name.check(name)?;
        let _turn = self.name_turn().await?;
        match self.closed(name).await {
            Ok(_) => Ok(false),
            Err(StorageError::InUse { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The group, in which nobody has the volume open. For who has the turn to name.
    ///
    /// # Errors
    /// `InUse`; `NotFound`.
    pub(super) async fn closed(&self, name: &VolumeName) -> Result<Group, StorageError> {
        let group = self.settle(std::slice::from_ref(name)).await?;
        let volume = group.volume(name).ok_or_else(|| self.not_found(name))?;
        if volume.open {
            return Err(self.in_use_by(name, "a process that has it open"));
        }
        Ok(group)
    }

    /// The group, after a moment for those that are open only because somebody looks at them.
    pub(super) async fn settle(&self, names: &[VolumeName]) -> Result<Group, StorageError> {
        let mut group = self.report().await?;
        // The moment begins with the first look: on a slow machine that alone takes longer.
        let begun = Instant::now();
        let open = |group: &Group, name| group.volume(name).is_some_and(|volume| volume.open);
        while names.iter().any(|name| open(&group, name)) && begun.elapsed() < SETTLES {
            tokio::time::sleep(SETTLE_PAUSE).await;
            group = self.report().await?;
        }
        Ok(group)
    }
}
