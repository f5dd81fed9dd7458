//! Record, hosts and storage compared, on a scripted host: each difference made for real, its repair
//! applied, and the repairs that are refused.

mod told;

use std::time::Duration;

use anyhow::{Context, Result};
use livemerge_api_server::snapshot::SnapshotState;
use livemerge_api_server::store::{Change, OperationFilter, Page, SnapshotChange, Store as _};
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_host_agent::hypervisor::{Hypervisor as _, HypervisorError, Overlay};
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_storage::{Locator, RemovalId};
use livemerge_tests::cluster::Cluster;
use tonic::Status;
use uuid::Uuid;
use v1::{FindingKind as Kind, RepairOutcome as Outcome};

const QUICK: Pace = Pace::Every(Duration::from_millis(2));
const LIMIT: Duration = Duration::from_secs(20);

fn reason(status: Status) -> Reason {
    Problem::try_from(status)
        .expect("an error with a reason")
        .reason
}

fn kinds(findings: &[v1::Finding]) -> Vec<Kind> {
    findings.iter().map(v1::Finding::kind).collect()
}

fn locator(name: &str) -> Locator {
    Locator::File(format!("/fake/{name}").into())
}

async fn check(cluster: &mut Cluster) -> Result<Vec<v1::Finding>> {
    let request = v1::CheckConsistencyRequest::default();
    let answer = cluster.api.inventory.check_consistency(request).await?;
    Ok(answer.into_inner().findings)
}

/// The only finding, of this kind.
async fn the_finding(cluster: &mut Cluster, kind: Kind) -> Result<v1::Finding> {
    let findings = check(cluster).await?;
    assert_eq!(kinds(&findings), [kind], "{findings:#?}");
    findings.into_iter().next().context("a finding")
}

fn repair_of(finding: &v1::Finding) -> v1::ApplyRepairRequest {
    v1::ApplyRepairRequest {
        request_id: Uuid::new_v4().to_string(),
        finding_id: finding.id.clone(),
    }
}

async fn repair(
    cluster: &mut Cluster,
    finding: &v1::Finding,
) -> Result<v1::ApplyRepairResponse, Status> {
    let answer = cluster.api.inventory.apply_repair(repair_of(finding)).await;
    Ok(answer?.into_inner())
}

async fn refused(cluster: &mut Cluster, finding: &v1::Finding) -> Result<Reason> {
    let answer = repair(cluster, finding).await;
    Ok(reason(answer.err().context("the repair is refused")?))
}

