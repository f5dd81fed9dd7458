//! The LVM back end on a real group, in a virtual host: this machine's kernel need not have a
//! device-mapper.
//!
//! ```text
//!   cargo test ─▶ the one test here ─▶ virtual host ─▶ the same binary ─▶ all scenarios, one boot
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod batch;
mod conformance;
mod crash;
mod foreign;
mod names;
mod removal;
mod rig;
mod room;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use livemerge_vhost::VirtualHost;
use rig::Rig;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

const TEST: &str = "a_volume_group_is_a_storage_domain";

/// For whoever works on one of them: a part of the names of those that are run.
const ONLY: &str = "LIVEMERGE_ONLY";

type Scenario = for<'a> fn(&'a Rig) -> BoxFuture<'a, ()>;

macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        const SCENARIOS: &[(&str, Scenario)] =
            &[$((stringify!($name), |rig| $module::$name(rig).boxed())),*];
    };
}

scenarios![
    conformance::a_group_keeps_the_contract,
    names::a_name_that_lvm_has_for_itself_is_refused_before_anything_is_done,
    names::every_spelling_of_a_device_is_the_volume,
    names::a_chain_without_end_is_told,
    foreign::what_is_not_ours_is_told_and_never_touched,
    foreign::a_foreign_image_holds_what_it_is_built_on,
    foreign::a_group_that_is_missing_or_lacks_a_device_removes_nothing,
    room::room_is_given_while_somebody_writes_and_taken_back_when_nobody_does,
    room::a_full_group_says_so,
    removal::a_wiped_volume_has_left_nothing_on_the_disk,
    removal::a_wiped_volume_is_gone_before_the_next_one_is_wiped,
    removal::a_volume_that_another_node_has_open_is_in_use,
    removal::whoever_is_being_made_on_a_volume_holds_it,
    crash::a_removal_that_dies_after_every_change_is_ended_by_the_next_process,
    crash::a_removal_that_dies_before_its_second_look_is_undone_for_who_needs_it,
    crash::a_creation_and_a_restoration_that_die_leave_whole_volumes,
    batch::removals_that_arrive_together_are_one_change,
];

#[test]
fn a_volume_group_is_a_storage_domain() {
    if let Some(child) = crash::told_to() {
        return crash::do_as_told(&child);
    }
    let host = VirtualHost {
        disks_mib: vec![4096, 64],
        limit: std::time::Duration::from_secs(1500),
        ..VirtualHost::default()
    };
    if !host.run_this_test(TEST).unwrap() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let failed = runtime.block_on(run_all());
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
}

async fn run_all() -> Vec<&'static str> {
    let rig = Rig::new().await;
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut failed = Vec::new();
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| name.contains(&only)) {
        let begun = Instant::now();
        let ended = AssertUnwindSafe(scenario(&rig)).catch_unwind().await;
        println!(
            "{name}: {} in {:.1?}",
            if ended.is_ok() { "ok" } else { "FAILED" },
            begun.elapsed()
        );
        if ended.is_err() {
            failed.push(*name);
            rig.begin_anew().await;
        }
    }
    failed
}
