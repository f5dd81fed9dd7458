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

mod create;
mod domain;
mod gate;
mod image;
mod purge;
mod removal;
mod removals;
mod rename;
mod volumes;
mod wipe;

pub use volumes::FileStore;
