//! Volumes and their lifetimes, on the back ends that hold them.
//!
//! ```text
//!   host-agent ─▶ VolumeStore, LiveVolumes (contracts) ◀─┬ file    (a directory of images)
//!                 Metered, Faulty (wrappers)             ├ lvm     (a group of logical volumes)
//!                                                        └ object  (objects, through an exporter)
//! ```
//!
//! This crate knows no libvirt, no gRPC, no database and no policy: who asks has already decided.
//! The feature `conformance` adds the suite that every back end passes, and a store that fails as
//! told.

mod allocation;
mod calls;
mod condemned;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(feature = "conformance")]
pub mod faulty;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod image;
mod lvm;
mod making;
mod metered;
mod nbd;
mod object;
mod profile;
mod program;
mod qemu_img;
mod store;
mod together;
mod turn;
mod volume;

pub use allocation::{ClusterBytes, Content, Extent, Share, Survey, shares, survey};
pub use error::StorageError;
pub use file::FileStore;
pub use image::{ImageHead, ImageLock, is_written};
pub use lvm::{LvmConfig, LvmStore};
pub use metered::{Call, Meter, Metered};
pub use nbd::{InvalidNbdUri, NbdAddress, NbdServer};
pub use object::{Exporter, ExporterPlace, ObjectVolumes};
pub use profile::Profile;
pub use store::{
    Capabilities, Dependent, LiveVolumes, Removal, RemovalOrder, RemovalState, Space, VolumeStore,
};
pub use volume::{
    Format, Identity, InvalidName, Locator, NewVolume, Parent, RemovalId, StorageId,
    USUAL_CLUSTER_BYTES, VolumeInfo, VolumeName, VolumeRef,
};
