//! The suite, on objects: in memory, through a wrapper that injects no fault, and in a directory.

use crate::rig::{Objects, Rig};
use livemerge_storage::conformance::{names, run};
use livemerge_storage::faulty::Faulty;
use livemerge_storage::{ExporterPlace, ObjectVolumes, VolumeStore as _};

/// The suite cleans up, and so does the store: what stays is what the domain is, and its names.
#[track_caller]
fn assert_empty(keys: &[String]) {
    let left = keys.iter();
    let left: Vec<_> = left
        .filter(|key| *key != "d/domain" && !key.starts_with("d/names/"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_in_memory_keep_the_contract() {
    let rig = Rig::memory().await;
    run(&rig.store, &Objects(rig.store.clone())).await;
    assert!(rig.store.list_removals().await.unwrap().is_empty());
    assert!(rig.store.foreign().await.unwrap().is_empty());
    assert_empty(&rig.keys().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_faults_is_the_store_within() {
    let rig = Rig::memory().await;
    let store = Faulty::new(rig.store.clone());
    run(&store, &Objects(rig.store.clone())).await;
    assert!(store.calls().len() > names().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_objects_keeps_the_contract() {
    let (objects, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = url::Url::from_directory_path(objects.path()).unwrap();
    let id = "objects".parse().unwrap();
    let store = ObjectVolumes::open(id, url.as_str(), dir.path(), ExporterPlace::Within).await;
    let store = store.unwrap();
    run(&store, &Objects(store.clone())).await;
    assert!(store.list_removals().await.unwrap().is_empty());
}