async fn wait_for_call(cluster: &Cluster, call: &str, times: usize) -> Result<()> {
    let made = || {
        let calls = cluster.hypervisor.calls();
        calls.iter().filter(|made| made.name() == call).count()
    };
    let wait = async {
        while made() < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    Ok(tokio::time::timeout(LIMIT, wait).await?)
}

/// A machine that died before its overlay was put on, while somebody kept the host from taking the
/// overlay away again. Returns the machine, and the overlay's name.
async fn leak(cluster: &mut Cluster) -> Result<(Uuid, String)> {
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    for _ in 0..5 {
        let lost = HypervisorError::Unknown("no answer".to_owned());
        cluster.hypervisor.fail_next("add_overlays", lost);
    }
    let no = HypervisorError::Refused("no".to_owned());
    cluster.hypervisor.fail_next("add_overlays", no);
    let create = cluster.api.create(vm, "first").await?;
    wait_for_call(cluster, "add_overlays", 1).await?;
    let mut names = cluster.volumes.names();
    names.retain(|name| name != "vm-vda.qcow2");
    let [name] = <[String; 1]>::try_from(names).expect("one overlay was made");
    cluster.volumes.add_overlay("clone.qcow2", &locator(&name));
    let ended = cluster.api.ended(&create, LIMIT).await?;
    assert_eq!(ended.state(), v1::OperationState::Failed);
    cluster.volumes.lose("clone.qcow2");
    assert!(cluster.volumes.names().contains(&name));
    Ok((vm, name))
}

/// Waits until the server sees a machine so: what a host says of a machine comes a moment later than
/// what it does with it.
async fn seen(cluster: &mut Cluster, vm: Uuid, so: impl Fn(&v1::Vm) -> bool) -> Result<()> {
    let look = async {
        loop {
            let request = v1::GetVmRequest {
                vm_id: vm.to_string(),
            };
            let answer = cluster.api.inventory.get_vm(request).await?.into_inner();
            if answer.vm.as_ref().is_some_and(&so) {
                return Ok::<_, anyhow::Error>(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, look).await?
}

/// The name of the layer that the guest writes.
async fn active(cluster: &mut Cluster, vm: Uuid) -> Result<String> {
    let chain = cluster.api.chain(vm, "vda").await?;
    let layer = chain.layers.last().context("a layer")?;
    Ok(layer.volume.clone().context("a volume")?.name)
}

#[tokio::test]
async fn a_sound_cluster_has_no_findings() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda", "vdb"]).await?;
    for name in ["a", "b", "c"] {
        cluster.api.snapshot(vm, name).await?;
        assert_eq!(check(&mut cluster).await?, []);
    }
    for snapshot in cluster.api.list(vm).await? {
        let delete = cluster.api.delete(&snapshot.id).await?;
        cluster.api.succeeded(&delete, LIMIT).await?;
        assert_eq!(check(&mut cluster).await?, []);
    }
    Ok(())
}

#[tokio::test]
async fn a_leaked_volume_is_removed_once_and_the_log_tells_it() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let (vm, name) = leak(&mut cluster).await?;
    let found = the_finding(&mut cluster, Kind::LeakedVolume).await?;
    assert_eq!(found.repair(), v1::Repair::RemoveVolume);
    assert_eq!(found.volume.clone().unwrap_or_default().name, name);
    assert_eq!(found.vm_id, vm.to_string());
    assert_eq!(found.host_ids, ["host-1"]);
    assert_eq!(
        check(&mut cluster).await?[0].id,
        found.id,
        "the id stays as long as the thing does"
    );

    let done = repair(&mut cluster, &found).await?;
    assert_eq!((done.outcome(), done.freed_bytes), (Outcome::Done, 1 << 16));
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"]);
    assert_eq!(check(&mut cluster).await?, []);
    let again = repair(&mut cluster, &found).await?;
    assert_eq!(again.outcome(), Outcome::AlreadyGone);

    let log = cluster.api.log(vm).await?;
    let told: Vec<&v1::Event> = log
        .iter()
        .filter(|event| event.details.get("finding") == Some(&found.id))
        .collect();
    let types: Vec<v1::EventType> = told.iter().map(|event| event.r#type()).collect();
    use v1::EventType::{RepairApplied, RepairRequested};
    assert_eq!(types, [RepairRequested, RepairApplied]);
    assert_eq!(told[1].actor, "local");
    assert_eq!(told[1].details["freed_bytes"], "65536");
    Ok(())
}

#[tokio::test]
async fn a_leak_that_changed_meanwhile_is_left_alone() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let (_, name) = leak(&mut cluster).await?;
    let found = the_finding(&mut cluster, Kind::LeakedVolume).await?;
    cluster.volumes.replace(&name);
    assert_eq!(
        refused(&mut cluster, &found).await?,
        Reason::ConcurrentChange
    );
    // A machine takes it.
    let other = VmId::from(Uuid::new_v4());
    let disk: &[Locator] = &[locator("vm-vda.qcow2"), locator(&name)];
    cluster.hypervisor.add_vm(other, "other", &[("vda", disk)]);
    cluster.api.wait_for_vm(other.into(), LIMIT).await?;
    let gone = repair(&mut cluster, &found).await?;
    assert_eq!(gone.outcome(), Outcome::AlreadyGone);
    assert!(cluster.volumes.names().contains(&name));
    Ok(())
}

#[tokio::test]
async fn a_silent_host_is_listed_and_nothing_is_removed() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let (_, name) = leak(&mut cluster).await?;
    let found = the_finding(&mut cluster, Kind::LeakedVolume).await?;
    cluster.crash_agent();
    let unknown = the_finding(&mut cluster, Kind::Unknown).await?;
    assert_eq!(unknown.host_ids, ["host-1"]);
    assert_eq!(unknown.details["reason"], "HOST_UNREACHABLE");
    assert_eq!(unknown.repair(), v1::Repair::Unspecified);
    for finding in [&found, &unknown] {
        assert_eq!(
            refused(&mut cluster, finding).await?,
            Reason::HostUnreachable
        );
    }
    assert!(cluster.volumes.names().contains(&name));
    cluster.start_agent().await?;
    let look = async {
        while check(&mut cluster).await? != [found.clone()] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(LIMIT, look).await??;
    let done = repair(&mut cluster, &found).await?;
    assert_eq!(done.outcome(), Outcome::Done);
    Ok(())
}

#[tokio::test]
async fn an_overlay_that_no_operation_left_over_is_listed_and_kept() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    cluster.add_vm("vm", &["vda"]).await?;
    let name = format!("{}.qcow2", Uuid::new_v4());
    cluster.volumes.add_base(&name);
    let found = the_finding(&mut cluster, Kind::LeakedVolume).await?;
    assert!(found.no_repair.contains("not defined"), "{found:?}");
    assert_eq!(refused(&mut cluster, &found).await?, Reason::NoSafeRepair);
    assert!(cluster.volumes.names().contains(&name));
    Ok(())
}

#[tokio::test]
async fn a_removal_that_stopped_half_way_is_resumed() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    cluster.add_vm("vm", &["vda"]).await?;
    cluster.volumes.add_base("old.qcow2");
    let removal = RemovalId::from(Uuid::new_v4());
    cluster.volumes.condemn("old.qcow2", removal);
    let found = the_finding(&mut cluster, Kind::CondemnedLeftover).await?;
    assert_eq!(found.repair(), v1::Repair::ResumeRemoval);
    assert_eq!(found.details["removal"], removal.to_string());
    let done = repair(&mut cluster, &found).await?;
    assert_eq!((done.outcome(), done.freed_bytes), (Outcome::Done, 1 << 16));
    assert_eq!(check(&mut cluster).await?, []);
    let again = repair(&mut cluster, &found).await?;
    assert_eq!(again.outcome(), Outcome::AlreadyGone);
    Ok(())
}

