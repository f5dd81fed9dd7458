//! Objects that somebody may write to, until that is taken from him.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The same objects by two users.
#[derive(Debug)]
pub(crate) struct Revocable {
    writer: Arc<dyn ObjectStore>,
    reader: Arc<dyn ObjectStore>,
    state: AtomicU8,
}

const GRANTED: u8 = 0;
const NO_DELETIONS: u8 = 1;
const REVOKED: u8 = 2;

impl Revocable {
    pub(crate) fn new(writer: Arc<dyn ObjectStore>, reader: Arc<dyn ObjectStore>) -> Self {
        Self {
            writer,
            reader,
            state: AtomicU8::new(GRANTED),
        }
    }

    pub(crate) fn grant(&self) {
        self.state.store(GRANTED, Ordering::SeqCst);
    }

    pub(crate) fn revoke_deletions(&self) {
        self.state.store(NO_DELETIONS, Ordering::SeqCst);
    }

    pub(crate) fn revoke(&self) {
        self.state.store(REVOKED, Ordering::SeqCst);
    }

    fn user(&self, least: u8) -> &Arc<dyn ObjectStore> {
        if self.state.load(Ordering::SeqCst) >= least {
            &self.reader
        } else {
            &self.writer
        }
    }
}

impl fmt::Display for Revocable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reader.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Revocable {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.user(REVOKED).put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.user(REVOKED).put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reader.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.user(NO_DELETIONS).delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reader.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reader.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.user(REVOKED).copy_opts(from, to, options).await
    }
}
