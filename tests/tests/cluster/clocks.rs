//! Clocks that are set by eight days in mid-merge: further than an agent remembers a merge, and a
//! server a request.

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use jiff::SignedDuration;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use livemerge_tests::cluster::Who;

use super::*;

/// How many clusters at once.
const AT_ONCE: usize = 6;
const POLL: Duration = Duration::from_millis(5);

/// When the clocks are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Copying,
    PivotAsked,
    /// While the server is down: it has neither seen the end nor ordered the removal.
    Merged,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    days: i64,
    of: &'static [Who],
    moment: Moment,
    /// Both services are killed and started again after it.
    killed: bool,
}

impl Case {
    /// An agent forgets merges that have ended a week ago when it starts. One whose end the server
    /// has not seen cannot be told any more.
    fn forgets(&self) -> bool {
        let of_agent = self.of.contains(&Who::Agent) && self.days > 0;
        of_agent && self.killed && self.moment == Moment::Merged
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for days in [8, -8] {
        for of in [
            &[Who::Server][..],
            &[Who::Agent],
            &[Who::Server, Who::Agent],
        ] {
            for moment in [Moment::Copying, Moment::PivotAsked, Moment::Merged] {
                for killed in [false, true] {
                    cases.push(Case {
                        days,
                        of,
                        moment,
                        killed,
                    });
                }
            }
        }
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_eight_days_in_mid_merge_lose_nothing_and_it_ends() -> Result<()> {
    let cases = cases();
    assert_eq!(cases.len(), 36);
    for some in cases.chunks(AT_ONCE) {
        let plays = some
            .iter()
            .map(|case| async move { play(*case).await.with_context(|| format!("{case:?}")) });
        try_join_all(plays).await?;
    }
    Ok(())
}

async fn play(case: Case) -> Result<()> {
    let mut cluster = Cluster::start(Pace::Manual).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let disk = "vda".parse()?;
    let write = |cluster: &Cluster, block| {
        let vm = VmId::from(vm);
        cluster.hypervisor.guest_write(vm, &disk, block, 70 + block)
    };
    write(&cluster, 1);
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    write(&cluster, 2);
    let delete = cluster.api.delete(&snapshot).await?;
    wait_for_call(&cluster, "start_job").await?;
    if case.moment == Moment::Copying {
        jump(&mut cluster, case).await?;
    }
    write(&cluster, 3);
    cluster
        .hypervisor
        .advance(VmId::from(vm), &disk, usize::MAX);
    wait_for_call(&cluster, "pivot").await?;
    if case.moment == Moment::PivotAsked {
        jump(&mut cluster, case).await?;
    }
    let hypervisor = cluster.hypervisor.clone();
    let of_job = disk.clone();
    let job = tokio::spawn(async move {
        // A pivot that was called off is asked for again.
        loop {
            hypervisor.advance(VmId::from(vm), &of_job, usize::MAX);
            if hypervisor.switch(VmId::from(vm), &of_job) {
                hypervisor.notice(VmId::from(vm), &of_job);
            }
            tokio::time::sleep(POLL).await;
        }
    });
    if case.moment == Moment::Merged {
        cluster.crash_server();
        merged(&cluster).await?;
        jump(&mut cluster, case).await?;
        if !cluster.server.runs() {
            cluster.start_server().await?;
        }
    }
    let ended = cluster.api.ended(&delete, LIMIT).await;
    job.abort();
    let failure = ended?.failure.map(|failure| failure.reason);
    if case.forgets() {
        ensure!(failure.as_deref() == Some("CHAIN_DIVERGED"), "{failure:?}");
        ensure!(cluster.volumes.names().len() == 2, "removed unseen");
        let again = cluster.api.delete(&snapshot).await?;
        cluster.api.succeeded(&again, LIMIT).await?;
    } else {
        ensure!(failure.is_none(), "{failure:?}");
    }
    ensure!(cluster.api.list(vm).await?.is_empty());
    ensure!(cluster.volumes.names() == ["vm-vda.qcow2"]);
    for block in 1..=3 {
        let read = cluster.hypervisor.guest_read(VmId::from(vm), &disk, block);
        ensure!(read == Some(70 + block), "block {block} reads {read:?}");
    }
    let calls = cluster.hypervisor.calls();
    let started = calls.iter().filter(|call| call.name() == "start_job");
    ensure!(started.count() == 1, "the job was started again");
    Ok(())
}

async fn jump(cluster: &mut Cluster, case: Case) -> Result<()> {
    for who in case.of {
        cluster
            .clock(*who)
            .jump(SignedDuration::from_hours(24 * case.days));
    }
    if case.killed {
        cluster.crash_server();
        cluster.crash_agent();
        cluster.start_server().await?;
        cluster.start_agent().await?;
    }
    Ok(())
}

/// Waits until the agent has merged.
async fn merged(cluster: &Cluster) -> Result<()> {
    let mut agent = MergeServiceClient::new(cluster.agent_channel()?);
    let look = async {
        loop {
            let all = agent.list_merges(v1::ListMergesRequest::default()).await?;
            let merges = all.into_inner().merges;
            if merges
                .iter()
                .any(|merge| merge.phase() == v1::MergePhase::Merged)
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, look).await?
}
