//! Which volume has a name: a table in a few objects, each changed only as it was read.
//!
//! ```text
//!   create    read shard ─▶ name free? ─▶ put shard if unchanged     (else read again)
//!   condemn   read shard ─▶ still this uuid? ─▶ put shard without it, if unchanged
//! ```
//!
//! One object a name would have to be deleted when its volume is condemned, and a client of an object
//! store cannot delete on a condition: a request that comes late would take the name from the next
//! volume that has it. A table is never deleted, so that cannot happen.

use super::keys::{Key, Keys};
use super::listing;
use super::records::{Read, Records};
use crate::{StorageError, VolumeName};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How often a change is tried again that somebody else was quicker than.
const TRIES: u32 = 40;
/// Shards that are read at once.
const AT_ONCE: usize = 16;

type Shard = BTreeMap<VolumeName, Uuid>;

/// The names of a domain's volumes.
#[derive(Debug, Clone)]
pub(super) struct Names {
    keys: Keys,
    records: Records,
    store: Arc<dyn ObjectStore>,
}

impl Names {
    pub(super) fn new(keys: Keys, records: Records, store: Arc<dyn ObjectStore>) -> Self {
        Self {
            keys,
            records,
            store,
        }
    }

    /// The volume that has a name.
    pub(super) async fn holder(&self, name: &VolumeName) -> Result<Option<Uuid>, StorageError> {
        let shard = self
            .records
            .read::<Shard>(&self.keys.shard_of(name))
            .await?;
        Ok(shard.and_then(|shard| shard.record.get(name).copied()))
    }

    /// Gives a name to a volume, if nobody has it. Tells who has it then.
    pub(super) async fn give(&self, name: &VolumeName, uuid: Uuid) -> Result<Uuid, StorageError> {
        self.change(name, |shard| *shard.entry(name.clone()).or_insert(uuid))
            .await
    }

    /// Takes a name from a volume, if that has it.
    pub(super) async fn take(&self, name: &VolumeName, uuid: Uuid) -> Result<(), StorageError> {
        self.change(name, |shard| {
            if shard.get(name) == Some(&uuid) {
                shard.remove(name);
            }
        })
        .await
    }

    /// All volumes that have a name.
    pub(super) async fn all(&self) -> Result<Vec<(VolumeName, Uuid)>, StorageError> {
        let shards = listing::paths(&self.store, &self.keys.names()).await?;
        let shards = shards
            .into_iter()
            .filter(|path| matches!(self.keys.read(path), Some(Key::Names(_))));
        let read = |path: Path| async move { self.records.read::<Shard>(&path).await };
        let shards: Vec<_> = stream::iter(shards)
            .map(read)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let entries = shards.into_iter().flatten().flat_map(|shard| shard.record);
        Ok(entries.collect())
    }

    async fn change<T>(
        &self,
        name: &VolumeName,
        change: impl Fn(&mut Shard) -> T,
    ) -> Result<T, StorageError> {
        let at = self.keys.shard_of(name);
        for tried in 0..TRIES {
            let read = self.records.read::<Shard>(&at).await?;
            let before = read.as_ref().map(|read| read.record.clone());
            let mut after = before.clone().unwrap_or_default();
            let answer = change(&mut after);
            if after == before.clone().unwrap_or_default() {
                return Ok(answer);
            }
            let put = match read {
                Some(Read { version, .. }) => self.records.replace(&at, &after, version).await?,
                None => self.records.create(&at, &after).await?,
            };
            if put.is_some() {
                return Ok(answer);
            }
            tokio::time::sleep(pause(tried)).await;
        }
        Err(StorageError::Busy {
            what: format!("object {at}"),
        })
    }
}

/// Different for each, so that two do not meet again and again.
fn pause(tried: u32) -> Duration {
    let random = Uuid::new_v4().as_bytes()[0];
    Duration::from_millis(u64::from(random) * u64::from(tried.min(8)) / 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    fn names() -> Names {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        Names::new(
            Keys::new(Path::default()),
            Records::new(Arc::clone(&store)),
            store,
        )
    }

    #[tokio::test]
    async fn a_name_has_one_holder_and_is_taken_only_from_it() {
        let names = names();
        let name: VolumeName = "a".parse().unwrap();
        let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
        assert_eq!(names.give(&name, one).await.unwrap(), one);
        assert_eq!(names.give(&name, other).await.unwrap(), one);
        names.take(&name, other).await.unwrap();
        assert_eq!(names.holder(&name).await.unwrap(), Some(one));
        names.take(&name, one).await.unwrap();
        assert_eq!(names.holder(&name).await.unwrap(), None);
        assert_eq!(names.give(&name, other).await.unwrap(), other);
        // However late it comes.
        names.take(&name, one).await.unwrap();
        assert_eq!(names.all().await.unwrap(), [(name, other)]);
    }

    #[tokio::test]
    async fn of_many_at_once_one_gets_the_name_and_no_other_name_is_lost() {
        let names = names();
        let calls = (0..8).map(|number| {
            let names = names.clone();
            async move {
                let own: VolumeName = format!("own-{number}").parse().unwrap();
                let uuid = Uuid::new_v4();
                names.give(&own, uuid).await.unwrap();
                let wanted: VolumeName = "wanted".parse().unwrap();
                names.give(&wanted, uuid).await.unwrap()
            }
        });
        let holders = futures::future::join_all(calls).await;
        assert!(holders.iter().all(|holder| *holder == holders[0]));
        assert_eq!(names.all().await.unwrap().len(), 9);
    }
}
