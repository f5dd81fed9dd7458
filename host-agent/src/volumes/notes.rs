//! Of which trace a removal is a part that ends when nobody waits for it any more: of a kept volume, whose
//! time is over days later.
//!
//! ```text
//!   DIR/STORAGE/REMOVAL    a traceparent
//! ```
//! For people alone: what cannot be written or read is left out, and then that end is a trace of its own.

use livemerge_runtime::TraceContext;
use livemerge_storage::{RemovalId, StorageId};
use std::fs;
use std::path::{Path, PathBuf};

/// Notes in a directory, if there is one.
#[derive(Debug, Default)]
pub(super) struct Notes(Option<PathBuf>);

impl Notes {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self(Some(dir.to_owned()))
    }

    /// The removal is a part of what this task works in.
    pub(super) fn add(&self, storage: &StorageId, removal: RemovalId) {
        let (Some(dir), Some(context)) = (self.of_domain(storage), TraceContext::current()) else {
            return;
        };
        let note = dir.join(removal.to_string());
        let written = fs::create_dir_all(dir).and_then(|()| fs::write(note, context.to_string()));
        if let Err(error) = written {
            tracing::debug!(%error, %removal, "its trace is not noted");
        }
    }

    /// Where it belongs.
    pub(super) fn of(&self, storage: &StorageId, removal: RemovalId) -> Option<TraceContext> {
        let note = self.of_domain(storage)?.join(removal.to_string());
        fs::read_to_string(note).ok()?.parse().ok()
    }

    /// The removals of a domain of which one is noted.
    pub(super) fn all(&self, storage: &StorageId) -> Vec<RemovalId> {
        let dir = self.of_domain(storage);
        let entries = dir.and_then(|dir| fs::read_dir(dir).ok());
        let name = |entry: fs::DirEntry| entry.file_name().into_string().ok()?.parse().ok();
        let entries = entries.into_iter().flatten().flatten();
        entries.filter_map(name).collect()
    }

    pub(super) fn forget(&self, storage: &StorageId, removal: RemovalId) {
        if let Some(dir) = self.of_domain(storage) {
            // It is tried again at the next look.
            let _ = fs::remove_file(dir.join(removal.to_string()));
        }
    }

    fn of_domain(&self, storage: &StorageId) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(storage.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemerge_runtime::trace::scope;
    use uuid::Uuid;

    #[tokio::test]
    async fn a_note_is_there_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::in_dir(&dir.path().join("removals"));
        let storage = "default".parse().unwrap();
        let removal = RemovalId::from(Uuid::from_u128(7));
        notes.add(&storage, removal);
        assert_eq!(notes.of(&storage, removal), None, "there is no trace");

        let context = TraceContext::root();
        scope(Some(context), async { notes.add(&storage, removal) }).await;
        let later = Notes::in_dir(&dir.path().join("removals"));
        assert_eq!(later.of(&storage, removal), Some(context));
        assert_eq!(later.all(&storage), [removal]);
        later.forget(&storage, removal);
        assert_eq!(later.of(&storage, removal), None);
        assert!(later.all(&storage).is_empty());
    }
}
