//! What the record says, held against what stands on the storage.
//!
//! - Each snapshot's volume is there and its chain is readable.
//! - A snapshot that is offered as whole (READY) reads what the disk read when it was taken.
//! - Any other one reads nothing older than that, block by block.

use std::collections::BTreeMap;
use std::sync::Arc;

use livemerge_api_server::snapshot::{Snapshot, SnapshotState};
use livemerge_host_agent::hypervisor::fake::FakeImages;
use livemerge_proto::ids::DiskTarget;
use livemerge_storage::Locator;

use super::stage::Stage;
use super::world::Contents;

/// What the disks read when a snapshot was taken.
pub type Taken = BTreeMap<DiskTarget, Contents>;

/// Looks after each step, and after each write of the record.
#[derive(Clone)]
pub struct Ledger {
    /// What stands on the storage.
    pub images: FakeImages,
    /// Has the record, and is told of what is wrong.
    pub stage: Arc<Stage>,
    /// By snapshot.
    pub taken: BTreeMap<String, Taken>,
}

impl Ledger {
    /// Holds the record as it was written last against the storage as it is. What it says must hold
    /// until it says something else: nobody acts on what is not written down.
    pub fn check(&self) {
        let suspects = self.stage.record().into_iter();
        let suspects: Vec<Snapshot> = suspects.filter(|it| self.wrong(it).is_some()).collect();
        if suspects.is_empty() {
            return;
        }
        // Both go on meanwhile: wrong is what is wrong beside a record that is still the same.
        for now in self.stage.record() {
            if let (true, Some(wrong)) = (suspects.contains(&now), self.wrong(&now)) {
                self.stage.violated(wrong);
            }
        }
    }

    fn wrong(&self, snapshot: &Snapshot) -> Option<String> {
        snapshot.disks.iter().find_map(|disk| {
            let volume = disk.volume.name.as_str();
            let image = image(volume);
            let about = || format!("snapshot {} ({:?})", snapshot.name, snapshot.state);
            if self.images.chain(&image).is_none() {
                return Some(format!("{}: {volume} cannot be read", about()));
            }
            let whole = snapshot.state == SnapshotState::Ready;
            let taken = self.taken.get(&snapshot.id.to_string())?;
            let contents = taken.get(&disk.disk)?;
            let differs = contents.iter().find_map(|(block, then)| {
                let now = self.images.read(&image, *block);
                let kept = if whole {
                    now == Some(*then)
                } else {
                    // What is written later is a greater number.
                    now >= Some(*then)
                };
                (!kept).then_some((block, then, now))
            });
            let (block, then, now) = differs?;
            Some(format!(
                "{}: block {block} of {volume} reads {now:?}, {then} was taken",
                about()
            ))
        })
    }
}

/// Where a volume of the scripted domain stands.
pub fn image(volume: &str) -> Locator {
    Locator::File(format!("/fake/{volume}").into())
}
