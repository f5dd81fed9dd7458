//! A directory as an object store, with the one thing that `object_store` lacks there: a put on the
//! condition that the object is still the one that was read.
//!
//! Every put of this kind holds a lock on a file of the directory meanwhile, so that two processes
//! of one host agree. What was put or deleted is durable: files and directories are synced.

use super::blocks::BULK;
use crate::StorageError;
use crate::error::io_error;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UpdateVersion,
};
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

/// No object has such a key: a number behind a hash sign marks unfinished files.
const LOCK: &str = ".lock#1";

/// A directory that holds objects.
#[derive(Debug)]
pub(super) struct Directory {
    files: LocalFileSystem,
    lock: PathBuf,
}

impl Directory {
    /// Of a directory that exists.
    ///
    /// # Errors
    /// When it does not, or is none.
    pub(super) fn open(root: &std::path::Path) -> std::result::Result<Self, StorageError> {
        let at = root.display().to_string();
        let root = root.canonicalize().map_err(io_error(&at))?;
        if !root.is_dir() {
            return Err(StorageError::Invalid(format!("{at} is no directory")));
        }
        let files = LocalFileSystem::new_with_prefix(&root);
        let files = files.map_err(|error| StorageError::Invalid(format!("{at}: {error}")))?;
        Ok(Self {
            files: files.with_fsync(true).with_automatic_cleanup(true),
            lock: root.join(LOCK),
        })
    }

    /// Taken off the async threads: another process may hold it for the time of a write.
    async fn locked(&self) -> Result<File> {
        let path = self.lock.clone();
        let locked = tokio::task::spawn_blocking(move || {
            let mut options = OpenOptions::new();
            let file = options
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            file.lock()?;
            Ok::<_, io::Error>(file)
        });
        locked.await?.map_err(failed)
    }

    async fn update(
        &self,
        at: &Path,
        payload: PutPayload,
        read: UpdateVersion,
        options: PutOptions,
    ) -> Result<PutResult> {
        let _until_it_is_put = self.locked().await?;
        if self.files.head(at).await?.e_tag != read.e_tag {
            return Err(Error::Precondition {
                path: at.to_string(),
                source: "it has changed".into(),
            });
        }
        let options = PutOptions {
            mode: PutMode::Overwrite,
            ..options
        };
        self.files.put_opts(at, payload, options).await
    }
}

/// Makes durable that files are gone: their directories, or what is left above those.
fn sync(files: &LocalFileSystem, gone: &[Result<Path>]) -> Result<()> {
    let mut above = BTreeSet::new();
    for path in gone.iter().flatten() {
        let mut path = files.path_to_filesystem(path)?;
        path.pop();
        above.insert(path);
    }
    for mut directory in above {
        let synced = loop {
            match File::open(&directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && directory.pop() => {}
                opened => break opened.and_then(|directory| directory.sync_all()),
            }
        };
        synced.map_err(failed)?;
    }
    Ok(())
}

fn failed(source: io::Error) -> Error {
    Error::Generic {
        store: "directory",
        source: Box::new(source),
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        match std::mem::take(&mut opts.mode) {
            PutMode::Update(read) => self.update(location, payload, read, opts).await,
            mode => {
                opts.mode = mode;
                self.files.put_opts(location, payload, opts).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.files.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let files = self.files.clone();
        let deleted = self.files.delete_stream(locations).chunks(BULK);
        let synced = deleted.then(move |mut answers| {
            let files = files.clone();
            let synced = tokio::task::spawn_blocking(move || {
                if let Err(error) = sync(&files, &answers) {
                    let text = error.to_string();
                    for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                        *answer = Err(failed(io::Error::other(text.clone())));
                    }
                }
                answers
            });
            async { synced.await.unwrap_or_else(|died| vec![Err(died.into())]) }
        });
        synced.flat_map(stream::iter).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;

    #[tokio::test]
    async fn only_what_was_read_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Directory::open(dir.path()).unwrap();
        let at = Path::from("a");
        let put = |mode| store.put_opts(&at, PutPayload::from("x"), PutOptions::from(mode));
        let first = put(PutMode::Create).await.unwrap();
        let read = UpdateVersion::from(first);
        let second = put(PutMode::Update(read.clone())).await.unwrap();
        let late = put(PutMode::Update(read)).await;
        assert!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
        put(PutMode::Update(second.into())).await.unwrap();
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1, "the lock is no object");
    }
}
