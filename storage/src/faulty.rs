//! A volume store that fails when it is told to, for the tests of its callers.
//!
//! ```text
//!   caller ─▶ Faulty ─▶ store        Before   the call never reaches the store
//!                    ◀─              After    the store has done it, and the answer is lost
//! ```
//!
//! A fault happens once. Without faults nothing differs from the store within, which the
//! conformance suite shows.

mod given;

pub use crate::metered::Call;
use crate::{
    Capabilities, Dependent, Extent, LiveVolumes, Locator, NewVolume, Parent, Removal, RemovalId,
    RemovalOrder, Space, StorageError, StorageId, VolumeInfo, VolumeName, VolumeStore, together,
};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use given::Given;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing has been done.
    Before,
    /// Everything has been done.
    After,
}

/// A failure to come.
#[derive(Debug)]
pub struct Fault {
    /// Only this method; `None` for whichever it is.
    pub call: Option<Call>,
    /// How many such calls from now on succeed first.
    pub skip: usize,
    /// Before or after the call.
    pub moment: Moment,
    /// What the caller gets.
    pub error: StorageError,
}

/// A store that fails as told.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    calls: Vec<Call>,
    free_bytes: Option<u64>,
    provided: bool,
    given: Option<Given>,
}

impl<S> Faulty<S> {
    /// Without faults at first.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }

    /// Adds a fault. Of several that are due at one call, the one that was added first happens, and
    /// the others are spent with it.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Adds a fault that makes the next call of a method seem unreachable.
    pub fn lose(&self, call: Call, moment: Moment) {
        let source = std::io::Error::other("injected");
        let error = StorageError::Unreachable {
            what: format!("{call:?}"),
            source,
        };
        self.inject(Fault {
            call: Some(call),
            skip: 0,
            moment,
            error,
        });
    }

    /// All calls so far, in order, failed ones too.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// The faults that have not happened.
    pub fn pending(&self) -> usize {
        self.state().faults.len()
    }

    /// Lets the domain seem to have so much room from now on.
    pub fn seem_free(&self, bytes: u64) {
        self.state().free_bytes = Some(bytes);
    }

    /// Lets the domain seem to be one that gives its volumes their room from now on.
    pub fn seem_provided(&self) {
        self.state().provided = true;
    }

    /// The store within.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and takes the fault that is due.
    fn enter(&self, call: Call) -> Option<(Moment, StorageError)> {
        let mut state = self.state();
        state.calls.push(call);
        let matches = |fault: &Fault| fault.call.is_none_or(|of| of == call);
        let due = state
            .faults
            .extract_if(.., |fault| matches(fault) && fault.skip == 0)
            .collect::<Vec<_>>();
        for fault in state.faults.iter_mut().filter(|fault| matches(fault)) {
            fault.skip -= 1;
        }
        due.into_iter()
            .next()
            .map(|fault| (fault.moment, fault.error))
    }

    async fn call<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        match self.enter(call) {
            None => answer.await,
            Some((Moment::Before, error)) => Err(error),
            Some((Moment::After, error)) => answer.await.and(Err(error)),
        }
    }

    /// A fault `After` it comes behind everything.
    fn stream<'a, T: Send + 'a>(
        &self,
        call: Call,
        answer: impl FnOnce() -> BoxStream<'a, Result<T, StorageError>>,
    ) -> BoxStream<'a, Result<T, StorageError>> {
        match self.enter(call) {
            None => answer(),
            Some((Moment::Before, error)) => stream::iter([Err(error)]).boxed(),
            Some((Moment::After, error)) => answer().chain(stream::iter([Err(error)])).boxed(),
        }
    }
}

#[async_trait]
impl<S: VolumeStore> VolumeStore for Faulty<S> {
    fn id(&self) -> &StorageId {
        self.inner.id()
    }

    fn capabilities(&self) -> Capabilities {
        let own = self.inner.capabilities();
        let state = self.state();
        Capabilities {
            provided: own.provided || state.provided || state.given.is_some(),
            ..own
        }
    }

    async fn create(&self, volume: &NewVolume) -> Result<VolumeInfo, StorageError> {
        self.call(Call::Create, self.inner.create(volume)).await
    }

    async fn stat(&self, volume: &VolumeName) -> Result<VolumeInfo, StorageError> {
        let info = self.call(Call::Stat, self.inner.stat(volume)).await?;
        Ok(self.as_given(info))
    }

    fn list(&self) -> BoxStream<'_, Result<VolumeInfo, StorageError>> {
        self.stream(Call::List, || self.inner.list())
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
        self.provide_for(volume, bytes, 0).await
    }

    async fn provide_for(
        &self,
        volume: &VolumeName,
        bytes: u64,
        virtual_bytes: u64,
    ) -> Result<VolumeInfo, StorageError> {
        let provided = self.inner.provide_for(volume, bytes, virtual_bytes);
        let info = self.call(Call::Provide, provided).await?;
        self.give(info, bytes, virtual_bytes)
    }

    fn chunk(&self) -> Option<u64> {
        let given = self.state().given.as_ref().map(|given| given.chunk);
        given.or_else(|| self.inner.chunk())
    }

    fn most_room(&self, virtual_bytes: u64) -> Option<u64> {
        let given = self.state();
        let most = given.given.as_ref().map(|given| given.most(virtual_bytes));
        most.or_else(|| self.inner.most_room(virtual_bytes))
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

    /// It is counted, and fails as each of its removals does.
    async fn remove_all(&self, orders: &[RemovalOrder]) -> Vec<Result<Removal, StorageError>> {
        self.state().calls.push(Call::RemoveAll);
        together::remove_all(self, orders).await
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
        self.stream(Call::Extents, || self.inner.extents(volume))
    }

    async fn in_use(&self, volume: &VolumeName) -> Result<bool, StorageError> {
        self.call(Call::InUse, self.inner.in_use(volume)).await
    }

    async fn space(&self) -> Result<Space, StorageError> {
        let free_bytes = self.state().free_bytes;
        let space = self.call(Call::Space, self.inner.space()).await?;
        Ok(Space {
            free_bytes: free_bytes.unwrap_or(space.free_bytes),
            ..space
        })
    }

    fn spells(&self, locator: &Locator) -> Option<VolumeName> {
        self.inner.spells(locator)
    }

    fn resolve(&self, locator: &Locator) -> Option<VolumeName> {
        self.inner.resolve(locator)
    }
}

#[async_trait]
impl<S: LiveVolumes> LiveVolumes for Faulty<S> {
    async fn activate(&self, volume: &VolumeName) -> Result<Locator, StorageError> {
        self.call(Call::Activate, self.inner.activate(volume)).await
    }

    async fn deactivate(&self, volume: &VolumeName) -> Result<(), StorageError> {
        self.call(Call::Deactivate, self.inner.deactivate(volume))
            .await
    }
}
