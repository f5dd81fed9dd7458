//! LiveMerge: from the call to the removed volumes, through both services and the durable record.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;

use super::watch::{Round, Watch};
use super::{DISK, LIMIT, Region, fill};
use crate::guest::domain::Workload;
use crate::qmp::Qmp;
use crate::scene::Scene;
use crate::services::{Reach, Services};

/// A guest and both services.
pub(super) struct Ours {
    scene: Scene,
    monitor: Qmp,
    /// How many layers it has been given, each with a name of its own.
    layers: usize,
}

impl Ours {
    pub(super) async fn begin(disks: &[&str], workload: Workload) -> Result<Self> {
        let (rig, guest, monitor) = super::boot(disks, workload).await?;
        let scene = Scene::around(rig, guest).await?;
        Ok(Self::of(scene, monitor))
    }

    /// The same, of an agent with this setting.
    pub(super) async fn begin_set(
        disks: &[&str],
        workload: Workload,
        setting: &str,
    ) -> Result<Self> {
        let (rig, guest, monitor) = super::boot(disks, workload).await?;
        let mut services = Services::new(&rig, Reach::Unix)?;
        services.agent.set(setting);
        let scene = Scene::with(rig, guest, services).await?;
        Ok(Self::of(scene, monitor))
    }

    fn of(scene: Scene, monitor: Qmp) -> Self {
        Self {
            scene,
            monitor,
            layers: 0,
        }
    }

    /// Takes a snapshot and fills the new layer of each disk. Returns its id.
    pub(super) async fn layer(&mut self, region: Region) -> Result<String> {
        self.layers += 1;
        let name = format!("layer-{}", self.layers);
        let snapshot = self.scene.api.snapshot(self.scene.vm(), &name).await?;
        for (place, disk) in self.scene.guest.spec.disks.clone().iter().enumerate() {
            let images = self.scene.images_of(&disk.target).await?;
            let overlay = images.last().context("the chain is empty")?;
            fill(&mut self.monitor, place, overlay, region)?;
        }
        Ok(snapshot)
    }

    /// Puts a layer on and deletes it.
    pub(super) async fn round(&mut self, mib: u64) -> Result<Round> {
        let snapshot = self.layer(Region::of(mib)).await?;
        let (round, _) = self.delete(&[snapshot], commit()).await?;
        Ok(round)
    }

    /// Deletes snapshots, one by DeleteSnapshot and several by BatchDeleteSnapshots.
    pub(super) async fn delete(
        &mut self,
        snapshots: &[String],
        options: v1::MergeOptions,
    ) -> Result<(Round, v1::Operation)> {
        let scene = &mut self.scene;
        let (vm, before) = (scene.vm(), scene.images_of(DISK).await?);
        let watch = Watch::begin(&scene.rig, &scene.guest)?;
        let deletion = match snapshots {
            [one] => scene.api.delete_with(one, options).await?,
            several => scene.api.delete_batch(vm, several, options).await?,
        };
        let done = scene.api.succeeded(&deletion, LIMIT).await?;
        let round = watch.end().await?;
        self.check(&before, snapshots.len()).await?;
        Ok((round, done))
    }

    /// The chain is shorter, and what has left it is gone.
    async fn check(&mut self, before: &[PathBuf], fewer: usize) -> Result<()> {
        let now = self.scene.images_of(DISK).await?;
        ensure!(
            now.len() + fewer == before.len(),
            "the chain was {before:?} and is {now:?}"
        );
        let left = before
            .iter()
            .find(|image| !now.contains(image) && image.exists());
        ensure!(left.is_none(), "{left:?} is still there");
        Ok(())
    }
}

/// The data goes down, as with the peer.
pub(super) fn commit() -> v1::MergeOptions {
    towards(v1::MergeDirection::Commit)
}

pub(super) fn towards(direction: v1::MergeDirection) -> v1::MergeOptions {
    v1::MergeOptions {
        direction: direction.into(),
        bytes_per_second: 0,
    }
}
