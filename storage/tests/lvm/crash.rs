//! Processes that die after each change of the group: what the next one finds, and that it goes on.
//!
//! ```text
//!   a process of its own ─▶ remove ─▶ LVM's program, which does one change and kills who called it
//!   this process ─▶ whole under its name, or condemned and listed? ─▶ the next process
//! ```

use crate::rig::{GROUP, LONG, Rig, SIZE, config, name, open, order, run};
use livemerge_storage::conformance::Fixture as _;
use livemerge_storage::{
    LvmConfig, NewVolume, RemovalOrder, RemovalState, StorageError, VolumeInfo, VolumeStore as _,
};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tempfile::TempDir;

/// What a process of its own is told to do.
const TOLD: &str = "LIVEMERGE_TOLD_TO";

/// One call of the store.
#[derive(Serialize, Deserialize)]
pub(crate) struct Child {
    program: PathBuf,
    call: Call,
}

#[derive(Clone, Serialize, Deserialize)]
enum Call {
    Create {
        name: String,
    },
    Remove {
        id: String,
        name: String,
        identity: String,
        wipe: bool,
        keep_for: Duration,
    },
    Restore {
        id: String,
    },
}

impl Call {
    fn remove(order: &RemovalOrder) -> Self {
        Self::Remove {
            id: order.id.to_string(),
            name: order.volume.to_string(),
            identity: order.identity.to_string(),
            wipe: order.wipe,
            keep_for: order.keep_for,
        }
    }
}

pub(crate) fn told_to() -> Option<Child> {
    let told = std::env::var(TOLD).ok()?;
    Some(serde_json::from_str(&told).unwrap())
}

/// Ends well when the call does.
pub(crate) fn do_as_told(child: &Child) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let program = child.program.clone();
        let store = open(LvmConfig {
            program,
            ..config()
        })
        .await
        .unwrap();
        match &child.call {
            Call::Create { name } => {
                let new = new(name);
                store.create(&new).await.unwrap();
            }
            Call::Remove {
                id,
                name,
                identity,
                wipe,
                keep_for,
            } => {
                let (id, name, identity) = (
                    id.parse().unwrap(),
                    name.parse().unwrap(),
                    identity.parse().unwrap(),
                );
                let order = RemovalOrder {
                    wipe: *wipe,
                    keep_for: *keep_for,
                    ..RemovalOrder::new(id, name, identity)
                };
                store.remove(&order).await.unwrap();
            }
            Call::Restore { id } => drop(store.restore(id.parse().unwrap()).await.unwrap()),
        }
    });
}

fn new(volume: &str) -> NewVolume {
    NewVolume {
        name: name(volume),
        virtual_bytes: SIZE,
        parent: None,
    }
}

/// A program in LVM's place that kills who called it once it has done so many changes.
struct Killer {
    dir: TempDir,
}

impl Killer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (program, left) = (dir.path().join("lvm"), dir.path().join("left"));
        let left = left.display();
        let script = format!(
            "#!/bin/sh\n\
             [ \"$1\" != fullreport ] || exec lvm \"$@\"\n\
             lvm \"$@\" || exit\n\
             left=$(($(cat {left}) - 1))\n\
             echo $left >{left}\n\
             [ $left -ne 0 ] || kill -9 $PPID\n"
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// Runs the call in a process of its own, which dies after so many changes.
    async fn run(&self, call: &Call, changes: u32) -> ExitStatus {
        std::fs::write(self.dir.path().join("left"), changes.to_string()).unwrap();
        let child = Child {
            program: self.dir.path().join("lvm"),
            call: call.clone(),
        };
        let mut process = Command::new(std::env::current_exe().unwrap());
        process.args(["--exact", crate::TEST]);
        process.env(TOLD, serde_json::to_string(&child).unwrap());
        let ended = tokio::task::spawn_blocking(move || process.output().unwrap())
            .await
            .unwrap();
        let status = ended.status;
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(
            status.success() || status.signal() == Some(9),
            "{status} {said}"
        );
        status
    }
}

pub(crate) async fn a_removal_that_dies_after_every_change_is_ended_by_the_next_process(rig: &Rig) {
    let killer = Killer::new();
    // The short way is one change.
    let made = rig.base("short").await;
    let short = order(&made, Duration::ZERO);
    let died = killer.run(&Call::remove(&short), 1).await;
    assert_eq!(died.signal(), Some(9));
    assert!(rig.names().await.is_empty());
    assert_eq!(
        rig.store.remove(&short).await.unwrap().state,
        RemovalState::Gone
    );

    let made = rig.base("long").await;
    rig.write(&made, 0, SIZE, 9).await;
    let long = RemovalOrder {
        wipe: true,
        ..order(&made, Duration::ZERO)
    };
    // Deactivated; tagged; tagged anew and renamed; marked as being freed; activated; activated anew,
    // overwritten and deactivated.
    let mut seen = Vec::new();
    for changes in [1, 1, 2, 1, 1, 2] {
        let died = killer.run(&Call::remove(&long), changes).await;
        assert_eq!(died.signal(), Some(9));
        seen.push(state(rig, &made, &long).await);
    }
    let condemned = [false, false, true, true, true, true];
    assert_eq!(seen, condemned);
    let store = rig.reopened().await;
    assert_eq!(store.remove(&long).await.unwrap().state, RemovalState::Gone);
    assert!(rig.names().await.is_empty());
}

