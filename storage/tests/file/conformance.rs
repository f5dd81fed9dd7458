//! The suite, on a directory: straight, and through a wrapper that injects no fault.

use crate::rig::{Files, Rig};
use livemerge_storage::VolumeStore as _;
use livemerge_storage::conformance::{names, run};
use livemerge_storage::faulty::Faulty;

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_keeps_the_contract() {
    let rig = Rig::new().await;
    run(&rig.store, &Files).await;
    assert!(rig.store.list_removals().await.unwrap().is_empty());
    assert_eq!(
        rig.files(),
        [],
        "the suite cleans up, and so does the store"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_faults_is_the_store_within() {
    let rig = Rig::new().await;
    let store = Faulty::new(rig.store.clone());
    run(&store, &Files).await;
    assert!(store.calls().len() > names().count());
}
