//! The storage domains of a host, each with what its kind needs.
//!
//! ```text
//!   [storage.default]              the domain's id: all hosts call one domain by one id
//!   kind = "file"
//!   path = "/var/lib/livemerge/images"
//!   removal = { keep_seconds = 86400, wipe = true }
//! ```

use crate::domains::RemovalPolicy;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// One storage domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StorageConfig {
    /// A directory of image files.
    File(FileConfig),
}

impl StorageConfig {
    /// How its volumes are removed.
    pub fn removal(&self) -> RemovalPolicy {
        match self {
            Self::File(file) => file.removal.policy(),
        }
    }
}

/// A directory of image files, on a file system that reports birth times.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The directory, an absolute path. It must exist.
    pub path: PathBuf,
    /// How its volumes are removed.
    #[serde(default)]
    pub removal: RemovalConfig,
}

/// How the volumes of a domain are removed once nothing needs them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemovalConfig {
    /// How long a removed volume can be brought back, in seconds. Its space is taken until then.
    pub keep_seconds: u64,
    /// Whether what it held is overwritten before its space is given back.
    pub wipe: bool,
    /// Whether the device below is told that the space is free; not for files.
    pub discard: bool,
}

impl RemovalConfig {
    fn policy(self) -> RemovalPolicy {
        RemovalPolicy {
            keep_for: Duration::from_secs(self.keep_seconds),
            wipe: self.wipe,
            discard: self.discard,
        }
    }
}
