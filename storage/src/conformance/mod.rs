//! What every storage back end must do, as checks that run against the real thing.
//!
//! ```text
//!   back end's test ─▶ run(store, fixture) ─▶ volume, removal, live: one function a clause
//! ```
//!
//! The checks know no file, device or object: what only a back end can do (open a volume as a
//! machine does, write to it) its [`Fixture`] does. Each check uses names of its own, so that one
//! domain serves all of them, one after the other; nothing else may work on it meanwhile.
//!
//! It asserts, as tests do: a check that fails panics, and [`run`] names it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "these are tests, for other crates' tests"
)]

mod allocation;
mod live;
pub mod proxy;
mod removal;
pub mod s3;
mod together;
mod volume;

pub use allocation::*;
pub use live::*;
pub use removal::*;
pub use together::*;
pub use volume::*;

use crate::{
    LiveVolumes, NewVolume, Parent, RemovalId, RemovalOrder, StorageError, VolumeInfo, VolumeName,
    VolumeStore,
};
use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt as _};
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What the checks need of a back end beside its contract.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A name that this back end accepts for a volume, with the label in it.
    fn name(&self, label: &str) -> VolumeName {
        label.parse().expect("a label is a name")
    }

    /// How many volumes are many: enough that a listing has several pieces.
    fn many(&self) -> usize {
        12
    }

    /// Opens an activated volume, and what it is built on, as a running machine does: for writing,
    /// its parents for reading.
    async fn open(&self, volume: &VolumeInfo) -> Box<dyn Opened>;

    /// Writes the byte all over a range of a volume that nobody has open.
    async fn write(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8);

    /// Whether a reader finds nothing but the byte in a range, through the parents.
    async fn reads(&self, volume: &VolumeInfo, at: u64, bytes: u64, byte: u8) -> bool;
}

/// A volume that is open.
#[async_trait]
pub trait Opened: Send {
    /// Returns when it is not open any more.
    async fn close(self: Box<Self>);
}

/// A size that every back end can hold, and that takes no time.
pub const SIZE: u64 = 8 << 20;

type Check = for<'a> fn(&'a dyn LiveVolumes, &'a dyn Fixture) -> BoxFuture<'a, ()>;

macro_rules! checks {
    ($($name:ident),* $(,)?) => {
        /// All checks by name.
        const CHECKS: &[(&str, Check)] = &[$((stringify!($name), |store, fixture| $name(store, fixture).boxed())),*];
    };
}

checks![
    a_new_volume_is_as_ordered_and_reads_zeros,
    creating_again_returns_what_is_there,
    creating_another_volume_under_a_name_is_invalid,
    sizes_are_bounded,
    a_volume_is_built_on_a_volume_of_its_domain,
    what_was_never_there_is_not_found,
    the_list_is_complete,
    growing_grows_and_never_shrinks,
    an_overlay_names_its_parent,
    what_is_built_on_a_volume_is_told,
    what_a_reader_sees_of_each_volume_is_told,
    space_is_told,
    a_volume_has_the_room_it_is_given,
    no_volume_is_foreign,
    a_removed_volume_is_gone,
    removing_what_is_gone_is_success,
    a_removal_hits_the_identity_not_the_name,
    a_parent_is_not_removed,
    a_kept_overlay_holds_its_parent,
    a_kept_overlay_is_a_dependent,
    a_parent_is_kept_with_its_kept_overlay,
    going_on_spares_what_was_brought_back,
    a_kept_volume_is_listed_and_restored,
    a_removal_wipes_and_discards_what_it_can,
    a_volume_can_be_kept_for_ever,
    a_kept_volume_goes_when_its_time_is_over,
    restoring_needs_a_removal_and_a_free_name,
    a_removal_id_is_for_one_volume,
    removals_at_once_do_not_disturb_each_other,
    a_chain_is_removed_together,
    one_that_stays_holds_what_goes_with_it,
    an_activated_volume_resolves_to_itself,
    an_open_volume_is_in_use,
    an_open_overlay_uses_its_parent,
    a_call_that_nobody_waits_for_can_be_repeated,
];

/// The names of all checks, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// Runs all checks on a domain, to the end.
///
/// # Panics
/// With the names of the checks that failed, and why.
pub async fn run(store: &dyn LiveVolumes, fixture: &dyn Fixture) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let begun = Instant::now();
        let ended = AssertUnwindSafe(check(store, fixture)).catch_unwind().await;
        println!("{name}: {:.1?}", begun.elapsed());
        if let Err(why) = ended {
            failed.push(format!("{name}: {}", text(why.as_ref())));
        }
    }
    let count = format!("{} of {} checks failed", failed.len(), CHECKS.len());
    assert!(failed.is_empty(), "{count}\n{}", failed.join("\n"));
}

fn text(why: &(dyn Any + Send)) -> &str {
    let text = why.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| why.downcast_ref::<&str>().copied())
        .unwrap_or("no reason")
}

/// A base of the usual size.
async fn base(store: &dyn VolumeStore, name: &VolumeName) -> VolumeInfo {
    store
        .create(&NewVolume {
            name: name.clone(),
            virtual_bytes: SIZE,
            parent: None,
        })
        .await
        .unwrap()
}

/// An empty volume on top of another.
async fn overlay(store: &dyn VolumeStore, name: &VolumeName, below: &VolumeInfo) -> VolumeInfo {
    let new = NewVolume {
        name: name.clone(),
        virtual_bytes: below.virtual_bytes,
        parent: Some(on(below)),
    };
    store.create(&new).await.unwrap()
}

/// A volume as the parent of another.
fn on(below: &VolumeInfo) -> Parent {
    Parent {
        locator: below.locator.clone(),
        format: Some(below.format),
    }
}

fn order(volume: &VolumeInfo, keep_for: Duration) -> RemovalOrder {
    let (name, identity) = (volume.volume.name.clone(), volume.identity.clone());
    RemovalOrder {
        keep_for,
        ..RemovalOrder::new(RemovalId::from(Uuid::new_v4()), name, identity)
    }
}

/// Removes for good what a check is done with.
async fn clear(store: &dyn VolumeStore, volumes: &[&VolumeInfo]) {
    for volume in volumes {
        store.remove(&order(volume, Duration::ZERO)).await.unwrap();
    }
}

#[track_caller]
fn assert_not_found<T: std::fmt::Debug>(answer: &Result<T, StorageError>) {
    assert!(
        matches!(answer, Err(StorageError::NotFound { .. })),
        "{answer:?}"
    );
}

#[track_caller]
fn assert_invalid<T: std::fmt::Debug>(answer: &Result<T, StorageError>) {
    assert!(
        matches!(answer, Err(StorageError::Invalid(_))),
        "{answer:?}"
    );
}

#[track_caller]
fn assert_in_use<T: std::fmt::Debug>(answer: &Result<T, StorageError>) {
    assert!(
        matches!(answer, Err(StorageError::InUse { .. })),
        "{answer:?}"
    );
}
