//! How much room a volume is given: chunks, enough to begin with, and never more than a full one
//! needs.

use super::command::Changes;
use super::domain::Domain;
use super::report::Group;
use super::turn::Turn;
use crate::calls::blocking;
use crate::error::io_error;
use crate::qemu_img::unreachable;
use crate::volume::USUAL_CLUSTER_BYTES;
use crate::{Format, StorageError, VolumeInfo, VolumeName};
use serde::Deserialize;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What an entry of the first table leads to: 64 KiB of entries for 64 KiB each.
const L2_REACH: u64 = 512 << 20;

/// What `qemu-img check` ends with when it has found corruptions, and when it has found clusters that
/// nobody uses. It tells of both.
const CHECKED: [i32; 2] = [2, 3];

/// The room of a new volume: at least the tables that `qemu-img` writes into it.
pub(super) fn first(virtual_bytes: u64, chunk: u64) -> u64 {
    let table = virtual_bytes.div_ceil(L2_REACH).saturating_mul(8);
    // The header, the first table, and a few clusters of reference counts.
    let tables = table.next_multiple_of(USUAL_CLUSTER_BYTES) + 8 * USUAL_CLUSTER_BYTES;
    tables.next_multiple_of(chunk)
}

/// The most that a volume is ever given: a tenth more than the guest sees holds all tables.
pub(super) fn most(virtual_bytes: u64, chunk: u64) -> u64 {
    let tables = (virtual_bytes / 10).saturating_add(first(0, 1));
    let all = virtual_bytes.saturating_add(tables);
    all.checked_next_multiple_of(chunk).unwrap_or(all)
}

/// The room that a volume has when it is asked to have room for so many bytes.
pub(super) fn provided(has: u64, asked: u64, virtual_bytes: u64, chunk: u64) -> u64 {
    let most = most(virtual_bytes, chunk);
    let chunks = asked.checked_next_multiple_of(chunk).unwrap_or(u64::MAX);
    chunks.min(most).max(has)
}

/// The room that a volume keeps whose image ends there.
pub(super) fn reduced(has: u64, image_end: u64, chunk: u64) -> u64 {
    image_end
        .checked_next_multiple_of(chunk)
        .unwrap_or(u64::MAX)
        .max(chunk)
        .min(has)
}

/// What room a volume shall have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) bytes: u64,
    /// It is to be at least so large before it needs it.
    pub(super) virtual_bytes: u64,
}

impl Domain {
    pub(super) async fn provide(
        self: Arc<Self>,
        name: VolumeName,
        wanted: Wanted,
    ) -> Result<VolumeInfo, StorageError> {
        self.name.check(&name)?;
        let group = self.report().await?;
        let volume = group.volume(&name).filter(|volume| volume.open).cloned();
        if let Some(volume) = volume {
            // Nobody can remove it now, and whoever writes it waits for no turn.
            let read = self.look(move |domain| domain.read(&volume).transpose());
            let info = read.await?.ok_or_else(|| self.not_found(&name))?;
            return self.give(&group, &name, wanted, info, None).await;
        }
        let turn = self.look_turn().await?;
        let group = self.report().await?;
        let info = self.info(group.clone(), &name, &turn).await?;
        self.give(&group, &name, wanted, info, Some(&turn)).await
    }

    /// Gives a volume the room that it is asked to have, or what there is.
    async fn give(
        &self,
        group: &Group,
        name: &VolumeName,
        wanted: Wanted,
        info: VolumeInfo,
        turn: Option<&Turn>,
    ) -> Result<VolumeInfo, StorageError> {
        let has = group.volume(name).map(|volume| volume.bytes);
        let has = has.ok_or_else(|| self.not_found(name))?;
        // Another host has extended it since it was activated here, or a change was cut short: the device
        // of this host ends before the volume does.
        if info.allocated_bytes < has {
            self.lvm.changes(turn).refresh(name.as_str()).await?;
        }
        let room = match info.format {
            Format::Qcow2 => {
                let size = info.virtual_bytes.max(wanted.virtual_bytes);
                provided(has, wanted.bytes, size, self.chunk())
            }
            // What a guest sees of it is all that there is.
            Format::Raw => has,
        };
        let there_is = has.saturating_add(group.free_bytes - group.free_bytes % group.extent_bytes);
        if room > there_is && there_is == has {
            let (needed, free) = (room - has, group.free_bytes);
            return Err(StorageError::NoSpace { needed, free });
        }
        let allocated_bytes = match room.min(there_is) {
            room if room > has => self.extend(group, name, room, turn).await?,
            _ => has,
        };
        Ok(VolumeInfo {
            allocated_bytes,
            ..info
        })
    }

