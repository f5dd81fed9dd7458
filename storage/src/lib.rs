//! Volumes and their lifetimes.

mod volume;

pub use volume::*;
