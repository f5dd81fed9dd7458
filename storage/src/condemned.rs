//! A removal as every back end writes it down before it does anything to the volume.

use crate::{
    Identity, Removal, RemovalId, RemovalOrder, RemovalState, StorageError, StorageId, VolumeName,
    VolumeRef,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A removal as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Condemned {
    pub(crate) volume: VolumeName,
    pub(crate) identity: Identity,
    pub(crate) condemned_at: Timestamp,
    pub(crate) keep_until: Option<Timestamp>,
    /// Set before the first byte is freed: from then on there is no way back.
    pub(crate) purging: bool,
    #[serde(default)]
    pub(crate) wipe: bool,
    #[serde(default)]
    pub(crate) discard: bool,
}

impl Condemned {
    pub(crate) fn new(order: &RemovalOrder, now: Timestamp) -> Self {
        let keep = SignedDuration::try_from(order.keep_for).unwrap_or(SignedDuration::MAX);
        let until = now.saturating_add(keep).unwrap_or(Timestamp::MAX);
        Self {
            volume: order.volume.clone(),
            identity: order.identity.clone(),
            condemned_at: now,
            keep_until: (!order.keep_for.is_zero()).then_some(until),
            purging: false,
            wipe: order.wipe,
            discard: order.discard,
        }
    }

    /// Whether the volume can still be brought back.
    pub(crate) fn is_kept(&self, now: Timestamp) -> bool {
        !self.purging && self.keep_until.is_some_and(|until| now < until)
    }

    /// # Errors
    /// `Invalid` when the id was given to the removal of another volume.
    pub(crate) fn check(&self, order: &RemovalOrder) -> Result<(), StorageError> {
        if self.volume == order.volume && self.identity == order.identity {
            return Ok(());
        }
        Err(StorageError::Invalid(format!(
            "removal {} removes another volume",
            order.id
        )))
    }

    /// What is told of it.
    pub(crate) fn removal(&self, id: RemovalId, storage: &StorageId) -> Removal {
        Removal {
            id,
            volume: VolumeRef {
                storage: storage.clone(),
                name: self.volume.clone(),
            },
            identity: self.identity.clone(),
            state: RemovalState::Condemned {
                keep_until: self.keep_until.filter(|_| !self.purging),
            },
            freed_bytes: 0,
            condemned_at: Some(self.condemned_at),
        }
    }
}

impl RemovalOrder {
    /// What is told of it when nothing is left of the volume.
    pub(crate) fn gone(
        &self,
        storage: &StorageId,
        freed_bytes: u64,
        condemned_at: Option<Timestamp>,
    ) -> Removal {
        Removal {
            id: self.id,
            volume: VolumeRef {
                storage: storage.clone(),
                name: self.volume.clone(),
            },
            identity: self.identity.clone(),
            state: RemovalState::Gone,
            freed_bytes,
            condemned_at,
        }
    }
}

/// The time by this host's clock.
#[allow(
    clippy::disallowed_methods,
    reason = "storage dates what it condemns by the host's clock"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
