//! The suite that every back end passes.

use crate::rig::Rig;
use livemerge_storage::VolumeStore as _;
use livemerge_storage::conformance::run;

pub(crate) async fn a_group_keeps_the_contract(rig: &Rig) {
    run(&rig.store, rig).await;
    assert!(rig.store.list_removals().await.unwrap().is_empty());
    assert!(
        rig.names().await.is_empty(),
        "the suite cleans up, and so does the store"
    );
}
