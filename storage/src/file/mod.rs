//! A directory of image files, local or NFS.
//!
//! ```text
//!   <root>/NAME.qcow2                      volumes; `.raw` and `.img` too
//!   <root>/.livemerge/new/…                being created
//!   <root>/.livemerge/removals/ID/order    a removal, written before its volume is condemned
//!   <root>/.livemerge/removals/ID/volume   the condemned volume
//! ```
//!
//! - A name is one path component; no symlink is ever followed, so nothing leaves the root.
//! - A volume's identity is its inode and birth time: the device's number changes over reboots.
//! - Whatever else lies in the directory is foreign: never listed as a volume, never touched.
//! - A file without qcow2's magic is raw. A raw volume whose guest wrote that magic to its first
//!   sector would be misread: that is why only a base should be raw, and its suffix `.raw`.

mod image;
mod lock;
mod qcow2;
mod removal;
mod volumes;

pub use volumes::FileStore;

use crate::StorageError;
use std::io;

/// An I/O error by what the caller does next.
fn io_error(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> StorageError {
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

/// Runs file system work off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|died| {
        let source = io::Error::other(died);
        Err(StorageError::Unreachable { what: "the file system's worker".to_owned(), source })
    })
}
