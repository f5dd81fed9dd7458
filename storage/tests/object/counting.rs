//! Objects that can be counted, and that die: from a certain request on nothing goes through, as if
//! the process had been killed there.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What becomes of the request at which it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// It never arrives.
    Lost,
    /// It is carried out, and nobody hears of it.
    Done,
}

#[derive(Debug)]
pub(crate) struct Dying {
    inner: Arc<dyn ObjectStore>,
    requests: Arc<AtomicUsize>,
    dies_at: usize,
    last: Last,
}

enum Fate {
    Lives,
    Dies,
    IsDead,
}

impl Dying {
    /// Dies at a request, counted from 1.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, dies_at: usize, last: Last) -> Self {
        Self {
            inner,
            requests: Arc::default(),
            dies_at,
            last,
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn fate(&self) -> Fate {
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        match number.cmp(&self.dies_at) {
            std::cmp::Ordering::Less => Fate::Lives,
            std::cmp::Ordering::Equal => Fate::Dies,
            std::cmp::Ordering::Greater => Fate::IsDead,
        }
    }

    async fn request<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fate() {
            Fate::Lives => work.await,
            Fate::Dies if self.last == Last::Done => work.await.and(Err(dead())),
            Fate::Dies | Fate::IsDead => Err(dead()),
        }
    }
}

fn dead() -> Error {
    // Nothing is tried again then.
    Error::PermissionDenied {
        path: "any".to_owned(),
        source: "the process is dead".into(),
    }
}

impl fmt::Display for Dying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Dying {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.request(self.inner.put_opts(location, payload, opts))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.request(self.inner.put_multipart_opts(location, opts))
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.fate() {
            Fate::Lives => self.inner.delete_stream(locations),
            Fate::Dies if self.last == Last::Done => {
                let done = self.inner.delete_stream(locations);
                let unheard = done.filter_map(|_| std::future::ready(None));
                unheard.chain(stream::iter([Err(dead())])).boxed()
            }
            // Half of what was asked for is done.
            Fate::Dies => {
                let half = locations.take(2).boxed();
                let done = self.inner.delete_stream(half);
                done.chain(stream::iter([Err(dead())])).boxed()
            }
            Fate::IsDead => stream::iter([Err(dead())]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate() {
            Fate::Lives => self.inner.list(prefix),
            Fate::Dies => {
                let some = self.inner.list(prefix).take(1);
                some.chain(stream::iter([Err(dead())])).boxed()
            }
            Fate::IsDead => stream::iter([Err(dead())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(self.inner.copy_opts(from, to, options)).await
    }
}
