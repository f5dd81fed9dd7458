//! Faults of the disks and file systems that a merge stands on, under a guest that writes: a sector
//! that goes bad, no space, nothing that may be written. The guest never notices, nothing is lost,
//! and when the fault is over the work goes on.

mod commit_end;
mod doctor;
mod removal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_tests::filesystem::Ballast;
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::Verdict;
use livemerge_tests::protection::{Immutable, ReadOnly};
use livemerge_tests::qmp::Qmp;
use livemerge_tests::rig::Rig;
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::{RECORD, STATE};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Executor as _};
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Writes its records, and nothing that needs more space with time.
const CALM: Workload = Workload {
    slots: 256,
    fill_mib: 8,
    background_kib: 0,
    rate: 50,
};
const BUSY: Workload = Workload {
    background_kib: 64 << 10,
    ..CALM
};
/// Heavy enough that a fault comes before the end of its copy.
const HEAVY_BYTES: i64 = 96 << 20;
/// The same, where the guest does not write it.
const HEAVY_MIB: u64 = 96;
const DISK_BYTES: u64 = 2 << 30;
const POLL: Duration = Duration::from_millis(20);
const DEVICE: &str = "/machine/peripheral/virtio-disk0/virtio-backend";
const SECOND_DEVICE: &str = "/machine/peripheral/virtio-disk1/virtio-backend";

fn assert_nothing_lost(verdicts: &[Verdict]) {
    for verdict in verdicts {
        assert_eq!(verdict.lost, [0; 0]);
        assert!(verdict.acknowledged > 20, "{verdict:?}");
    }
}

/// Asks until the look finds something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let found = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let found: Result<Result<T>, _> = tokio::time::timeout(LIMIT, found).await;
    found.with_context(|| what.to_owned())?
}

/// Asks for the deletion, and freezes the agent when it copies: the merge cannot end before the fault
/// is there, however long that takes. Returns the delete and the merge's id.
async fn held_while_copying(scene: &mut Scene, snapshot: &str) -> Result<(v1::Operation, String)> {
    let known = scene.journal().merges();
    let deletion = scene.api.delete(snapshot).await?;
    let merge = scene
        .until_written(&known, |line| line.phase == "copying")
        .await?;
    scene.services.agent.freeze(true)?;
    Ok((deletion, merge))
}

/// A guest whose disk has something to copy over in its base, as `write_through` puts it.
async fn guest_with_weight(rig: Rig) -> Result<(Scene, Qmp)> {
    let mut spec = rig.describe("vm", &["vda"], DISK_BYTES, CALM)?;
    let socket = rig.path().join("monitor");
    spec.monitor = Some(socket.clone());
    let guest = rig.start(spec)?;
    guest.acks.wait_for_fill("vda", LIMIT).await?;
    guest.acks.wait_for_more("vda", CALM.slots, LIMIT).await?;
    let mut monitor = Qmp::connect(&socket)?;
    monitor.write_through(DEVICE, 1024, HEAVY_MIB)?;
    Ok((Scene::around(rig, guest).await?, monitor))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sector_goes_bad_in_mid_copy_and_the_merge_fails_and_not_the_guest() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.put_images_on_a_disk(512)?;
    // Where the copy will go, the base has its clusters already: it is known which sectors it writes.
    let (mut scene, mut monitor) = guest_with_weight(rig).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of("vda").await?;
    monitor.write_through(DEVICE, 1024, HEAVY_MIB)?;
    scene.rig.disk()?.spoil(&images[0])?;

    let deletion = scene.api.delete(&snapshot).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed);
    let failure = ended.failure.unwrap_or_default();
    assert_eq!(failure.reason, "MERGE_IO_ERROR", "{failure:?}");
    scene.write_more(100).await?;
    assert_eq!(scene.guest.acks.errors("vda"), 0);
    assert_eq!(scene.images_of("vda").await?, images);
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);

    scene.rig.disk()?.heal()?;
    let again = scene.api.delete(&snapshot).await?;
    scene.api.succeeded(&again, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_disks_one_goes_bad_before_the_pivot_and_neither_is_switched() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.put_images_on_a_disk(768)?;
    let mut spec = rig.describe("vm", &["vda", "vdb"], DISK_BYTES, CALM)?;
    let socket = rig.path().join("monitor");
    spec.monitor = Some(socket.clone());
    let guest = rig.start(spec)?;
    for disk in ["vda", "vdb"] {
        guest.acks.wait_for_fill(disk, LIMIT).await?;
        guest.acks.wait_for_more(disk, CALM.slots, LIMIT).await?;
    }
    let mut monitor = Qmp::connect(&socket)?;
    monitor.write_through(SECOND_DEVICE, 1024, HEAVY_MIB)?;
    let mut scene = Scene::around(rig, guest).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    monitor.write_through(SECOND_DEVICE, 1024, HEAVY_MIB)?;
    let chains = [scene.images_of("vda").await?, scene.images_of("vdb").await?];
    // A sector of the second disk's base, and of nothing else.
    scene.rig.disk()?.spoil(&chains[1][0])?;

    let deletion = scene.api.delete(&snapshot).await?;
    let ended = scene.api.ended(&deletion, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed, "{ended:?}");
    let phases: Vec<_> = ended
        .disks
        .iter()
        .map(|disk| (disk.disk.as_str(), disk.phase()))
        .collect();
    let wanted = [
        ("vda", v1::MergePhase::Cancelled),
        ("vdb", v1::MergePhase::Failed),
    ];
    assert_eq!(phases, wanted);
    for merge in scene.merges().await? {
        assert_eq!(merge.pivot_attempts, 0, "{merge:?}");
    }
    for (disk, chain) in ["vda", "vdb"].iter().zip(&chains) {
        assert_eq!(&scene.images_of(disk).await?, chain);
        assert!(chain.iter().all(|image| image.exists()));
    }
    scene.write_more(100).await?;
    for disk in ["vda", "vdb"] {
        assert_eq!(scene.guest.acks.errors(disk), 0);
    }
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);

    scene.rig.disk()?.heal()?;
    let again = scene.api.delete(&snapshot).await?;
    let done = scene.api.succeeded(&again, LIMIT).await?;
    assert_eq!(done.disks.len(), 2, "both were left");
    for (disk, chain) in ["vda", "vdb"].iter().zip(&chains) {
        assert_eq!(scene.images_of(disk).await?, chain[..1]);
        assert!(!chain[1].exists());
    }
    assert_eq!(scene.api.list(vm).await?, []);
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

