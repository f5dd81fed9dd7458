//! Differences that no repair is safe for: told, and left as they are.

use super::*;

#[tokio::test]
async fn a_foreign_snapshot_is_told_and_not_touched() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    cluster.api.snapshot(vm, "first").await?;
    let ours = active(&mut cluster, vm).await?;
    let foreign = cluster
        .volumes
        .add_overlay("foreign.qcow2", &locator(&ours));
    let overlay = Overlay {
        disk: "vda".parse()?,
        locator: foreign,
    };
    let vm_id = VmId::from(vm);
    cluster.hypervisor.add_overlays(vm_id, &[overlay]).await?;
    let found = the_finding(&mut cluster, Kind::ChainUnknownToRecord).await?;
    assert_eq!(found.volume.clone().unwrap_or_default().name, ours);
    assert_eq!(found.details["disk"], "vda");
    assert_eq!(refused(&mut cluster, &found).await?, Reason::NoSafeRepair);
    Ok(())
}

#[tokio::test]
async fn a_volume_that_is_gone_under_its_snapshot_is_an_error() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    cluster.volumes.lose("vm-vda.qcow2");
    let found = the_finding(&mut cluster, Kind::RecordWithoutVolume).await?;
    assert_eq!(found.severity(), v1::FindingSeverity::Error);
    assert_eq!(found.snapshot_id, snapshot);
    assert_eq!(refused(&mut cluster, &found).await?, Reason::NoSafeRepair);
    assert_eq!(cluster.api.list(vm).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_machine_on_another_disk_leaves_its_old_one_alone() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    cluster.api.snapshot(vm, "first").await?;
    let ours = active(&mut cluster, vm).await?;
    let other = cluster.volumes.add_base("other.qcow2");
    let disk: &[Locator] = &[other];
    cluster
        .hypervisor
        .add_vm(VmId::from(vm), "vm", &[("vda", disk)]);
    let moved = |vm: &v1::Vm| vm.disks[0].locator == "/fake/other.qcow2";
    seen(&mut cluster, vm, moved).await?;
    let findings = check(&mut cluster).await?;
    let wanted = [Kind::SnapshotNotInChain, Kind::LeakedVolume];
    assert_eq!(kinds(&findings), wanted, "{findings:#?}");
    for finding in &findings {
        assert_eq!(refused(&mut cluster, finding).await?, Reason::NoSafeRepair);
    }
    assert!(
        cluster.volumes.names().contains(&ours),
        "what the guest wrote there is all that there is of it"
    );
    Ok(())
}

#[tokio::test]
async fn a_header_that_leads_elsewhere_is_an_error() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    cluster.api.snapshot(vm, "first").await?;
    let ours = active(&mut cluster, vm).await?;
    let other = cluster.volumes.add_base("other.qcow2");
    let images = cluster.hypervisor.images();
    images.create(&locator(&ours), Some(&other));
    let found = the_finding(&mut cluster, Kind::HeaderDiffersFromChain).await?;
    assert_eq!(found.severity(), v1::FindingSeverity::Error);
    assert_eq!(found.details["header"], "/fake/other.qcow2");
    assert_eq!(found.details["chain"], "/fake/vm-vda.qcow2");
    assert_eq!(refused(&mut cluster, &found).await?, Reason::NoSafeRepair);
    Ok(())
}

#[tokio::test]
async fn a_hypervisor_that_does_not_answer_is_unknown() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    cluster.api.snapshot(vm, "first").await?;
    cluster.hypervisor.disconnect();
    let findings = check(&mut cluster).await?;
    assert!(!findings.is_empty());
    for finding in &findings {
        assert_eq!(finding.kind(), Kind::Unknown, "{finding:?}");
        assert_eq!(finding.severity(), v1::FindingSeverity::Warning);
    }
    let silent = |finding: &v1::Finding| finding.details["reason"] == "HYPERVISOR_UNREACHABLE";
    assert!(findings.iter().any(silent), "{findings:#?}");
    Ok(())
}