    /// Gives a volume of the group so much room, and tells what it has. One that has grown meanwhile
    /// is no error.
    pub(super) async fn extend(
        &self,
        group: &Group,
        name: &VolumeName,
        room: u64,
        turn: Option<&Turn>,
    ) -> Result<u64, StorageError> {
        let has = |group: &Group| group.volume(name).map(|volume| volume.bytes);
        let needed = room.saturating_sub(has(group).ok_or_else(|| self.not_found(name))?);
        let free = group.free_bytes;
        if needed > free {
            return Err(StorageError::NoSpace { needed, free });
        }
        let lvm = self.lvm.changes(turn);
        let Err(error) = lvm.extend(name.as_str(), room).await else {
            // LVM takes whole extents.
            return Ok(room.next_multiple_of(group.extent_bytes));
        };
        let now = has(&self.report().await?).filter(|bytes| *bytes >= room);
        now.ok_or(error)
    }

    pub(super) async fn reduce(
        self: Arc<Self>,
        name: VolumeName,
    ) -> Result<VolumeInfo, StorageError> {
        self.name.check(&name)?;
        let turn = self.name_turn().await?;
        let group = self.closed(&name).await?;
        let info = self.info(group.clone(), &name, &turn).await?;
        if info.format == Format::Raw {
            return Ok(info);
        }
        let lvm = self.lvm.during(&turn);
        let names = std::slice::from_ref(&name);
        let activated = self.activate_all(&group, names, &turn).await?;
        let end = self.image_end(&name).await;
        // While it is not active nobody writes it: who has opened it meanwhile keeps all of it.
        lvm.deactivate(&[name.as_str()]).await?;
        let reduced = match end {
            Ok(end) => self.cut(&group, info, end, &lvm).await,
            Err(error) => Err(error),
        };
        if activated.is_empty() {
            lvm.activate(&[name.as_str()]).await?;
        }
        reduced
    }

    /// Takes back what lies behind the end of an image.
    async fn cut(
        &self,
        group: &Group,
        info: VolumeInfo,
        end: u64,
        lvm: &Changes<'_>,
    ) -> Result<VolumeInfo, StorageError> {
        let room = reduced(info.allocated_bytes, end, self.chunk());
        // Never within an extent: LVM would say what of it goes.
        let room = room.next_multiple_of(group.extent_bytes);
        if room >= info.allocated_bytes {
            return Ok(info);
        }
        lvm.reduce(info.volume.name.as_str(), room).await?;
        Ok(VolumeInfo {
            allocated_bytes: room,
            ..info
        })
    }

    /// Where the last cluster of an image ends, that nobody writes.
    async fn image_end(&self, name: &VolumeName) -> Result<u64, StorageError> {
        let path = self.name.path(name.as_str());
        let path = path.to_str().unwrap_or_default();
        let check = self.qemu_img.ending(&CHECKED);
        let answer = check
            .answer(&["check", "--output=json", "-f", "qcow2", path])
            .await?;
        let found: Check = serde_json::from_str(&answer)
            .map_err(|error| unreachable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        if found.corruptions > 0 || found.check_errors > 0 {
            let why = format!("{} corruptions", found.corruptions.max(found.check_errors));
            return Err(StorageError::Corrupt {
                what: self.what(name),
                why,
            });
        }
        Ok(found.image_end_offset)
    }

    /// What was written to a volume's device lies on it.
    pub(super) async fn sync(&self, path: PathBuf) -> Result<(), StorageError> {
        blocking(move || {
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(io_error(path.display()))
        })
        .await
    }
}

/// What `qemu-img check` says.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Check {
    image_end_offset: u64,
    #[serde(default)]
    corruptions: u64,
    check_errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn a_volume_begins_with_a_chunk_that_holds_its_tables() {
        for (virtual_bytes, chunk, room) in [
            (512, MIB, MIB),
            (40 * GIB, GIB, GIB),
            (1 << 40, MIB, MIB),
            (2 << 50, GIB, GIB),
            (2 << 50, MIB, 33 * MIB),
        ] {
            assert_eq!(first(virtual_bytes, chunk), room, "{virtual_bytes} {chunk}");
        }
    }

    #[test]
    fn room_is_given_in_chunks_up_to_a_tenth_more_than_the_size() {
        for (has, asked, room) in [
            (GIB, GIB, GIB),
            (GIB, GIB + 1, 2 * GIB),
            (3 * GIB, GIB, 3 * GIB),
            (GIB, u64::MAX, 12 * GIB),
            (20 * GIB, u64::MAX, 20 * GIB),
        ] {
            assert_eq!(provided(has, asked, 10 * GIB, GIB), room, "{has} {asked}");
        }
    }

    proptest! {
        #[test]
        fn no_room_is_taken_away_by_giving_nor_given_by_taking(
            has in 0..u64::MAX / 2, asked in any::<u64>(), size in 0..u64::MAX / 4, chunk in 1..GIB,
        ) {
            prop_assert!(provided(has, asked, size, chunk) >= has);
            let kept = reduced(has, asked, chunk);
            prop_assert!(kept <= has && kept >= asked.min(has));
            prop_assert!(most(size, chunk) >= size);
        }
    }
}
