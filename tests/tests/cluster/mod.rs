//! Both services together, on a scripted hypervisor: what they promise, and what they refuse.

mod clocks;
mod command_line;
mod deletes;
mod faults;
mod refusals;
mod warnings;

use std::time::Duration;

use anyhow::Result;
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::VmId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_tests::cluster::Cluster;
use tonic::Status;
use uuid::Uuid;

const QUICK: Pace = Pace::Every(Duration::from_millis(2));
const LIMIT: Duration = Duration::from_secs(20);

fn reason(status: Status) -> Reason {
    Problem::try_from(status)
        .expect("an error with a reason")
        .reason
}

fn types(events: &[v1::Event]) -> Vec<v1::EventType> {
    events.iter().map(v1::Event::r#type).collect()
}

/// A machine with these disks and one snapshot of it.
async fn with_snapshot(pace: Pace, disks: &[&str]) -> Result<(Cluster, Uuid, String)> {
    let mut cluster = Cluster::start(pace).await?;
    let vm = cluster.add_vm("vm", disks).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    Ok((cluster, vm, snapshot))
}

fn count(cluster: &Cluster, call: &str) -> usize {
    cluster
        .hypervisor
        .calls()
        .iter()
        .filter(|made| made.name() == call)
        .count()
}

async fn wait_for_call(cluster: &Cluster, call: &str) -> Result<()> {
    wait_for_calls(cluster, call, 1).await
}

async fn wait_for_calls(cluster: &Cluster, call: &str, times: usize) -> Result<()> {
    let wait = async {
        while count(cluster, call) < times {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    Ok(tokio::time::timeout(LIMIT, wait).await?)
}

async fn wait_for_status(cluster: &mut Cluster, wanted: v1::HostStatus) -> Result<()> {
    let wait = async {
        loop {
            let request = v1::GetHostRequest {
                host_id: "host-1".to_owned(),
            };
            let host = cluster
                .api
                .inventory
                .get_host(request)
                .await?
                .into_inner()
                .host;
            if host.unwrap_or_default().status() == wanted {
                return Ok::<_, Status>(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    Ok(tokio::time::timeout(LIMIT, wait).await??)
}
