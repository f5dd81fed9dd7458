//! Values that are made of files, and made anew when the files change.
//!
//! The files are read, not asked for their times: a rotation may keep the times, and Kubernetes
//! swaps a directory below them. Files that cannot be used (read between two halves of a rotation,
//! say) change nothing: the value in use stays, the log says so for as long as that lasts, and the
//! next look tries again.

use sha2::{Digest as _, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often files are looked at. They are few and small.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// How often it is said of the same files that they are not usable.
const COMPLAIN: Duration = Duration::from_secs(60);

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

/// Files that can be looked at, whatever is made of them.
pub(crate) trait Watched: Send + Sync {
    /// Reads the files, and makes the value anew if they have changed; whether it did. It may block.
    /// `asked` by somebody who wants to be told again what is wrong.
    fn look(&self, asked: bool) -> bool;
}

/// A value made of files.
pub(crate) struct OfFiles<T> {
    paths: Vec<PathBuf>,
    make: Box<Make<T>>,
    held: Mutex<Held<T>>,
    /// Held throughout a look: of two readings the later one stays.
    looks: Mutex<Looks>,
}

struct Held<T> {
    value: Arc<T>,
    digest: [u8; 32],
}

struct Looks {
    last: Instant,
    complaint: Option<(String, Instant)>,
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
        };
        Ok(OfFiles {
            paths,
            make: Box::new(make),
            held: Mutex::new(held),
            looks: Mutex::new(Looks {
                last: Instant::now(),
                complaint: None,
            }),
        })
    }

    /// The value in use.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.held().value)
    }

    /// Looks, unless somebody has a moment ago, and gives the value in use. It may block.
    pub(crate) fn fresh(&self) -> Arc<T> {
        let mut looks = self.looks();
        if looks.last.elapsed() >= LOOK {
            self.look_in_turn(&mut looks, false);
        }
        drop(looks);
        self.get()
    }

    fn look_in_turn(&self, looks: &mut Looks, asked: bool) -> bool {
        looks.last = Instant::now();
        match self.renewed() {
            Ok(None) => {
                looks.complaint = None;
                false
            }
            Ok(Some(renewed)) => {
                *self.held() = renewed;
                tracing::info!(files = ?self.paths, "changed files are in use");
                looks.complaint = None;
                true
            }
            Err(error) => {
                self.complain(looks, whole(&error), asked);
                false
            }
        }
    }

    fn complain(&self, looks: &mut Looks, problem: String, asked: bool) {
        let told = looks.complaint.as_ref();
        let told = told.is_some_and(|(told, at)| *told == problem && at.elapsed() < COMPLAIN);
        if asked || !told {
            tracing::error!(
                files = ?self.paths,
                error = problem,
                "changed files are not usable, those before stay in use"
            );
            looks.complaint = Some((problem, Instant::now()));
        }
    }

    fn renewed(&self) -> Result<Option<Held<T>>, SecurityFileError> {
        let contents = read_all(&self.paths)?;
        let digest = digest(&contents);
        if digest == self.held().digest {
            return Ok(None);
        }
        let value = Arc::new((self.make)(&contents)?);
        Ok(Some(Held { value, digest }))
    }

    fn held(&self) -> MutexGuard<'_, Held<T>> {
        // Every change of it is whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + Sync> Watched for OfFiles<T> {
    fn look(&self, asked: bool) -> bool {
        self.look_in_turn(&mut self.looks(), asked)
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
        value.look(false);
        assert!(Arc::ptr_eq(&first, &value.get()), "nothing has changed");
        std::fs::write(&path, "2").unwrap();
        value.look(false);
        assert_eq!(*value.get(), 2);
        std::fs::write(&path, "x").unwrap();
        value.look(false);
        std::fs::remove_file(&path).unwrap();
        value.look(false);
        assert_eq!(*value.get(), 2);
        std::fs::write(&path, "3").unwrap();
        value.look(false);
        assert_eq!(*value.get(), 3);
    }
}
