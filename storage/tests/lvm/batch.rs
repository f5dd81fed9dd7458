//! Many removals at once.

use crate::rig::{Rig, config, name, open, order};
use futures::future::join_all;
use livemerge_storage::{LvmConfig, NewVolume, RemovalState, StorageError, VolumeStore as _};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const MANY: usize = 6;

pub(crate) async fn removals_that_arrive_together_are_one_change(rig: &Rig) {
    let dir = tempfile::tempdir().unwrap();
    let (program, calls) = (dir.path().join("lvm"), dir.path().join("calls"));
    let script = format!(
        "#!/bin/sh\necho \"$1\" >>{}\nexec lvm \"$@\"\n",
        calls.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut made = Vec::new();
    for number in 0..MANY {
        let new = NewVolume {
            name: name(&format!("many-{number}")),
            virtual_bytes: 1 << 20,
            parent: None,
        };
        made.push(rig.store.create(&new).await.unwrap());
    }
    // One of them is needed, and stays while the others go.
    let top = rig.overlay("top", &made[0]).await;
    let store = open(LvmConfig {
        program,
        ..config()
    })
    .await
    .unwrap();
    std::fs::write(&calls, "").unwrap();
    let orders: Vec<_> = made
        .iter()
        .map(|made| order(made, Duration::ZERO))
        .collect();
    let answers = join_all(orders.iter().map(|order| store.remove(order))).await;
    let (refused, gone) = answers.split_first().unwrap();
    assert!(
        matches!(refused, Err(StorageError::InUse { .. })),
        "{refused:?}"
    );
    for answer in gone {
        assert_eq!(answer.as_ref().unwrap().state, RemovalState::Gone);
    }
    assert_eq!(
        std::fs::read_to_string(&calls).unwrap(),
        "fullreport\nlvremove\n"
    );
    assert_eq!(rig.names().await, ["many-0", "top"]);

    // What is left is a chain, which goes together; the one that is built on the other is closed first.
    std::fs::write(&calls, "").unwrap();
    let chain = [&made[0], &top].map(|made| order(made, Duration::ZERO));
    for answer in store.remove_all(&chain).await {
        assert_eq!(answer.unwrap().state, RemovalState::Gone);
    }
    // Whoever watches devices may have had it open at the first look.
    let calls = std::fs::read_to_string(&calls).unwrap();
    let changes: Vec<_> = calls.lines().filter(|call| *call != "fullreport").collect();
    assert_eq!(changes, ["lvchange", "lvremove"]);
    assert_eq!(rig.names().await, Vec::<String>::new());
}