/// What keeps a volume from being removed, as long as it lives.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never looked at")]
enum Kept {
    Full(Ballast),
    ReadOnly(ReadOnly),
    Immutable(Immutable),
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_cannot_be_removed_waits_for_its_storage() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.limit_images(320)?;
    let (mut scene, mut monitor) = guest_with_weight(rig).await?;
    type Begin = fn(&Rig, &Path) -> Result<Kept>;
    let faults: [(&str, Begin); 3] = [
        ("INSUFFICIENT_SPACE", |rig, _| {
            Ok(Kept::Full(rig.small()?.fill_up()?))
        }),
        ("STORAGE_UNREACHABLE", |rig, _| {
            let own = rig.images().join(".livemerge");
            Ok(Kept::ReadOnly(ReadOnly::mount(&own)?))
        }),
        ("STORAGE_UNREACHABLE", |_, volume| {
            Ok(Kept::Immutable(Immutable::make(vec![volume.to_owned()])?))
        }),
    ];
    for (reason, begin) in faults {
        removal_waits(&mut scene, &mut monitor, reason, begin).await?;
    }
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

async fn removal_waits(
    scene: &mut Scene,
    monitor: &mut Qmp,
    reason: &str,
    begin: fn(&Rig, &Path) -> Result<Kept>,
) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    let images = scene.images_of("vda").await?;
    monitor.write_through(DEVICE, 1024, HEAVY_MIB)?;
    let (deletion, merge) = held_while_copying(scene, &snapshot).await?;
    // The merge ends while nobody orders the removal.
    scene.services.api.freeze(true)?;
    scene.services.agent.freeze(false)?;
    scene.until_merged(&merge).await?;
    let fault = begin(&scene.rig, &images[1])?;
    scene.services.api.freeze(false)?;

    let waiting = until("the operation does not wait", async || {
        let shown = scene.api.operation(&deletion.id).await?;
        ensure!(shown.ended_at.is_none(), "{shown:?}");
        // First it may wait for the host, which the server has not heard for a while.
        let waiting = shown.waiting;
        Ok(waiting.filter(|waiting| waiting.reason == reason && waiting.attempts > 1))
    });
    waiting.await?;
    assert!(images[1].exists());
    scene.write_more(100).await?;
    assert_eq!(scene.guest.acks.errors("vda"), 0);
    let listed = scene.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Deleting);

    drop(fault);
    scene.api.succeeded(&deletion, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    Ok(())
}

/// What keeps the server from its database, as long as it lives.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never looked at")]
enum NoRecord {
    Immutable(Immutable),
    Full(Ballast),
    Locked(SqliteConnection),
}

#[derive(Debug, Clone, Copy)]
enum RecordFault {
    Immutable,
    Full,
    Locked,
}

impl RecordFault {
    async fn begin(self, rig: &Rig) -> Result<NoRecord> {
        let database = rig.path().join(RECORD).join("api-server.db");
        match self {
            Self::Immutable => {
                let log = PathBuf::from(format!("{}-wal", database.display()));
                Ok(NoRecord::Immutable(Immutable::make(vec![database, log])?))
            }
            Self::Full => {
                // What SQLite would write next has no place of its own any more.
                let mut other = connect(&database).await?;
                let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
                until("the log is in use", async || {
                    let (busy, _, _): (i64, i64, i64) =
                        sqlx::query_as(truncate).fetch_one(&mut other).await?;
                    Ok((busy == 0).then_some(()))
                })
                .await?;
                Ok(NoRecord::Full(rig.limited(RECORD)?.fill_up()?))
            }
            Self::Locked => {
                let mut other = connect(&database).await?;
                other.execute("BEGIN EXCLUSIVE").await?;
                Ok(NoRecord::Locked(other))
            }
        }
    }
}

