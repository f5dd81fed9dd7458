//! Points in time beside the one that is deleted: each reads what it froze, whatever dies.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use livemerge_proto::v1;

use super::{Kill, Scene};
use crate::guest::acks::Acknowledged;
use crate::guest::oracle;

/// A snapshot, and what it froze.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) id: String,
    disks: Vec<Disk>,
}

#[derive(Debug)]
struct Disk {
    target: String,
    /// What the guest had been told before the snapshot was asked for.
    told: Acknowledged,
    /// What its slots read right after it was taken.
    slots: Vec<u8>,
}

impl Frozen {
    /// Takes one.
    pub(super) async fn take(scene: &mut Scene, name: &str) -> Result<Self> {
        let disks = scene.guest.spec.disks.clone();
        let acks = &scene.guest.acks;
        let told: Vec<_> = disks
            .iter()
            .map(|disk| acks.acknowledged(&disk.target))
            .collect();
        let id = scene.snapshot(name).await?;
        let snapshot = listed(scene, &id).await?;
        let slots = scene.guest.spec.workload.slots;
        let disk = |(disk, told): (crate::guest::domain::DiskSpec, _)| {
            let image = image_of(scene, &snapshot, &disk.target)?;
            Ok(Disk {
                slots: oracle::frozen_slots(&image, slots)?,
                target: disk.target,
                told,
            })
        };
        let disks = disks.into_iter().zip(told).map(disk);
        Ok(Self {
            disks: disks.collect::<Result<_>>()?,
            id,
        })
    }

    /// It is READY, has what the guest had been told, and reads as it did.
    pub(super) async fn holds(&self, scene: &mut Scene, kill: &mut Kill) -> Result<()> {
        let snapshot = listed(scene, &self.id).await?;
        let name = &snapshot.name;
        ensure!(
            snapshot.state() == v1::SnapshotState::Ready,
            "{snapshot:?} is not ready"
        );
        let slots = scene.guest.spec.workload.slots;
        for disk in &self.disks {
            let image = image_of(scene, &snapshot, &disk.target)?;
            let verdict = oracle::verify_frozen(&disk.target, &image, slots, &disk.told)?;
            kill.count(&format!("{name}, {}", image.display()), &verdict)?;
            ensure!(
                oracle::frozen_slots(&image, slots)? == disk.slots,
                "{name} reads otherwise in {}",
                image.display()
            );
        }
        Ok(())
    }
}

async fn listed(scene: &mut Scene, id: &str) -> Result<v1::Snapshot> {
    let vm = scene.vm();
    let all = scene.api.list(vm).await?;
    let found = all.into_iter().find(|snapshot| snapshot.id == id);
    found.with_context(|| format!("snapshot {id} is gone"))
}

fn image_of(scene: &Scene, snapshot: &v1::Snapshot, target: &str) -> Result<PathBuf> {
    let disk = snapshot.disks.iter().find(|disk| disk.disk == target);
    let volume = disk.and_then(|disk| disk.volume.as_ref());
    let volume = volume.with_context(|| format!("{snapshot:?} has no {target}"))?;
    Ok(scene.rig.images().join(&volume.name))
}
