//! What is beyond the limits waits in a queue, says so, and is served in order; total rates are kept.

use std::time::Duration;

use anyhow::Result;
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::VmId;
use livemerge_proto::v1;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use livemerge_tests::cluster::Cluster;
use tonic::transport::Channel;
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(20);

/// Looks until it is so.
async fn until(what: &str, mut look: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let looks = async {
        while !look().await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    };
    let looked = tokio::time::timeout(LIMIT, looks).await;
    looked.unwrap_or_else(|_late| anyhow::bail!("{what} does not come"))
}

/// Machines with one disk and one snapshot each, whose jobs go by the test's word.
async fn machines(cluster: &mut Cluster, count: usize) -> Result<Vec<(Uuid, String)>> {
    let mut machines = Vec::new();
    for number in 0..count {
        let vm = cluster.add_vm(&format!("vm{number}"), &["vda"]).await?;
        machines.push((vm, cluster.api.snapshot(vm, "first").await?));
    }
    Ok(machines)
}

async fn operation(cluster: &mut Cluster, id: &str) -> Result<v1::Operation> {
    cluster.api.operation(id).await
}

/// The operations that wait for their turn: their ids, why, and their places.
async fn queue(cluster: &mut Cluster) -> Result<Vec<(String, String, i32)>> {
    let request = v1::ListOperationsRequest {
        states: vec![v1::OperationState::Queued.into()],
        ..v1::ListOperationsRequest::default()
    };
    let answer = cluster.api.operations.list_operations(request).await?;
    let mut queue: Vec<_> = answer
        .into_inner()
        .operations
        .into_iter()
        .map(|operation| {
            let waiting = operation.waiting.unwrap_or_default();
            (operation.id, waiting.reason, waiting.queue_position)
        })
        .collect();
    queue.sort_by_key(|(_, reason, position)| (reason.clone(), *position));
    Ok(queue)
}

async fn succeeded(cluster: &mut Cluster, id: &str) -> Result<()> {
    let operation = operation(cluster, id).await?;
    cluster.api.succeeded(&operation, LIMIT).await?;
    Ok(())
}

fn started(cluster: &Cluster) -> usize {
    let calls = cluster.hypervisor.calls();
    calls
        .iter()
        .filter(|made| made.name() == "start_job")
        .count()
}

/// Takes the machine's job to its end.
async fn merge(cluster: &mut Cluster, vm: Uuid) -> Result<()> {
    let (vm, disk) = (VmId::from(vm), "vda".parse()?);
    let pivots = |cluster: &Cluster| {
        let calls = cluster.hypervisor.calls();
        calls.iter().filter(|made| made.name() == "pivot").count()
    };
    let before = pivots(cluster);
    cluster.hypervisor.advance(vm, &disk, usize::MAX);
    until("the pivot", async || Ok(pivots(cluster) > before)).await?;
    cluster.hypervisor.switch(vm, &disk);
    cluster.hypervisor.notice(vm, &disk);
    Ok(())
}

#[tokio::test]
async fn beyond_the_limit_operations_queue_in_order_and_say_so() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    cluster.configure("[merge]\nmax_per_host = 1\n").await?;
    let machines = machines(&mut cluster, 3).await?;
    let mut deletes = Vec::new();
    for (place, (_, snapshot)) in machines.iter().enumerate() {
        deletes.push(cluster.api.delete(snapshot).await?.id);
        let full = "MERGE_LIMIT_REACHED".to_owned();
        let behind = deletes[1..].iter().zip(1..);
        let wanted: Vec<_> = behind
            .map(|(id, at)| (id.clone(), full.clone(), at))
            .collect();
        until("the queue", async || {
            Ok(queue(&mut cluster).await? == wanted)
        })
        .await?;
        until("the first job", async || Ok(started(&cluster) == 1)).await?;
        if place == 1 {
            let second = operation(&mut cluster, &deletes[1]).await?;
            assert_eq!(second.state(), v1::OperationState::Queued);
            let waiting = second.waiting.unwrap_or_default();
            assert!(
                waiting.message.contains("host host-1"),
                "{}",
                waiting.message
            );
        }
    }
    // What is behind another one of its machine waits for that, and for no limit.
    let other = cluster.api.create(machines[2].0, "second").await?.id;
    let behind = operation(&mut cluster, &other).await?.waiting;
    let behind = behind.unwrap_or_default();
    assert_eq!(
        (behind.reason.as_str(), behind.queue_position),
        ("VM_BUSY", 1)
    );

    // The server starts again: the order is the same.
    cluster.crash_server();
    cluster.start_server().await?;
    until("the queue again", async || {
        Ok(queue(&mut cluster).await?.len() == 3)
    })
    .await?;
    for (turn, (vm, _)) in machines.iter().enumerate() {
        until("its job", async || Ok(started(&cluster) == turn + 1)).await?;
        // The host has begun it: the server hears of that in its own time.
        until("its start", async || {
            let shown = operation(&mut cluster, &deletes[turn]).await?;
            Ok(shown.state() == v1::OperationState::Running && shown.waiting.is_none())
        })
        .await?;
        for later in &deletes[turn + 1..] {
            let later = operation(&mut cluster, later).await?;
            assert_eq!(
                later.state(),
                v1::OperationState::Queued,
                "{turn}: {later:?}"
            );
        }
        merge(&mut cluster, *vm).await?;
        succeeded(&mut cluster, &deletes[turn]).await?;
    }
    succeeded(&mut cluster, &other).await?;
    assert_eq!(queue(&mut cluster).await?, []);
    Ok(())
}

