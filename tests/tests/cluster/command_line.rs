//! What the command line selects, on a server that does what it is told.

use anyhow::{Context as _, Result, ensure};
use jiff::SignedDuration;
use livemerge_tests::cluster::Who;
use livemerge_tests::services::program;
use tokio::process::Command;

use super::*;

/// Calls `livemerge`, which must end well.
async fn livemerge(server: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program("livemerge")?);
    command.args(["--server", server]).args(args);
    let ran = command.kill_on_drop(true).output().await?;
    let (out, err) = (ran.stdout, String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "{args:?}: {}: {err}", ran.status);
    Ok(String::from_utf8_lossy(&out).into_owned())
}

async fn names(cluster: &mut Cluster, vm: Uuid) -> Result<Vec<String>> {
    let listed = cluster.api.list(vm).await?;
    Ok(listed.into_iter().map(|snapshot| snapshot.name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_deletes_what_is_old_and_then_all() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda", "vdb"]).await?;
    let week = SignedDuration::from_hours(8 * 24);
    cluster.clock(Who::Server).jump(-week);
    for name in ["a", "b"] {
        cluster.api.snapshot(vm, name).await?;
    }
    cluster.clock(Who::Server).jump(week);
    for name in ["c", "d"] {
        cluster.api.snapshot(vm, name).await?;
    }
    let port = cluster.network.open_port(Who::Server.address()).await?;
    let server = format!("http://{port}");
    let delete = ["snapshot", "delete", "--vm", "vm", "--yes", "--wait"];
    let told = livemerge(&server, &[&delete[..], &["--older-than", "7d"]].concat()).await?;
    assert!(told.contains("succeeded"), "{told}");
    assert_eq!(names(&mut cluster, vm).await?, ["c", "d"]);
    // A timer's next run finds nothing that is old enough.
    livemerge(&server, &[&delete[..], &["--older-than", "7d"]].concat()).await?;
    assert_eq!(names(&mut cluster, vm).await?, ["c", "d"]);
    let told = livemerge(&server, &[&delete[..], &["--all"]].concat()).await?;
    assert!(told.contains("succeeded"), "{told}");
    assert_eq!(names(&mut cluster, vm).await?, [""; 0]);
    // Two neighbours in one job each time, on both disks, and no volume is left.
    assert_eq!(count(&cluster, "start_job"), 4);
    assert_eq!(cluster.volumes.names().len(), 2);
    let view = cluster.hypervisor.peek(VmId::from(vm));
    let disks = view.context("the machine")?.disks;
    assert!(disks.iter().all(|disk| disk.chain.len() == 1), "{disks:?}");
    Ok(())
}