async fn connect(database: &Path) -> Result<SqliteConnection> {
    let options = SqliteConnectOptions::new().filename(database);
    Ok(options.busy_timeout(LIMIT).connect().await?)
}

async fn health(scene: &Scene) -> Result<ServingStatus> {
    let endpoint = Endpoint::from_shared(scene.services.api.endpoint())?;
    let mut health = HealthClient::new(endpoint.connect_lazy());
    let answer = health.check(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_server_does_nothing_and_the_host_merges_on() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.limit(RECORD, 16)?;
    let guest = rig.start_guest("vm", &["vda"], DISK_BYTES, BUSY)?;
    let mut scene = Scene::around(rig, guest).await?;
    for fault in [
        RecordFault::Immutable,
        RecordFault::Full,
        RecordFault::Locked,
    ] {
        merges_without_record(&mut scene, fault)
            .await
            .with_context(|| format!("{fault:?}"))?;
    }
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

async fn merges_without_record(scene: &mut Scene, fault: RecordFault) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;
    let (deletion, merge) = held_while_copying(scene, &snapshot).await?;
    let broken = fault.begin(&scene.rig).await?;
    scene.services.agent.freeze(false)?;

    let refused = scene.api.create(vm, "another").await;
    let refused = refused.err().context("a snapshot without a record")?;
    let problem = Problem::try_from(refused)?;
    assert_eq!(problem.reason, Reason::StoreUnavailable, "{problem:?}");
    until("the server is ready", async || {
        Ok((health(scene).await? == ServingStatus::NotServing).then_some(()))
    })
    .await?;
    scene.until_merged(&merge).await?;
    scene.write_more(100).await?;
    assert!(images[1].exists(), "removed without a record");
    let shown = scene.api.operation(&deletion.id).await?;
    assert_eq!(shown.state(), v1::OperationState::Running, "{shown:?}");

    drop(broken);
    scene.api.succeeded(&deletion, LIMIT).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    until("the server is not ready", async || {
        Ok((health(scene).await? == ServingStatus::Serving).then_some(()))
    })
    .await
}

/// What keeps the agent from its journal, as long as it lives.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never looked at")]
enum NoJournal {
    Full(Ballast),
    ReadOnly(ReadOnly),
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_journal_the_agent_does_nothing_and_the_guest_runs_on() -> Result<()> {
    let mut rig = Rig::new()?;
    rig.limit(STATE, 8)?;
    let guest = rig.start_guest("vm", &["vda"], DISK_BYTES, BUSY)?;
    let mut scene = Scene::around(rig, guest).await?;
    let faults: [fn(&Rig) -> Result<NoJournal>; 2] = [
        |rig| Ok(NoJournal::Full(rig.limited(STATE)?.fill_up()?)),
        |rig| {
            let merges = rig.path().join(STATE).join("merges");
            Ok(NoJournal::ReadOnly(ReadOnly::mount(&merges)?))
        },
    ];
    for begin in faults {
        waits_for_the_journal(&mut scene, begin).await?;
    }
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}

async fn waits_for_the_journal(
    scene: &mut Scene,
    begin: fn(&Rig) -> Result<NoJournal>,
) -> Result<()> {
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", HEAVY_BYTES).await?;
    let images = scene.images_of("vda").await?;
    let complaints = |scene: &Scene| {
        let log = scene.services.agent.log_text();
        log.matches("the journal cannot be written").count()
    };
    let before = complaints(scene);
    let (deletion, merge) = held_while_copying(scene, &snapshot).await?;
    let broken = begin(&scene.rig)?;
    scene.services.agent.freeze(false)?;

    until("the agent does not miss its journal", async || {
        Ok((complaints(scene) > before + 3).then_some(()))
    })
    .await?;
    scene.write_more(200).await?;
    assert!(images[1].exists());
    assert_eq!(scene.images_of("vda").await?, images, "pivoted unjournaled");
    let waiting = until("the operation does not wait", async || {
        let shown = scene.api.operation(&deletion.id).await?;
        ensure!(shown.ended_at.is_none(), "{shown:?}");
        Ok(shown.waiting)
    });
    let waiting = waiting.await?;
    assert_eq!(waiting.reason, "STORE_UNAVAILABLE", "{waiting:?}");
    assert!(
        waiting.next_try_at.is_some() && waiting.attempts > 0,
        "{waiting:?}"
    );

    drop(broken);
    scene.api.succeeded(&deletion, LIMIT).await?;
    scene.until_merged(&merge).await?;
    assert!(!images[1].exists());
    assert_eq!(scene.api.list(vm).await?, []);
    Ok(())
}
