//! A directory of image files, on a file system that reports when a file was born.
//!
//! ```text
//!   <root>/NAME.qcow2                      volumes; `.raw` and `.img` too
//!   <root>/.livemerge/new/…                being created
//!   <root>/.livemerge/removals/ID/order    a removal, written before its volume is condemned
//!   <root>/.livemerge/removals/ID/volume   the condemned volume
//!   <root>/.livemerge/*.lock               whose turn it is
//! ```
//!
//! - A name is one path component; no symlink is ever followed, so nothing leaves the root.
//! - A volume's identity is its inode and birth time: the device's number changes over reboots. A
//!   file system that reports no birth time is refused when the domain is opened: most of NFS.
//! - Whatever else lies in the directory is foreign: never listed as a volume, never touched.
//! - `.qcow2` without qcow2's magic is corrupt, `.raw` is always opened as raw, and `.img` is what
//!   its first bytes say: a guest that has a raw `.img` could write them, so a raw base is best
//!   `.raw`. Only who asks what may need a volume takes a header within a `.raw` at its word.

mod allocation;
mod backing;
mod bitmaps;
mod calls;
mod create;
mod domain;
mod gate;
mod head;
mod image;
mod lock;
mod making;
mod order;
mod qcow2;
mod qemu_img;
mod removal;
mod rename;
mod turn;
mod volumes;

pub use head::{ImageHead, ImageLock, is_written};
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

/// Runs file system work off the async threads, before there is a domain.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|died| Err(lost(died)))
}

/// Goes on to its end when the caller leaves.
async fn in_own_task<T: Send + 'static>(
    work: impl Future<Output = Result<T, StorageError>> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::spawn(work)
        .await
        .unwrap_or_else(|died| Err(lost(died)))
}

fn lost(died: tokio::task::JoinError) -> StorageError {
    let what = "the file system's worker".to_owned();
    StorageError::Unreachable {
        what,
        source: io::Error::other(died),
    }
}
