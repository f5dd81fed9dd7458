//! A domain whose volumes have only the room that they are given, as of logical volumes, without one.

use super::Faulty;
use crate::{StorageError, VolumeInfo, VolumeName};
use std::collections::BTreeMap;

/// The rooms of a domain's volumes.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) chunk: u64,
    rooms: BTreeMap<VolumeName, u64>,
}

impl Given {
    pub(super) fn most(&self, virtual_bytes: u64) -> u64 {
        (virtual_bytes + virtual_bytes / 10).next_multiple_of(self.chunk)
    }

    fn room(&self, volume: &VolumeName) -> u64 {
        self.rooms.get(volume).copied().unwrap_or(self.chunk)
    }
}

impl<S> Faulty<S> {
    /// Lets volumes seem to have one chunk of room, and what they are given of what seems free.
    pub fn seem_given(&self, chunk: u64) {
        self.state().given = Some(Given {
            chunk,
            rooms: BTreeMap::new(),
        });
    }

    /// A volume as it seems to be.
    pub(super) fn as_given(&self, info: VolumeInfo) -> VolumeInfo {
        match &self.state().given {
            None => info,
            Some(given) => VolumeInfo {
                allocated_bytes: given.room(&info.volume.name),
                ..info
            },
        }
    }

    /// Gives a volume room, where that seems to be done.
    pub(super) fn give(
        &self,
        info: VolumeInfo,
        bytes: u64,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let free = state.free_bytes.unwrap_or(u64::MAX);
        let Some(given) = &mut state.given else {
            return Ok(info);
        };
        let has = given.room(&info.volume.name);
        let most = given.most(info.virtual_bytes.max(virtual_bytes));
        let wanted = bytes.saturating_add(given.chunk - 1);
        let wanted = (wanted - wanted % given.chunk).min(most).max(has);
        let room = wanted.min(has.saturating_add(free));
        if wanted > has && room == has {
            let needed = wanted - has;
            return Err(StorageError::NoSpace { needed, free });
        }
        given.rooms.insert(info.volume.name.clone(), room);
        state.free_bytes = state.free_bytes.map(|free| free - (room - has));
        drop(guard);
        Ok(self.as_given(info))
    }
}
