//! Objects in memory that a test holds its hand over: requests are refused, held up, or counted. Their
//! versions are numbers beside their tags, and a condition is on the number, as with Google's.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Get,
    Put,
    Delete,
    List,
}

/// What comes of it.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    Passes,
    Refused,
    /// Carried out when there is a permit; something that is read is so before that.
    Waits(Arc<Semaphore>),
    /// Each object of a listing comes after a while.
    Slow(Duration),
}

type Rule = Arc<dyn Fn(Asked, &str) -> Fate + Send + Sync>;

/// The objects.
#[derive(Clone)]
pub(super) struct Guarded {
    pub(super) inner: Arc<InMemory>,
    rule: Arc<Mutex<Rule>>,
    log: Arc<Mutex<Vec<(Asked, String)>>>,
}

impl Guarded {
    pub(super) fn new() -> Self {
        Self {
            inner: Arc::default(),
            rule: Arc::new(Mutex::new(Arc::new(|_, _| Fate::Passes))),
            log: Arc::default(),
        }
    }

    pub(super) fn rule(&self, rule: impl Fn(Asked, &str) -> Fate + Send + Sync + 'static) {
        *locked(&self.rule) = Arc::new(rule);
    }

    /// A rule for those of one kind whose key ends so.
    pub(super) fn on(&self, kind: Asked, end: &'static str, fate: Fate) {
        self.rule(
            move |asked, key| match asked == kind && key.ends_with(end) {
                true => fate.clone(),
                false => Fate::Passes,
            },
        );
    }

    /// Waits until something was asked for.
    pub(super) async fn asked(&self, kind: Asked, end: &str) {
        let begun = Instant::now();
        loop {
            let is_it = |(asked, key): &(Asked, String)| *asked == kind && key.ends_with(end);
            if locked(&self.log).iter().any(is_it) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{kind:?} {end}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn fate(&self, asked: Asked, key: &str) -> Fate {
        locked(&self.log).push((asked, key.to_owned()));
        let rule = Arc::clone(&locked(&self.rule));
        rule(asked, key)
    }

    async fn passes(&self, asked: Asked, at: &Path) -> Result<()> {
        match self.fate(asked, at.as_ref()) {
            Fate::Refused => Err(refused(at)),
            Fate::Waits(permits) => {
                let _permit = permits.acquire().await;
                Ok(())
            }
            Fate::Passes | Fate::Slow(_) => Ok(()),
        }
    }
}

fn refused(at: &Path) -> Error {
    Error::PermissionDenied {
        path: at.to_string(),
        source: "refused".into(),
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guarded")
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Guarded {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        self.passes(Asked::Put, location).await?;
        if let PutMode::Update(read) = &mut opts.mode {
            read.e_tag = read.version.take();
        }
        let mut put = self.inner.put_opts(location, payload, opts).await?;
        put.version = put.e_tag.clone();
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(location, options).await;
        self.passes(Asked::Get, location).await?;
        let mut got = got?;
        got.meta.version = got.meta.e_tag.clone();
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let guarded = self.clone();
        let passed = locations.then(move |at| {
            let guarded = guarded.clone();
            async move {
                let at = at?;
                guarded.passes(Asked::Delete, &at).await.map(|()| at)
            }
        });
        self.inner.delete_stream(passed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let at = prefix.cloned().unwrap_or_default();
        let listed = self.inner.list(prefix);
        match self.fate(Asked::List, at.as_ref()) {
            Fate::Refused => stream::iter([Err(refused(&at))]).boxed(),
            Fate::Slow(pause) => {
                let slowly = listed.then(move |meta| async move {
                    tokio::time::sleep(pause).await;
                    meta
                });
                slowly.boxed()
            }
            Fate::Passes | Fate::Waits(_) => listed,
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
