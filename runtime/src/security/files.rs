//! Values that are made of files, and made anew when the files change.
//!
//! The files are read, not asked for their times: a rotation may keep the times, and Kubernetes
//! swaps a directory below them. Files that cannot be used (read between two halves of a rotation,
//! say) change nothing: the value in use stays, the log says so once, and the next look tries again.

use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file of certificates, keys or tokens that cannot be used. No text of a file is part of it.
#[derive(Debug, thiserror::Error)]
pub enum SecurityFileError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it could not be read.
        #[source]
        source: io::Error,
    },
    /// Its content is not what it should be.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl SecurityFileError {
    pub(crate) fn content(path: &Path, problem: impl Into<String>) -> Self {
        SecurityFileError::Content {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

type Make<T> = dyn Fn(&[Vec<u8>]) -> Result<T, SecurityFileError> + Send + Sync;

/// A value made of files.
pub(crate) struct OfFiles<T> {
    paths: Vec<PathBuf>,
    make: Box<Make<T>>,
    held: Mutex<Held<T>>,
}

struct Held<T> {
    value: Arc<T>,
    digest: [u8; 32],
    complaint: Option<String>,
}

impl<T> OfFiles<T> {
    /// Makes the value for the first time; `make` gets the contents in the order of the paths.
    pub(crate) fn open(
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> Result<T, SecurityFileError> + Send + Sync + 'static,
    ) -> Result<Self, SecurityFileError> {
        let contents = read_all(&paths)?;
        let held = Held {
            value: Arc::new(make(&contents)?),
            digest: digest(&contents),
            complaint: None,
        };
        Ok(OfFiles {
            paths,
            make: Box::new(make),
            held: Mutex::new(held),
        })
    }

    /// The value in use.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.held().value)
    }

    /// Reads the files, and makes the value anew if they have changed. It may block.
    pub(crate) fn look(&self) {
        let complaint = match self.renewed() {
            Ok(None) => None,
            Ok(Some((value, digest))) => {
                let mut held = self.held();
                held.value = Arc::new(value);
                held.digest = digest;
                drop(held);
                tracing::info!(files = ?self.paths, "changed files are in use");
                None
            }
            Err(error) => Some(whole(&error)),
        };
        let mut held = self.held();
        if complaint != held.complaint {
            if let Some(error) = &complaint {
                tracing::warn!(
                    error,
                    "changed files are not usable, those before stay in use"
                );
            }
            held.complaint = complaint;
        }
    }

    fn renewed(&self) -> Result<Option<(T, [u8; 32])>, SecurityFileError> {
        let contents = read_all(&self.paths)?;
        let digest = digest(&contents);
        if digest == self.held().digest {
            return Ok(None);
        }
        Ok(Some(((self.make)(&contents)?, digest)))
    }

    fn held(&self) -> MutexGuard<'_, Held<T>> {
        // Every change of it is whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> std::fmt::Debug for OfFiles<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OfFiles").field(&self.paths).finish()
    }
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, SecurityFileError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| SecurityFileError::Read {
            path: path.clone(),
            source,
        })
    };
    paths.iter().map(read).collect()
}

fn digest(contents: &[Vec<u8>]) -> [u8; 32] {
    let all = contents.iter().fold(Sha256::new(), |all, content| {
        all.chain_update(Sha256::digest(content))
    });
    all.finalize().into()
}

fn whole(error: &SecurityFileError) -> String {
    match error {
        SecurityFileError::Read { source, .. } => format!("{error}: {source}"),
        SecurityFileError::Content { .. } => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_its_file_and_outlives_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let number = |contents: &[Vec<u8>]| {
            let text = String::from_utf8_lossy(&contents[0]);
            text.parse::<u8>()
                .map_err(|_| SecurityFileError::content(Path::new("number"), "is no number"))
        };
        std::fs::write(&path, "x").unwrap();
        assert!(OfFiles::open(vec![path.clone()], number).is_err());
        std::fs::write(&path, "1").unwrap();
        let value = OfFiles::open(vec![path.clone()], number).unwrap();
        let first = value.get();
        value.look();
        assert!(Arc::ptr_eq(&first, &value.get()), "nothing has changed");
        std::fs::write(&path, "2").unwrap();
        value.look();
        assert_eq!(*value.get(), 2);
        std::fs::write(&path, "x").unwrap();
        value.look();
        std::fs::remove_file(&path).unwrap();
        value.look();
        assert_eq!(*value.get(), 2);
        std::fs::write(&path, "3").unwrap();
        value.look();
        assert_eq!(*value.get(), 3);
    }
}
