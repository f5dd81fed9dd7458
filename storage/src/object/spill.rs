//! What was written and is not in the store yet, on this host: in a file a block, so that it outlives
//! the process.
//!
//! ```text
//!   write ─▶ slot ─▶ <dir>/unflushed/<uuid>/<block>      before the client is answered
//!   put   ─▶ object ─▶ file removed
//!   killed ─▶ the next exporter puts what is left, before anybody reads
//! ```
//!
//! A client that connects again knows nothing of the exporter's death: it takes for written what was
//! answered, and its next flush would be answered without it. The files are not synced: a host that
//! loses its power ends the clients, too, and nothing unflushed is owed to them.
//!
//! They belong to one lease, and to one start of the host. Was the volume written elsewhere since, they
//! are worth nothing. Nor are they after the host's next start: which of them a loss of power leaves, and
//! how old, nobody knows.

use crate::StorageError;
use crate::error::io_error;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use uuid::Uuid;

/// The file that names the lease, and the start of the host.
const HOLDER: &str = "holder";
/// Marks a block that reads zeros.
const GONE: &str = "gone";
/// Another number each time that the host starts.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The files of one volume.
#[derive(Debug, Clone)]
pub(super) struct Spill {
    dir: PathBuf,
}

/// What is left of a process that was killed.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) holder: Uuid,
    /// The blocks; `None` for one that reads zeros.
    pub(super) blocks: Vec<(u64, Option<Vec<u8>>)>,
}

impl Spill {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Begins anew, under a lease.
    pub(super) async fn begin(&self, holder: Uuid) -> Result<(), StorageError> {
        self.clear().await?;
        self.with(move |spill| {
            fs::create_dir_all(&spill.dir)?;
            // Whole, or not there.
            let new = spill.dir.join(HOLDER).with_extension("new");
            fs::write(&new, format!("{holder}\n{}", fs::read_to_string(BOOT)?))?;
            fs::rename(new, spill.dir.join(HOLDER))
        })
        .await
    }

    /// Nothing is left.
    pub(super) async fn clear(&self) -> Result<(), StorageError> {
        self.with(|spill| match fs::remove_dir_all(&spill.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// Bytes of a block, from `at` on: all of it, or what has changed in one that is here already. What
    /// was there is overwritten in its place, so that a kill leaves each byte as it was or as it became.
    pub(super) async fn keep(
        &self,
        block: u64,
        at: usize,
        bytes: Vec<u8>,
    ) -> Result<(), StorageError> {
        self.with(move |spill| {
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(false).write(true);
            let file = options.open(spill.file(block))?;
            file.write_all_at(&bytes, at as u64)?;
            remove(spill.gone_file(block))
        })
        .await
    }

    /// A block reads zeros.
    pub(super) async fn gone(&self, block: u64) -> Result<(), StorageError> {
        self.with(move |spill| {
            fs::write(spill.gone_file(block), "")?;
            remove(spill.file(block))
        })
        .await
    }

    /// The store has a block as it is.
    pub(super) async fn forget(&self, block: u64) -> Result<(), StorageError> {
        self.with(move |spill| {
            remove(spill.file(block))?;
            remove(spill.gone_file(block))
        })
        .await
    }

    /// What an earlier process has left; `None` when that is nothing. A block that is not whole was
    /// never answered for.
    pub(super) async fn left(&self, block_bytes: u64) -> Result<Option<Left>, StorageError> {
        self.with(move |spill| {
            let text = match fs::read(spill.dir.join(HOLDER)) {
                Ok(text) => String::from_utf8_lossy(&text).into_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let Some(holder) = holder(&text, &fs::read_to_string(BOOT)?) else {
                tracing::warn!(dir = %spill.dir.display(), "what was not flushed is of another start of this host, and worth nothing");
                return Ok(None);
            };
            let mut blocks = Vec::new();
            for entry in fs::read_dir(&spill.dir)? {
                let path = entry?.path();
                let name = path.file_stem().and_then(|name| name.to_str());
                let block = name.and_then(|name| u64::from_str_radix(name, 16).ok());
                let Some(block) = block else { continue };
                if path.extension().is_some_and(|suffix| suffix == GONE) {
                    blocks.push((block, None));
                } else {
                    let bytes = fs::read(&path)?;
                    let whole = bytes.len() as u64 == block_bytes;
                    blocks.extend(whole.then_some((block, Some(bytes))));
                }
            }
            // Of one that has both, the change from one to the other was never answered for.
            blocks.sort();
            blocks.dedup_by_key(|(block, _)| *block);
            Ok(Some(Left { holder, blocks }))
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let spill = self.clone();
        let what = self.dir.display().to_string();
        let done = tokio::task::spawn_blocking(move || work(&spill)).await;
        done.unwrap_or_else(|died| Err(io::Error::other(died)))
            .map_err(io_error(what))
    }

    fn file(&self, block: u64) -> PathBuf {
        self.dir.join(format!("{block:016x}"))
    }

    fn gone_file(&self, block: u64) -> PathBuf {
        self.file(block).with_extension(GONE)
    }
}

/// The lease that the files belong to, if they are of this start of the host. A file that is damaged is
/// of another one: within one it is there before any block.
fn holder(text: &str, boot: &str) -> Option<Uuid> {
    let (holder, of) = text.split_once('\n')?;
    Uuid::try_parse(holder).ok().filter(|_| of == boot)
}

fn remove(path: PathBuf) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_forgotten_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::new(dir.path().join("v"));
        assert!(spill.left(4).await.unwrap().is_none());
        let holder = Uuid::new_v4();
        spill.begin(holder).await.unwrap();
        for block in 0..4 {
            spill.keep(block, 0, vec![1; 4]).await.unwrap();
        }
        spill.keep(0, 0, vec![2; 4]).await.unwrap();
        spill.keep(0, 1, vec![5; 2]).await.unwrap();
        spill.forget(1).await.unwrap();
        spill.gone(2).await.unwrap();
        spill.gone(3).await.unwrap();
        spill.keep(3, 0, vec![3; 4]).await.unwrap();
        spill.keep(9, 0, vec![9; 3]).await.unwrap();
        let left = spill.left(4).await.unwrap().unwrap();
        assert_eq!(left.holder, holder);
        let expected = [
            (0, Some(vec![2, 5, 5, 2])),
            (2, None),
            (3, Some(vec![3; 4])),
        ];
        assert_eq!(left.blocks, expected);
        spill.clear().await.unwrap();
        assert!(spill.left(4).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn nothing_is_left_of_another_start_of_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::new(dir.path().join("v"));
        let at = spill.dir.join(HOLDER);
        let holder = Uuid::new_v4();
        for damaged in [
            format!("{holder}\n{}\n", Uuid::new_v4()),
            format!("{holder}"),
            String::new(),
        ] {
            spill.begin(holder).await.unwrap();
            spill.keep(0, 0, vec![1; 4]).await.unwrap();
            assert!(spill.left(4).await.unwrap().is_some());
            fs::write(&at, &damaged).unwrap();
            assert!(spill.left(4).await.unwrap().is_none(), "{damaged:?}");
        }
        fs::write(&at, [0xff, 0xfe]).unwrap();
        assert!(spill.left(4).await.unwrap().is_none());
    }
}
