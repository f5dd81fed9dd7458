//! A volume group of LVM, each volume a logical volume that holds a qcow2 image.
//!
//! ```text
//!   VG/NAME                    volumes: they have the tag `livemerge`
//!   VG/livemerge.new.ID        being made
//!   VG/livemerge.removed.ID    condemned; its tags are the removal as it was ordered
//! ```
//!
//! - What a name and the tags say is all there is: a group can be read on any host, without a
//!   database. Whatever lacks the tag is foreign: never listed as a volume, never touched.
//! - A volume's identity is the logical volume's UUID.
//! - What a volume is built on its header says; the tag `livemerge.parent` counts only while it is
//!   being made. A header is read where it lies on the physical volumes, so that nothing has to be
//!   activated for a look.
//! - A volume starts with one chunk of room and is given more as it fills ([`crate::VolumeStore::provide`]).
//! - Whether somebody has a volume open the open count of its device says, whatever node it was opened
//!   by. Image locks add nothing: who holds one has the device open.
//! - Every call of LVM names the group, and sees no devices but those that are configured.

mod activation;
mod as_seen;
#[cfg(test)]
mod as_seen_tests;
mod batch;
mod command;
mod condemn;
mod content;
mod create;
mod device;
mod domain;
mod empty;
mod family;
#[cfg(test)]
mod family_tests;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gate;
#[cfg(test)]
mod gate_tests;
mod kept;
mod name;
mod needed;
mod removal;
#[cfg(test)]
mod removal_tests;
mod report;
mod room;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod shared_tests;
mod tag;
mod turn;
mod volumes;

pub use domain::LvmConfig;
pub use volumes::LvmStore;