#[tokio::test]
async fn an_unfinished_delete_is_repaired_by_deleting_again() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job", 1).await?;
    let moving = the_finding(&mut cluster, Kind::Unknown).await?;
    assert_eq!(moving.severity(), v1::FindingSeverity::Info);
    assert_eq!(moving.details["operation"], delete.id);

    cluster.hypervisor.kill_vm(VmId::from(vm));
    cluster.api.ended(&delete, LIMIT).await?;
    seen(&mut cluster, vm, |vm| vm.state() == v1::VmState::ShutOff).await?;
    let found = the_finding(&mut cluster, Kind::SnapshotIncomplete).await?;
    assert_eq!(found.repair(), v1::Repair::DeleteSnapshot);

    cluster.hypervisor.start_vm(VmId::from(vm))?;
    cluster.api.wait_for_vm(vm, LIMIT).await?;
    let found = the_finding(&mut cluster, Kind::SnapshotIncomplete).await?;
    assert_eq!(found.repair(), v1::Repair::DeleteSnapshot);
    let request = repair_of(&found);
    let mut inventory = cluster.api.inventory.clone();
    let started = inventory.apply_repair(request.clone()).await?.into_inner();
    assert_eq!(started.outcome(), Outcome::Started);
    let again = started.operation.context("an operation")?;
    let repeated = inventory.apply_repair(request.clone()).await?.into_inner();
    assert_eq!(repeated.operation.unwrap_or_default().id, again.id);
    let reused = v1::ApplyRepairRequest {
        finding_id: moving.id,
        ..request
    };
    let status = inventory.apply_repair(reused).await.unwrap_err();
    assert_eq!(reason(status), Reason::RequestIdReused);

    let disk = "vda".parse()?;
    wait_for_call(&cluster, "start_job", 2).await?;
    cluster
        .hypervisor
        .advance(VmId::from(vm), &disk, usize::MAX);
    wait_for_call(&cluster, "pivot", 1).await?;
    cluster.hypervisor.switch(VmId::from(vm), &disk);
    cluster.hypervisor.notice(VmId::from(vm), &disk);
    cluster.api.succeeded(&again, LIMIT).await?;
    assert_eq!(cluster.volumes.names(), ["vm-vda.qcow2"]);
    assert_eq!(check(&mut cluster).await?, []);
    Ok(())
}

