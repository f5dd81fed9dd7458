//! Volumes on an object store: S3 and what speaks like it, Google Cloud Storage, Azure, a directory.
//!
//! ```text
//!   names ─▶ uuid ─▶ manifest, lease, blocks          (keys.rs says what lies where)
//!
//!   VolumeStore  volumes ─▶ create, image, gate, removal ─▶ purge
//!   LiveVolumes  keeper ─▶ exporter ─▶ nbd ─▶ open ─▶ device ─▶ write_back ─▶ blocks
//!                                               └─ lease, marks, spill
//! ```
//!
//! - A volume is a qcow2 image on a device whose blocks are objects of one size; what reads zeros has
//!   no object. Its identity is a uuid that nobody guesses and that is never used again, so whatever
//!   comes late hits nothing else.
//! - QEMU opens it through the domain's exporter on its host, by an NBD URI.
//! - One process writes to a volume at a time, which its lease says; a completed flush is durable.
//! - Every put that decides something is made on a condition; a store that does not keep those is
//!   refused when the domain is opened.
//! - Only keys of our own shape are ever deleted.

mod blocks;
mod bucket;
mod create;
mod device;
#[cfg(test)]
mod device_tests;
mod domain;
mod exporter;
mod failure;
mod foreign;
mod gate;
#[cfg(test)]
mod guarded;
mod image;
mod keeper;
mod kept;
mod keys;
mod lease;
mod listing;
mod local;
mod marks;
mod names;
pub(crate) mod nbd;
mod open;
#[cfg(test)]
mod open_tests;
mod orphans;
#[cfg(test)]
mod orphans_tests;
mod pace;
#[cfg(test)]
mod power_tests;
mod purge;
mod records;
mod removal;
#[cfg(test)]
mod removal_tests;
mod slots;
mod spill;
mod volumes;
mod write_back;

pub use exporter::Exporter;
pub use keeper::ExporterPlace;
pub use volumes::ObjectVolumes;
