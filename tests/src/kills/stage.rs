//! What a machine's death meets: a snapshot that is being deleted, with an older one below it, and
//! a younger one above it when the merge is to be an intermediate one.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use livemerge_proto::v1;
use livemerge_proto::v1::MergePhase;

use super::frozen::Frozen;
use super::{Kill, LIMIT, Scene, nothing_lost};

const DISK: &str = "vda";
/// Every so many kills a younger snapshot is there.
const YOUNGER_EVERY: u32 = 3;

pub(super) struct Stage {
    number: u32,
    older: Frozen,
    pub(super) snapshot: String,
    younger: Option<Frozen>,
    images: Vec<PathBuf>,
    /// The snapshot's own volume.
    pub(super) base: PathBuf,
    /// The one that the delete takes away.
    pub(super) top: PathBuf,
}

impl Stage {
    pub(super) async fn set(scene: &mut Scene, number: u32) -> Result<Self> {
        let younger = number % YOUNGER_EVERY == YOUNGER_EVERY - 1;
        Self::lay(scene, number, younger).await
    }

    /// The same, always of the active layer.
    pub(super) async fn of_active(scene: &mut Scene, number: u32) -> Result<Self> {
        Self::lay(scene, number, false).await
    }

    async fn lay(scene: &mut Scene, number: u32, younger: bool) -> Result<Self> {
        let older = Frozen::take(scene, &format!("older-{number}")).await?;
        let snapshot = scene.snapshot(&format!("before-{number}")).await?;
        let younger = match younger {
            true => Some(Frozen::take(scene, &format!("younger-{number}")).await?),
            false => None,
        };
        let images = scene.images_of(DISK).await?;
        let top = images.len() - 1 - usize::from(younger.is_some());
        Ok(Self {
            number,
            older,
            snapshot,
            younger,
            base: images[top - 1].clone(),
            top: images[top].clone(),
            images,
        })
    }

    /// The moment to wait for: a merge below a younger snapshot is never ready, and has no pivot.
    pub(super) fn phase(&self, wanted: MergePhase) -> MergePhase {
        let of_active = [MergePhase::Ready, MergePhase::Pivoting].contains(&wanted);
        match self.younger {
            Some(_) if of_active => MergePhase::Copying,
            _ => wanted,
        }
    }

    /// The machine is dead and the delete has ended: won, or failed and all is there. It is had
    /// again, before every second start of the machine while it is off, and all is cleared up.
    pub(super) async fn end(
        self,
        scene: &mut Scene,
        kill: &mut Kill,
        ended: &v1::Operation,
    ) -> Result<()> {
        kill.merged = ended.state() == v1::OperationState::Succeeded;
        if kill.merged {
            self.won(scene).await?;
        } else {
            self.failed(scene, ended).await?;
        }
        self.all_reads_as_before(scene, kill).await?;
        let off = self.number % 2 == 1;
        if off && !kill.merged {
            self.delete_again(scene).await?;
            self.all_reads_as_before(scene, kill).await?;
        }
        scene.restart_guest().await?;
        if !off && !kill.merged {
            self.delete_again(scene).await?;
        }
        let left = scene.images_of(DISK).await?;
        ensure!(left.len() == self.images.len() - 1, "images: {left:?}");
        for frozen in self.beside() {
            frozen.holds(scene, kill).await?;
        }
        self.clear_up(scene).await
    }

    fn beside(&self) -> impl Iterator<Item = &Frozen> {
        [&self.older].into_iter().chain(&self.younger)
    }

    async fn all_reads_as_before(&self, scene: &mut Scene, kill: &mut Kill) -> Result<()> {
        nothing_lost(scene, kill).await?;
        for frozen in self.beside() {
            frozen.holds(scene, kill).await?;
        }
        Ok(())
    }

    /// The snapshot as it is listed.
    async fn listed(&self, scene: &mut Scene) -> Result<Option<v1::Snapshot>> {
        let vm = scene.vm();
        let all = scene.api.list(vm).await?;
        Ok(all
            .into_iter()
            .find(|snapshot| snapshot.id == self.snapshot))
    }

    async fn won(&self, scene: &mut Scene) -> Result<()> {
        let listed = self.listed(scene).await?;
        ensure!(listed.is_none(), "{listed:?} is left");
        ensure!(!self.top.exists(), "{} is left", self.top.display());
        let starts_from = self.starts_from(scene)?;
        let expected = match self.younger {
            Some(_) => self.images.last(),
            None => Some(&self.base),
        };
        ensure!(
            Some(&starts_from) == expected,
            "it starts from {}",
            starts_from.display()
        );
        Ok(())
    }

    /// The image that the machine starts from next.
    pub(super) fn starts_from(&self, scene: &Scene) -> Result<PathBuf> {
        let image = scene.rig.virsh().next_image(&scene.guest.spec.name, DISK)?;
        Ok(PathBuf::from(image))
    }

    async fn failed(&self, scene: &mut Scene, ended: &v1::Operation) -> Result<()> {
        let failure = ended.failure.clone().unwrap_or_default();
        ensure!(failure.reason == "VM_DIED", "{failure:?}");
        let listed = self.listed(scene).await?;
        ensure!(listed.is_some(), "the snapshot is gone");
        let both = self.base.exists() && self.top.exists();
        ensure!(both, "a volume is gone");
        let vm = scene.vm();
        let told = scene.api.log(vm).await?;
        let failed = told.iter().any(|event| {
            event.operation_id == ended.id && event.r#type() == v1::EventType::LiveMergeFailed
        });
        ensure!(failed, "no live-merge-failure event is in the log");
        Ok(())
    }

    async fn delete_again(&self, scene: &mut Scene) -> Result<()> {
        let again = scene.api.delete(&self.snapshot).await?;
        scene.api.succeeded(&again, LIMIT).await?;
        let listed = self.listed(scene).await?;
        ensure!(listed.is_none(), "{listed:?} is left");
        ensure!(!self.top.exists(), "{} is left", self.top.display());
        Ok(())
    }

    async fn clear_up(&self, scene: &mut Scene) -> Result<()> {
        let ids: Vec<_> = self.beside().map(|frozen| frozen.id.clone()).collect();
        let (vm, options) = (scene.vm(), v1::MergeOptions::default());
        let cleared = scene.api.delete_batch(vm, &ids, options).await?;
        scene.api.succeeded(&cleared, LIMIT).await?;
        ensure!(scene.images_of(DISK).await?.len() == 1);
        Ok(())
    }
}
