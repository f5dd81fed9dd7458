//! LiveMerge: from the call of DeleteSnapshot to the removed volume, through both services and the
//! durable record.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::peer::stall_since;
use super::{DISK, LIMIT, Round, fill};
use crate::qmp::Qmp;
use crate::scene::Scene;

pub(super) struct Ours {
    scene: Scene,
    monitor: Qmp,
}

impl Ours {
    pub(super) async fn begin() -> Result<Self> {
        let (rig, guest, monitor) = super::boot().await?;
        let scene = Scene::around(rig, guest).await?;
        Ok(Self { scene, monitor })
    }

    /// Takes a snapshot, fills its overlay, and deletes it.
    pub(super) async fn round(&mut self, mib: u64) -> Result<Round> {
        let vm = self.scene.vm();
        let snapshot = self.scene.api.snapshot(vm, "bench").await?;
        let images = self.scene.images_of(DISK).await?;
        let overlay = images.last().context("the chain is empty")?;
        fill(&mut self.monitor, overlay, mib)?;
        let mark = self.scene.guest.acks.mark();
        let begun = Instant::now();
        let deletion = self.scene.api.delete(&snapshot).await?;
        self.scene.api.succeeded(&deletion, LIMIT).await?;
        let took = begun.elapsed();
        ensure!(!overlay.exists(), "{} is still there", overlay.display());
        let stall = stall_since(&self.scene.guest.acks, mark).await?;
        Ok(Round { took, stall })
    }
}
