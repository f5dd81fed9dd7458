//! Two processes on one directory, as the agents of two hosts that share it.

use crate::rig::{Files, Rig, name, open};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{RemovalId, RemovalOrder, RemovalState, StorageError, VolumeStore as _};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use uuid::Uuid;

const TOLD: &str = "LIVEMERGE_TOLD_TO_REMOVE";
const TEST: &str = "together::no_volume_is_removed_twice_by_two_processes_on_one_directory";
const VOLUMES: usize = 24;
const ANSWERS: &str = "answers: ";

/// What a process of its own does.
#[derive(Serialize, Deserialize)]
struct Told {
    root: PathBuf,
    /// Removal, volume, identity.
    orders: Vec<(String, String, String)>,
    /// Each begins when this file is there.
    starts: PathBuf,
}

/// Of each volume the bytes that this process gave back, whoever was faster.
async fn remove_as_told(told: &Told) -> Vec<u64> {
    let store = open(&told.root).await.unwrap();
    while !told.starts.exists() {
        tokio::task::yield_now().await;
    }
    let mut freed = Vec::new();
    for (id, volume, identity) in &told.orders {
        let order = RemovalOrder::new(id.parse().unwrap(), name(volume), identity.parse().unwrap());
        loop {
            match store.remove(&order).await {
                Ok(removal) => {
                    assert_eq!(removal.state, RemovalState::Gone);
                    freed.push(removal.freed_bytes);
                    break;
                }
                // The other one is at it: its end is waited for.
                Err(StorageError::Busy { .. } | StorageError::InUse { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    freed
}

/// By the same orders, as when a server asks another host, and by orders of their own.
#[tokio::test]
async fn no_volume_is_removed_twice_by_two_processes_on_one_directory() {
    if let Ok(told) = std::env::var(TOLD) {
        let freed = remove_as_told(&serde_json::from_str(&told).unwrap()).await;
        let freed = serde_json::to_string(&freed).unwrap();
        std::fs::write(
            std::env::var("LIVEMERGE_ANSWERS").unwrap(),
            ANSWERS.to_owned() + &freed,
        )
        .unwrap();
        return;
    }
    for same in [true, false] {
        let rig = Rig::new().await;
        let beside = tempfile::tempdir().unwrap();
        let starts = beside.path().join("starts");
        let mut made = Vec::new();
        for number in 0..VOLUMES {
            let volume = rig.base(&format!("v-{number}.qcow2")).await;
            Files.write(&volume, 0, 1 << 20, 9).await;
            made.push(volume);
        }
        let stays = rig.base("stays.qcow2").await;
        let ids = || made.iter().map(|_| Uuid::new_v4()).collect::<Vec<_>>();
        let first = ids();
        let second = if same { first.clone() } else { ids() };
        let processes = [first, second].map(|ids| {
            let orders = made.iter().zip(ids).map(|(volume, id)| {
                let (name, identity) = (&volume.volume.name, &volume.identity);
                (
                    RemovalId::from(id).to_string(),
                    name.to_string(),
                    identity.to_string(),
                )
            });
            let answers = beside.path().join(Uuid::new_v4().to_string());
            let told = Told {
                root: rig.root(),
                orders: orders.collect(),
                starts: starts.clone(),
            };
            (process(&told, &answers), answers)
        });
        std::fs::write(&starts, "").unwrap();
        let mut freed = Vec::new();
        for (mut process, answers) in processes {
            assert!(process.wait().unwrap().success());
            let answers = std::fs::read_to_string(answers).unwrap();
            let answers = answers.strip_prefix(ANSWERS).unwrap();
            freed.push(serde_json::from_str::<Vec<u64>>(answers).unwrap());
        }
        for (number, (one, other)) in freed[0].iter().zip(&freed[1]).enumerate() {
            let by = [one, other].into_iter().filter(|bytes| **bytes > 0).count();
            assert_eq!(
                by, 1,
                "volume {number}: {one} and {other} bytes, same: {same}"
            );
        }
        assert_eq!(rig.store.list_removals().await.unwrap(), []);
        let there = rig.store.stat(&stays.volume.name).await.unwrap();
        assert_eq!(there.identity, stays.identity);
    }
}

fn process(told: &Told, answers: &Path) -> Child {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process
        .args(["--exact", TEST])
        .env(TOLD, serde_json::to_string(told).unwrap())
        .env("LIVEMERGE_ANSWERS", answers)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    process.spawn().unwrap()
}