/// Makes a snapshot DELETING with no operation, as no server would.
async fn tear(cluster: &mut Cluster) -> Result<()> {
    cluster.crash_server();
    let record = cluster.record().await?;
    let one = |after| Page { after, limit: 1 };
    let operations = record
        .operations(&OperationFilter::default(), &one(None))
        .await?;
    let snapshots = record
        .snapshots(
            None,
            &Page {
                after: None,
                limit: 1,
            },
        )
        .await?;
    let mut snapshot = snapshots.into_iter().next().context("a snapshot")?;
    snapshot.state = SnapshotState::Deleting;
    let change = Change {
        operation: operations.into_iter().next().context("an operation")?,
        snapshots: vec![SnapshotChange::Put(snapshot)],
        events: vec![],
    };
    record.apply(&change).await?;
    drop(record);
    cluster.start_server().await
}

#[tokio::test]
async fn a_stuck_snapshot_becomes_incomplete_and_can_be_deleted() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    tear(&mut cluster).await?;
    cluster.api.wait_for_vm(vm, LIMIT).await?;
    let stuck = cluster.api.delete(&snapshot).await.unwrap_err();
    assert_eq!(reason(stuck), Reason::SnapshotNotReady);
    let found = the_finding(&mut cluster, Kind::SnapshotStuck).await?;
    assert_eq!(found.severity(), v1::FindingSeverity::Error);
    assert_eq!(found.snapshot_id, snapshot);

    // Torn once more it has another revision, so it is another finding.
    tear(&mut cluster).await?;
    cluster.api.wait_for_vm(vm, LIMIT).await?;
    assert_eq!(
        refused(&mut cluster, &found).await?,
        Reason::ConcurrentChange
    );
    let found = the_finding(&mut cluster, Kind::SnapshotStuck).await?;
    let done = repair(&mut cluster, &found).await?;
    assert_eq!(done.outcome(), Outcome::Done);
    let listed = cluster.api.list(vm).await?;
    assert_eq!(listed[0].state(), v1::SnapshotState::Incomplete);
    let last = cluster.api.log(vm).await?.pop().context("an event")?;
    assert_eq!(last.r#type(), v1::EventType::RepairApplied);
    assert_eq!(last.snapshot_id, snapshot);

    let found = the_finding(&mut cluster, Kind::SnapshotIncomplete).await?;
    let started = repair(&mut cluster, &found).await?;
    let delete = started.operation.context("an operation")?;
    cluster.api.succeeded(&delete, LIMIT).await?;
    assert_eq!(check(&mut cluster).await?, []);
    Ok(())
}

#[tokio::test]
async fn only_what_is_wanted_is_shown() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let (vm, _) = leak(&mut cluster).await?;
    let other = cluster.add_vm("other", &["vda"]).await?;
    let mut ask = async |vm_id: String, host_id: &str| {
        let request = v1::CheckConsistencyRequest {
            vm_id,
            host_id: host_id.to_owned(),
        };
        let answer = cluster.api.inventory.check_consistency(request).await;
        answer.map(|answer| answer.into_inner().findings.len())
    };
    assert_eq!(ask(vm.to_string(), "").await?, 1);
    assert_eq!(ask(vm.to_string(), "host-1").await?, 1);
    assert_eq!(ask(other.to_string(), "").await?, 0);
    assert_eq!(ask(String::new(), "host-1").await?, 1);
    let nowhere = ask(String::new(), "host-9").await.unwrap_err();
    assert_eq!(reason(nowhere), Reason::HostNotFound);
    let nobody = ask(Uuid::new_v4().to_string(), "").await.unwrap_err();
    assert_eq!(reason(nobody), Reason::VmNotFound);
    Ok(())
}

#[tokio::test]
async fn bad_fields_are_named() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let inventory = &mut cluster.api.inventory;
    let fields = |status: Status| {
        let violations = Problem::try_from(status).expect("a reason").violations;
        let names = violations.into_iter().map(|(field, _)| field);
        names.collect::<Vec<_>>()
    };
    let request = v1::CheckConsistencyRequest {
        vm_id: "../etc".to_owned(),
        host_id: "Host 1".to_owned(),
    };
    let status = inventory.check_consistency(request).await.unwrap_err();
    assert_eq!(fields(status), ["vm_id", "host_id"]);
    let request = v1::ApplyRepairRequest {
        request_id: String::new(),
        finding_id: "x-y".to_owned(),
    };
    let status = inventory.apply_repair(request).await.unwrap_err();
    assert_eq!(fields(status), ["request_id", "finding_id"]);
    Ok(())
}
