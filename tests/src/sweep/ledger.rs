//! What the record says, held against what stands on the storage.
//!
//! - Each snapshot's volume is there and its chain is readable.
//! - A snapshot that is offered as whole (READY) reads what the disk read when it was taken.
//! - Any other one reads nothing older than that, block by block.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use livemerge_host_agent::hypervisor::fake::FakeImages;
use livemerge_proto::ids::DiskTarget;
use livemerge_proto::v1;
use livemerge_storage::Locator;
use uuid::Uuid;

use super::stage::Stage;
use super::world::Contents;
use crate::api::Api;

/// Time between two looks.
const STEP: Duration = Duration::from_millis(40);

/// What the disks read when a snapshot was taken.
pub type Taken = BTreeMap<DiskTarget, Contents>;

/// Reads the record again and again.
#[derive(Clone)]
pub struct Ledger {
    /// Shows the record.
    pub api: Api,
    /// The machine.
    pub vm: Uuid,
    /// What stands on the storage.
    pub images: FakeImages,
    /// Told of what is wrong.
    pub stage: Arc<Stage>,
    /// By snapshot.
    pub taken: BTreeMap<String, Taken>,
}

impl Ledger {
    /// Goes on until dropped. A server that is down shows nothing.
    pub async fn turn(mut self) {
        loop {
            tokio::time::sleep(STEP).await;
            let _server_is_down = self.look().await;
        }
    }

    /// Reads the record once. It changes all the time, and so does the storage: wrong is only what
    /// is wrong beside a record that has not changed meanwhile.
    pub async fn look(&mut self) -> Result<()> {
        let before = self.api.list(self.vm).await?;
        let suspects: Vec<_> = before
            .iter()
            .filter(|snapshot| self.wrong(snapshot).is_some())
            .collect();
        if suspects.is_empty() {
            return Ok(());
        }
        for now in self.api.list(self.vm).await? {
            let unchanged = suspects
                .iter()
                .any(|suspect| (&suspect.id, &suspect.etag) == (&now.id, &now.etag));
            if let (true, Some(wrong)) = (unchanged, self.wrong(&now)) {
                self.stage.violated(wrong);
            }
        }
        Ok(())
    }

    fn wrong(&self, snapshot: &v1::Snapshot) -> Option<String> {
        snapshot.disks.iter().find_map(|disk| {
            let volume = disk.volume.clone().unwrap_or_default().name;
            let image = image(&volume);
            let about = || format!("snapshot {} ({:?})", snapshot.name, snapshot.state());
            if self.images.chain(&image).is_none() {
                return Some(format!("{}: {volume} cannot be read", about()));
            }
            let whole = snapshot.state() == v1::SnapshotState::Ready;
            let taken = self.taken.get(&snapshot.id)?;
            let contents = taken
                .iter()
                .find(|(target, _)| target.to_string() == disk.disk);
            let differs = contents?.1.iter().find_map(|(block, then)| {
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
