//! The storage domains of a host, each with what its kind needs.
//!
//! ```text
//!   [storage.default]              the domain's id: all hosts call one domain by one id
//!   kind = "file"
//!   path = "/var/lib/livemerge/images"
//!   removal = { keep_seconds = 86400, wipe = true }
//!
//!   [storage.bucket]
//!   kind = "object"
//!   url = "s3://bucket/prefix"     credentials: from the environment, AWS_ACCESS_KEY_ID and so on
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
    /// An object store.
    Object(ObjectConfig),
}

impl StorageConfig {
    /// How its volumes are removed.
    pub fn removal(&self) -> RemovalPolicy {
        match self {
            Self::File(file) => file.removal.policy(),
            Self::Object(object) => object.removal.policy(),
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

/// Objects of one size, which machines use through an exporter on their host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectConfig {
    /// Where: `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `file:///DIRECTORY`. It holds no credentials.
    pub url: String,
    /// The directory of the exporter's socket. Images name the socket, so all hosts that see the domain
    /// have it at the same path. Without it: `export/DOMAIN` in the agent's directory.
    #[serde(default)]
    pub socket_dir: Option<PathBuf>,
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
