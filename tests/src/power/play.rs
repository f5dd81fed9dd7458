//! The run whose disks are cut: a guest that writes, snapshots that come and go in each of the three
//! ways, and what was promised on the way.
//!
//! ```text
//!   base ◀─ first ◀─ second ◀─ third      second is deleted: an intermediate commit
//!   base ◀─ first ◀─ third                third is: an active commit, with a pivot
//!   base ◀─ first                         first is: a pull
//! ```

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use livemerge_proto::v1;

use super::disks::{Disks, Position};
use super::timeline::{During, Timeline, Watch};
use crate::guest::acks::Acknowledged;
use crate::guest::domain::{GuestSpec, Workload};
use crate::guest::oracle;
use crate::process::run;
use crate::rig::Rig;
use crate::scene::{LIMIT, Scene};
use crate::services::{Reach, Services};

pub(super) const DISK: &str = "vda";
const VM: &str = "vm";
const DISK_BYTES: u64 = 256 << 20;
/// It writes slowly, so that there is time between two flushes of its own: what a step of ours does not
/// flush itself is seen as lost.
const WORKLOAD: Workload = Workload {
    slots: 64,
    fill_mib: 4,
    background_kib: 512,
    rate: 25,
};
/// Records in each layer.
const BETWEEN: u64 = 25;

/// What was promised.
#[derive(Debug)]
pub(super) enum Promise {
    /// A snapshot was taken: it is listed, and reads so.
    Taken {
        id: String,
        told: Acknowledged,
        slots: Vec<u8>,
    },
    /// This was accepted.
    Accepted { operation: String },
    /// A snapshot was deleted.
    Gone { id: String },
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Played {
    /// The disks, as files.
    pub(super) disks: Arc<Disks>,
    /// The name of the rig's directory: what was written down names it.
    pub(super) place: String,
    /// The guest.
    pub(super) spec: GuestSpec,
    /// How far the disks were when.
    pub(super) timeline: Timeline,
    /// What must be so, and when.
    pub(super) promises: Vec<During<Promise>>,
    /// What went on, in the order of time.
    pub(super) story: Vec<(Position, String)>,
}

/// Plays it.
pub(super) async fn play(seed: u64) -> Result<Played> {
    let disks = Arc::new(Disks::make()?);
    let shown = disks.show()?;
    let place = format!("lmp{}-{seed}", std::process::id());
    let rig = Rig::on_disks(&place, &disks.mounts())?;
    let spec = rig.describe(VM, &[DISK], DISK_BYTES, WORKLOAD)?;
    let guest = rig.start(spec.clone())?;
    let services = Services::new(&rig, Reach::Unix)?;
    let mut scene = Scene::with(rig, guest, services).await?;
    scene.guest.acks.wait_for_fill(DISK, LIMIT).await?;
    // What was installed long ago is on the disks.
    for mount in disks.mounts() {
        let at = scene.rig.path().join(mount.dir);
        run(Command::new("sync").arg("--file-system").arg(at))?;
    }
    let watch = Watch::begin(&disks, DISK, &spec.serial_log)?;
    let mut run = Run {
        disks: disks.clone(),
        promises: Vec::new(),
        story: Vec::new(),
    };
    let told = run.all(&mut scene).await;
    told.with_context(|| scene.services.agent.log_text())?;
    let timeline = watch.end()?;
    drop(scene);
    drop(shown);
    let Run {
        promises, story, ..
    } = run;
    Ok(Played {
        disks,
        place,
        spec,
        timeline,
        promises,
        story,
    })
}

struct Run {
    disks: Arc<Disks>,
    promises: Vec<During<Promise>>,
    story: Vec<(Position, String)>,
}

impl Run {
    async fn all(&mut self, scene: &mut Scene) -> Result<()> {
        let mut ids = Vec::new();
        for name in ["first", "second", "third"] {
            ids.push(self.take(scene, name).await?);
        }
        let commit = v1::MergeDirection::Commit;
        let pull = v1::MergeDirection::Pull;
        self.delete(scene, &ids[1], "second", commit).await?;
        self.delete(scene, &ids[2], "third", commit).await?;
        self.delete(scene, &ids[0], "first", pull).await?;
        ensure!(scene.images_of(DISK).await?.len() == 1);
        Ok(())
    }

    async fn take(&mut self, scene: &mut Scene, name: &str) -> Result<String> {
        self.tell(format!("snapshot {name}"))?;
        let told = scene.guest.acks.acknowledged(DISK);
        let id = scene.api.snapshot(scene.vm(), name).await?;
        let since = self.disks.position()?;
        let image = image_of(scene, &id).await?;
        let slots = oracle::frozen_slots(&image, WORKLOAD.slots)?;
        self.promise(
            since,
            Promise::Taken {
                id: id.clone(),
                told,
                slots,
            },
        );
        self.tell(format!("{name} taken"))?;
        scene.write_more(BETWEEN).await?;
        Ok(id)
    }

    async fn delete(
        &mut self,
        scene: &mut Scene,
        id: &str,
        name: &str,
        direction: v1::MergeDirection,
    ) -> Result<()> {
        self.tell(format!("delete {name}"))?;
        let until = self.disks.position()?;
        for promise in &mut self.promises {
            if matches!(&promise.what, Promise::Taken { id: taken, .. } if taken == id) {
                promise.until = Some(until);
            }
        }
        let options = v1::MergeOptions {
            direction: direction.into(),
            bytes_per_second: 0,
        };
        let accepted = scene.api.delete_with(id, options).await?;
        let operation = accepted.id.clone();
        self.promise(self.disks.position()?, Promise::Accepted { operation });
        scene.api.succeeded(&accepted, LIMIT).await?;
        let id = id.to_owned();
        self.promise(self.disks.position()?, Promise::Gone { id });
        self.tell(format!("{name} deleted"))?;
        scene.write_more(BETWEEN).await
    }

    fn promise(&mut self, since: Position, what: Promise) {
        self.promises.push(During {
            what,
            since,
            until: None,
        });
    }

    fn tell(&mut self, what: String) -> Result<()> {
        self.story.push((self.disks.position()?, what));
        Ok(())
    }
}

/// The image of a listed snapshot.
pub(super) async fn image_of(scene: &mut Scene, id: &str) -> Result<PathBuf> {
    let vm = scene.vm();
    let all = scene.api.list(vm).await?;
    let snapshot = all.into_iter().find(|snapshot| snapshot.id == id);
    let snapshot = snapshot.with_context(|| format!("snapshot {id} is gone"))?;
    ensure!(
        snapshot.state() == v1::SnapshotState::Ready,
        "{snapshot:?} is not ready"
    );
    let disk = snapshot.disks.iter().find(|disk| disk.disk == DISK);
    let volume = disk.and_then(|disk| disk.volume.as_ref());
    let volume = volume.with_context(|| format!("{snapshot:?} has no {DISK}"))?;
    let image = scene.rig.images().join(&volume.name);
    ensure!(fs::exists(&image)?, "no {}", image.display());
    Ok(image)
}