/// Whoever goes on looks again, as the one that died would have done.
pub(crate) async fn a_removal_that_dies_before_its_second_look_is_undone_for_who_needs_it(
    rig: &Rig,
) {
    let killer = Killer::new();
    let made = rig.base("needed").await;
    let wanted = order(&made, LONG);
    // Deactivated, tagged and renamed.
    let died = killer.run(&Call::remove(&wanted), 3).await;
    assert_eq!(died.signal(), Some(9));
    let device = "/dev/vg-0/theirs";
    run(
        "lvcreate",
        &["-q", "--yes", "-L", "4m", "-n", "theirs", GROUP],
    )
    .await;
    let create = ["create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b"];
    run(
        "qemu-img",
        &[&create[..], &["/dev/vg-0/needed", device, "8M"]].concat(),
    )
    .await;
    let refused = rig.store.remove(&wanted).await;
    assert!(
        matches!(refused, Err(StorageError::InUse { .. })),
        "{refused:?}"
    );
    assert_eq!(rig.names().await, ["needed", "theirs"]);
    run("lvremove", &["-q", "--yes", "vg-0/theirs"]).await;
    rig.clear(&[&made]).await;
}

/// Whether it is condemned: then it is listed and has no name; otherwise it is whole.
async fn state(rig: &Rig, made: &VolumeInfo, order: &RemovalOrder) -> bool {
    let store = rig.reopened().await;
    let listed: Vec<_> = store
        .list_removals()
        .await
        .unwrap()
        .iter()
        .map(|removal| removal.id)
        .collect();
    let there = store.stat(&order.volume).await;
    match there {
        Ok(info) => {
            assert_eq!((&info.identity, listed), (&made.identity, vec![]));
            assert!(rig.reads(made, 0, SIZE, 9).await);
            run_back(rig, made).await;
            false
        }
        Err(StorageError::NotFound { .. }) => {
            assert_eq!(listed, [order.id]);
            let restored = store.restore(order.id).await;
            assert!(
                matches!(restored, Err(StorageError::NotKept { .. })),
                "{restored:?}"
            );
            true
        }
        Err(error) => panic!("{error}"),
    }
}

/// Not active, as the process that died left it.
async fn run_back(rig: &Rig, made: &VolumeInfo) {
    use livemerge_storage::LiveVolumes as _;
    rig.store.deactivate(&made.volume.name).await.unwrap();
}

pub(crate) async fn a_creation_and_a_restoration_that_die_leave_whole_volumes(rig: &Rig) {
    let killer = Killer::new();
    let create = Call::Create {
        name: "made".to_owned(),
    };
    // Half made: no volume, and the next start sweeps it.
    assert_eq!(killer.run(&create, 1).await.signal(), Some(9));
    assert_eq!(rig.names().await.len(), 1);
    let there = rig.store.stat(&name("made")).await;
    assert!(
        matches!(there, Err(StorageError::NotFound { .. })),
        "{there:?}"
    );
    rig.reopened().await;
    assert!(rig.names().await.is_empty());
    // Made: the change that gives it its name is the last.
    assert_eq!(killer.run(&create, 2).await.signal(), Some(9));
    let made = rig.base("made").await;
    assert_eq!(rig.names().await, ["made"]);

    let kept = order(&made, LONG);
    rig.store.remove(&kept).await.unwrap();
    let restore = Call::Restore {
        id: kept.id.to_string(),
    };
    // Activated by the host itself again, and renamed.
    assert_eq!(killer.run(&restore, 2).await.signal(), Some(9));
    let back = rig.reopened().await.stat(&made.volume.name).await.unwrap();
    assert_eq!(back.identity, made.identity);
    assert!(rig.store.list_removals().await.unwrap().is_empty());
    // The tags that it has kept are of no removal.
    let again = order(&made, LONG);
    rig.store.remove(&again).await.unwrap();
    assert_eq!(rig.store.list_removals().await.unwrap()[0].id, again.id);
    rig.store.restore(again.id).await.unwrap();
    rig.clear(&[&made]).await;
}