#[tokio::test]
async fn who_waits_can_be_cancelled_and_lets_the_next_one_through() -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    cluster.configure("[merge]\nmax_per_storage = 1\n").await?;
    let machines = machines(&mut cluster, 3).await?;
    let mut deletes = Vec::new();
    for (_, snapshot) in &machines {
        deletes.push(cluster.api.delete(snapshot).await?.id);
    }
    until("the queue", async || {
        Ok(queue(&mut cluster).await?.len() == 2)
    })
    .await?;
    let waiting = operation(&mut cluster, &deletes[1]).await?.waiting;
    let message = waiting.unwrap_or_default().message;
    assert!(message.contains("storage domain default"), "{message}");
    let request = v1::CancelOperationRequest {
        operation_id: deletes[1].clone(),
    };
    cluster.api.operations.cancel_operation(request).await?;
    until("the next place", async || {
        let queue = queue(&mut cluster).await?;
        Ok(queue
            .iter()
            .map(|(id, _, at)| (id, *at))
            .eq([(&deletes[2], 1)]))
    })
    .await?;
    let cancelled = operation(&mut cluster, &deletes[1]).await?;
    assert_eq!(cancelled.state(), v1::OperationState::Cancelled);
    merge(&mut cluster, machines[0].0).await?;
    succeeded(&mut cluster, &deletes[0]).await?;
    until("its job", async || Ok(started(&cluster) == 2)).await?;
    merge(&mut cluster, machines[2].0).await?;
    succeeded(&mut cluster, &deletes[2]).await?;
    assert_eq!(cluster.api.list(machines[1].0).await?.len(), 1, "it stays");
    Ok(())
}

/// The limits of the jobs that run, as the host has them.
async fn rates(agent: &mut MergeServiceClient<Channel>) -> Result<Vec<i64>> {
    let answer = agent.list_merges(v1::ListMergesRequest::default()).await?;
    let merges = answer.into_inner().merges.into_iter();
    let open = merges.filter(|merge| merge.ended_at.is_none());
    Ok(open.map(|merge| merge.bytes_per_second).collect())
}

#[tokio::test]
async fn a_total_rate_is_kept_and_shared_anew() -> Result<()> {
    for place in ["host", "storage"] {
        let mut cluster = Cluster::start(Pace::Manual).await?;
        let limit = format!("[merge]\n{place}_bytes_per_second = 6000\n");
        cluster.configure(&limit).await?;
        let machines = machines(&mut cluster, 3).await?;
        let mut agent = MergeServiceClient::new(cluster.agent_channel()?);
        let mut deletes = Vec::new();
        for (count, (_, snapshot)) in (1..).zip(&machines) {
            deletes.push(cluster.api.delete(snapshot).await?.id);
            let shares = vec![6000 / count; usize::try_from(count)?];
            until(
                "the shares",
                async || Ok(rates(&mut agent).await? == shares),
            )
            .await?;
        }
        for (left, (vm, _)) in [2, 1, 0].into_iter().zip(&machines) {
            merge(&mut cluster, *vm).await?;
            succeeded(&mut cluster, &deletes[2 - left]).await?;
            let shares = vec![6000 / i64::try_from(left.max(1))?; left];
            until("the new shares", async || {
                Ok(rates(&mut agent).await? == shares)
            })
            .await?;
        }
    }
    Ok(())
}
