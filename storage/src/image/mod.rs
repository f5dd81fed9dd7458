//! Images as QEMU lays them out, whichever back end holds them: the header, what it is built on, what
//! lies where, and who has one open.

pub(crate) mod backing;
pub(crate) mod bitmaps;
mod head;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod qcow2;

pub use head::{ImageHead, ImageLock, is_written};
