//! A volume store that counts and times what is asked of it, for metrics and for tests.
//!
//! ```text
//!   caller ─▶ Metered ─▶ store         calls, failures, time of each method; nothing else differs
//! ```
//!
//! A stream counts as one call, from when it is first asked to its end; one that is dropped before
//! that is not timed.

use crate::{
    Capabilities, Dependent, Extent, LiveVolumes, Locator, NewVolume, Parent, Removal, RemovalId,
    RemovalOrder, Space, StorageError, StorageId, VolumeInfo, VolumeName, VolumeStore,
};
use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A method of the traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    Create,
    Stat,
    List,
    Grow,
    Provide,
    Reduce,
    Foreign,
    Remove,
    RemoveAll,
    ListRemovals,
    Restore,
    ParentOf,
    Dependents,
    Extents,
    InUse,
    Space,
    Activate,
    Deactivate,
}

/// What was asked of one method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// Calls that have ended.
    pub calls: u64,
    /// Of those, how many failed.
    pub failures: u64,
    /// What they took together.
    pub total: Duration,
    /// What the longest one took.
    pub longest: Duration,
}

/// A store that is metered.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    meters: Meters,
}

#[derive(Debug, Clone, Default)]
struct Meters(Arc<Mutex<BTreeMap<Call, Meter>>>);

impl Meters {
    fn add(&self, call: Call, begun: Instant, failed: bool) {
        let took = begun.elapsed();
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let meter = meters.entry(call).or_default();
        meter.calls += 1;
        meter.failures += u64::from(failed);
        meter.total += took;
        meter.longest = meter.longest.max(took);
    }
}

impl<S> Metered<S> {
    /// Everything at zero.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            meters: Meters::default(),
        }
    }

    /// What was asked until now, of the methods that were called.
    pub fn meters(&self) -> BTreeMap<Call, Meter> {
        let meters = self.meters.0.lock();
        meters.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let begun = Instant::now();
        let answer = answer.await;
        self.meters.add(call, begun, answer.is_err());
        answer
    }

    fn stream<'a, T: Send + 'a>(
        &self,
        call: Call,
        mut answer: BoxStream<'a, Result<T, StorageError>>,
    ) -> BoxStream<'a, Result<T, StorageError>> {
        let meters = self.meters.clone();
        let metered = async_stream::stream! {
            let (begun, mut failed) = (Instant::now(), false);
            while let Some(item) = answer.next().await {
                failed |= item.is_err();
                yield item;
            }
            meters.add(call, begun, failed);
        };
        metered.boxed()
    }
}

#[async_trait]
impl<S: VolumeStore> VolumeStore for Metered<S> {
    fn id(&self) -> &StorageId {
        self.inner.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        self.call(Call::Create, self.inner.create(volume)).await
    }

    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.call(Call::Stat, self.inner.stat(volume)).await
    }

    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>> {
        self.stream(Call::List, self.inner.list())
    }

    async fn grow(
        &self,
        volume: &VolumeName,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        self.call(Call::Grow, self.inner.grow(volume, virtual_bytes))
            .await
    }

    async fn provide(&self, volume: &VolumeName, bytes: u64) -> Result<VolumeInfo, StorageError> {
        self.call(Call::Provide, self.inner.provide(volume, bytes))
            .await
    }

    async fn provide_for(
        &self,
        volume: &VolumeName,
        bytes: u64,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        let provided = self.inner.provide_for(volume, bytes, virtual_bytes);
        self.call(Call::Provide, provided).await
    }

    fn chunk(&self) -> Option<u64> {
        self.inner.chunk()
    }

    fn most_room(&self, virtual_bytes: u64) -> Option<u64> {
        self.inner.most_room(virtual_bytes)
    }

    async fn reduce(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        self.call(Call::Reduce, self.inner.reduce(volume)).await
    }

    async fn foreign(&self) -> Result<Vec<String>, StorageError> {
        self.call(Call::Foreign, self.inner.foreign()).await
    }

    async fn remove(&self, order: &RemovalOrder) -> Result<Removal, StorageError> {
        self.call(Call::Remove, self.inner.remove(order)).await
    }

    /// Each counts as a removal, which took as long as all of them, beside the call itself.
    async fn remove_all(&self, orders: &[RemovalOrder]) -> Vec<Result<Removal, StorageError>> {
        let begun = Instant::now();
        let answers = self.inner.remove_all(orders).await;
        for answer in &answers {
            self.meters.add(Call::Remove, begun, answer.is_err());
        }
        let failed = answers.iter().any(Result::is_err);
        self.meters.add(Call::RemoveAll, begun, failed);
        answers
    }

    async fn list_removals(&self) -> Result<Vec<Removal>, StorageError> {
        self.call(Call::ListRemovals, self.inner.list_removals())
            .await
    }

    async fn restore(&self, removal: RemovalId) -> Result<VolumeInfo, StorageError> {
        self.call(Call::Restore, self.inner.restore(removal)).await
    }

    async fn parent_of(&self, volume: &VolumeName) -> Result<Option<Parent>, StorageError> {
        self.call(Call::ParentOf, self.inner.parent_of(volume))
            .await
    }

    async fn dependents(&self, on: &[Locator]) -> Result<Vec<Dependent>, StorageError> {
        self.call(Call::Dependents, self.inner.dependents(on)).await
    }

    fn extents(&self, volume: &VolumeName) -> BoxStream<'_, Result<Extent, StorageError>> {
        self.stream(Call::Extents, self.inner.extents(volume))
    }

    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError> {
        self.call(Call::InUse, self.inner.in_use(volume)).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        self.call(Call::Space, self.inner.space()).await
    }

    fn spells(&self, locator: &Locator) -> Option<VolumeName> {
        self.inner.spells(locator)
    }

    fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        self.inner.resolve(locator)
    }
}

#[async_trait]
impl<S: LiveVolumes> LiveVolumes for Metered<S> {
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError> {
        self.call(Call::Activate, self.inner.activate(volume)).await
    }

    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError> {
        self.call(Call::Deactivate, self.inner.deactivate(volume))
            .await
    }
}
