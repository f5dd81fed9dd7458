//! Why storage did not do what it was asked, by what the caller does next.

use std::io;

/// The error of every storage back end.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Certainly not there.
    #[error("{what} does not exist")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// Something still needs it: nothing was done.
    #[error("{what} is in use by {by}")]
    InUse {
        /// What was to be changed.
        what: String,
        /// Who needs it.
        by: String,
    },
    /// The domain is full.
    #[error("no space: {needed} bytes are needed, {free} are free")]
    NoSpace {
        /// Bytes needed; 0 when not known.
        needed: u64,
        /// Bytes free; 0 when not known.
        free: u64,
    },
    /// Something else works on it: try again.
    #[error("{what} is busy")]
    Busy {
        /// What is busy.
        what: String,
    },
    /// Too late: its time is over, or it is being freed.
    #[error("{what} keeps its volume no longer")]
    NotKept {
        /// What was to be brought back.
        what: String,
    },
    /// The storage did not answer, or what it said cannot be told: try again, assume nothing.
    #[error("{what} cannot be reached")]
    Unreachable {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Not allowed: an operator has to act.
    #[error("{what} is not permitted")]
    Denied {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// What is stored is not what it should be: look at it, change nothing.
    #[error("{what} is corrupt: {why}")]
    Corrupt {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The request makes no sense here.
    #[error("{0}")]
    Invalid(String),
}

impl StorageError {
    /// Whether the same call may succeed later without anybody acting.
    pub fn worth_a_retry(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. } | Self::Unreachable { .. } | Self::InUse { .. }
        )
    }
}

impl StorageError {
    /// The same once more, for another caller that the one cause has failed.
    pub(crate) fn again(&self) -> Self {
        let copy = |source: &io::Error| io::Error::new(source.kind(), source.to_string());
        match self {
            Self::NotFound { what } => Self::NotFound { what: what.clone() },
            Self::InUse { what, by } => Self::InUse {
                what: what.clone(),
                by: by.clone(),
            },
            Self::NoSpace { needed, free } => Self::NoSpace {
                needed: *needed,
                free: *free,
            },
            Self::Busy { what } => Self::Busy { what: what.clone() },
            Self::NotKept { what } => Self::NotKept { what: what.clone() },
            Self::Unreachable { what, source } => Self::Unreachable {
                what: what.clone(),
                source: copy(source),
            },
            Self::Denied { what, source } => Self::Denied {
                what: what.clone(),
                source: copy(source),
            },
            Self::Corrupt { what, why } => Self::Corrupt {
                what: what.clone(),
                why: why.clone(),
            },
            Self::Invalid(text) => Self::Invalid(text.clone()),
        }
    }
}

/// An I/O error by what the caller does next.
pub(crate) fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> StorageError {
    let what = what.to_string();
    move |source| match source.kind() {
        io::ErrorKind::NotFound => StorageError::NotFound { what },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StorageError::Denied { what, source }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StorageError::NoSpace { needed: 0, free: 0 }
        }
        _ => StorageError::Unreachable { what, source },
    }
}
