//! The suite that every [`Store`] passes. A check is a plain async function on an empty store; it
//! panics where the store breaks its contract.
//!
//! ```text
//!   changes    what is durable together, revisions, names
//!   requests   repetition, reuse, races, forgetting
//!   lists      pages, filters, order under insertion
//!   resumed    operations that have not ended
//!   audit      the log only grows, and a follower misses nothing
//!   needed     who names a volume
//!   inventory  generations, hosts, machines
//!   round_trip what is written is what is read, whatever it holds
//! ```
//!
//! It knows nothing of an adapter's files, locks or failures: those are its own tests' matter.

#![allow(clippy::unwrap_used, reason = "a check fails by panicking")]

mod audit;
mod changes;
mod inventory;
mod lists;
mod needed;
pub mod records;
mod requests;
mod resumed;
mod round_trip;
mod values;

use super::Store;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// One check.
pub type Check = fn(Arc<dyn Store>) -> LocalBoxFuture<'static, ()>;

/// Every check with its name.
pub const CHECKS: &[(&str, Check)] = &[
    ("a change is whole or not at all", |store| {
        changes::whole_or_not_at_all(store).boxed_local()
    }),
    ("an accepted request is whole or not at all", |store| {
        changes::accepted_whole(store).boxed_local()
    }),
    ("a stale revision conflicts", |store| {
        changes::stale_revision(store).boxed_local()
    }),
    ("one of racing changes wins", |store| {
        changes::racing(store).boxed_local()
    }),
    ("a snapshot alone changes whole or not at all", |store| {
        changes::snapshot_alone(store).boxed_local()
    }),
    ("snapshots alone change together or not at all", |store| {
        changes::snapshots_together(store).boxed_local()
    }),
    ("names are a machine's own", |store| {
        changes::names(store).boxed_local()
    }),
    ("a missing snapshot is deleted already", |store| {
        changes::delete_missing(store).boxed_local()
    }),
    ("a repeated request gets the first answer", |store| {
        requests::repeated(store).boxed_local()
    }),
    ("a reused request id is refused", |store| {
        requests::reused(store).boxed_local()
    }),
    ("one of racing requests is accepted", |store| {
        requests::racing(store).boxed_local()
    }),
    ("racing payloads of one id do not mix", |store| {
        requests::racing_payloads(store).boxed_local()
    }),
    ("old requests of ended operations are forgotten", |store| {
        requests::pruned(store).boxed_local()
    }),
    ("pages make up the list", |store| {
        lists::pages(store).boxed_local()
    }),
    ("pages keep their order under insertion", |store| {
        lists::insertion(store).boxed_local()
    }),
    ("machines and snapshots are filtered", |store| {
        lists::filtered_machines(store).boxed_local()
    }),
    ("operations are filtered", |store| {
        lists::filtered_operations(store).boxed_local()
    }),
    ("who needs a volume is found", |store| {
        needed::found(store).boxed_local()
    }),
    ("events are filtered", |store| {
        lists::filtered_events(store).boxed_local()
    }),
    ("events are searched", |store| {
        lists::searched_events(store).boxed_local()
    }),
    ("open operations are listed until they end", |store| {
        resumed::unended(store).boxed_local()
    }),
    ("the audit log only grows", |store| {
        audit::only_grows(store).boxed_local()
    }),
    ("the audit log has an end and a sign", |store| {
        audit::end_and_sign(store).boxed_local()
    }),
    ("a follower of the audit log misses nothing", |store| {
        audit::follower(store).boxed_local()
    }),
    ("generations are given once", |store| {
        inventory::generations(store).boxed_local()
    }),
    ("an older host is refused", |store| {
        inventory::stale_host(store).boxed_local()
    }),
    (
        "maintenance stays, whatever an agent says of itself",
        |store| inventory::maintenance(store).boxed_local(),
    ),
    ("machines are noted one by one", |store| {
        inventory::machines(store).boxed_local()
    }),
    ("hosts and machines come back as written", |store| {
        round_trip::inventory(store).boxed_local()
    }),
    ("snapshots come back as written", |store| {
        round_trip::snapshots(store).boxed_local()
    }),
    ("operations come back as written", |store| {
        round_trip::operations(store).boxed_local()
    }),
    ("events come back as written", |store| {
        round_trip::events(store).boxed_local()
    }),
];

/// Runs every check, each on a store of its own that `empty` makes.
///
/// # Panics
/// When a check failed; its own panic was printed before, and all that failed are named.
pub async fn all(empty: impl AsyncFn() -> Arc<dyn Store>) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        // One failure hides no other.
        if AssertUnwindSafe(check(empty().await))
            .catch_unwind()
            .await
            .is_err()
        {
            failed.push(*name);
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} checks failed: {failed:#?}",
        failed.len(),
        CHECKS.len()
    );
}
