//! What a plan warns of.

use super::*;

/// From the machine's definition to who plans.
#[tokio::test]
async fn a_plan_warns_of_a_guest_that_discards_while_it_runs() -> Result<()> {
    use v1::MergeWarningReason::{GuestDiscards, TimeUnknown};
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda", "vdb"]).await?;
    let id = cluster.api.snapshot(vm, "before").await?;
    let discarding = "vdb".parse()?;
    let (hypervisor, machine) = (&cluster.hypervisor, VmId::from(vm));
    hypervisor.set_discards(machine, &discarding, true);
    let warned = |plan: &v1::PlanDeleteSnapshotResponse| {
        let of = |merge: &v1::MergePlan| merge.warnings.iter().map(|it| it.reason()).collect();
        plan.merges.iter().map(of).collect::<Vec<Vec<_>>>()
    };
    let plan = cluster
        .api
        .plan(std::slice::from_ref(&id), Default::default())
        .await?;
    assert_eq!(
        warned(&plan),
        [vec![TimeUnknown], vec![GuestDiscards, TimeUnknown]]
    );
    let text = &plan.merges[1].warnings[0].message;
    assert!(text.contains("discard='unmap'"), "{text}");
    // It refuses nothing.
    assert_eq!(plan.blockers, []);
    let delete = cluster.api.delete(&id).await?;
    cluster.api.succeeded(&delete, LIMIT).await?;
    Ok(())
}
