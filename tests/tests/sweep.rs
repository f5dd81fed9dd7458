//! A fixed part of the fault sweep, and the proof that its looks can fail. All of it:
//! `cargo run --bin livemerge-sweep`.

#![allow(clippy::print_stdout, reason = "the sweep's table")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use livemerge_host_agent::hypervisor::fake::Pace;
use livemerge_proto::ids::VmId;
use livemerge_tests::cluster::{Between, Cluster, Upset, Who};
use livemerge_tests::sweep::backstage::{Backstage, Witness};
use livemerge_tests::sweep::case::{Case, Ending};
use livemerge_tests::sweep::fault::{Fault, Site};
use livemerge_tests::sweep::ledger::{Ledger, image};
use livemerge_tests::sweep::report::Report;
use livemerge_tests::sweep::scenario::{SCENARIOS, scenario};
use livemerge_tests::sweep::stage::{Plan, Stage};
use livemerge_tests::sweep::world::World;
use livemerge_tests::sweep::{Passed, dry_run, every_point_is_passed, play, rows};

const JOBS: usize = 12;

fn crash(site: Site, hit: usize, who: Who) -> Plan {
    let fault = Fault::Crash(who);
    Plan { site, hit, fault }
}

async fn all_kept(cases: Vec<Case>) {
    assert!(!cases.is_empty());
    play(cases, JOBS, |case, ended| {
        let kept = matches!(ended.ending, Ending::Kept(_));
        assert!(kept, "{case}: {:?}", ended.ending);
    })
    .await;
}

/// Every fault at every site, on so many of the rows that pass it.
const TIMES: usize = 2;

async fn dry_runs() -> Result<Vec<Passed>> {
    let dry = |row| async move { anyhow::Ok((row, dry_run(row).await?)) };
    let passed = futures::stream::iter(&SCENARIOS).map(dry);
    let mut passed: Vec<_> = passed.buffer_unordered(JOBS).try_collect().await?;
    passed.sort_by_key(|(row, _)| row.name);
    every_point_is_passed(&passed)?;
    Ok(passed)
}

/// The fixed part of the sweep: its table is printed, and written to `target/sweep-ci.txt`.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_every_step_of_some_row_loses_nothing() -> Result<()> {
    let began = Instant::now();
    let passed = dry_runs().await?;
    let cases = rows::representative(&passed, TIMES);
    for row in &SCENARIOS {
        let played = cases.iter().any(|case| case.scenario == row);
        assert!(played, "no case of row {}", row.name);
    }
    let mut report = Report::default();
    for (row, hits) in &passed {
        let (all, left_out) = rows::singles(row, hits);
        let played = cases.iter().filter(|case| case.scenario == *row).count();
        report.leave_out(left_out);
        report.leave_out(vec![rows::LeftOut {
            what: format!("{} / the same faults at other passings or points", row.name),
            cases: all.len() - played,
        }]);
    }
    let mut cases = cases;
    cases.extend(rows::mends());
    play(cases, JOBS, |case, ended| report.note(&case, &ended.ending)).await;
    let text = format!(
        "{report}\nIn `make sweep` are all but those that repeat themselves, and second faults\n\
         played in {:.1?}\n",
        began.elapsed()
    );
    println!("{text}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sweep-ci.txt");
    std::fs::write(file, text)?;
    assert!(report.broken.is_empty(), "{:#?}", report.broken);
    assert!(report.missed.is_empty(), "{:#?}", report.missed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_beside_a_machine_is_met() -> Result<()> {
    let running = dry_run(scenario("pivot-running").context("the scenario")?).await?;
    let passes = |site| running.contains_key(site);
    assert!(passes("hypervisor::pivot") && !passes("hypervisor::suspend"));
    let rates = dry_run(scenario("rates").context("the scenario")?).await?;
    assert!(rates.contains_key("rpc::SetMergeBandwidth"), "{rates:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_played_hardly_depends_on_the_moment() -> Result<()> {
    let [once, again] = [dry_runs().await?, dry_runs().await?];
    let [once, again] = [once, again].map(|passed| rows::representative(&passed, TIMES));
    // Some rows pass some sites only now and then: whether a merge is seen ready before it has ended, say.
    let only = |these: &[Case], those: &[Case]| -> Vec<String> {
        let only = these.iter().filter(|case| !those.contains(case));
        only.map(Case::to_string).collect()
    };
    let differ = [only(&once, &again), only(&again, &once)].concat();
    assert!(differ.len() * 20 < once.len() + again.len(), "{differ:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_holding_back_does_not_help_is_given_an_overlay() -> Result<()> {
    let scenario = scenario("overlay").context("the scenario")?;
    let plans = vec![];
    let ended = Case { scenario, plans }.play().await;
    let kept = "succeeded, an overlay was left and deleted".to_owned();
    assert_eq!(ended.ending, Ending::Kept(kept));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_around_a_freeze_the_guest_is_thawed() -> Result<()> {
    let take = scenario("take").context("the scenario")?;
    let passed = dry_run(take).await?;
    let (mut cases, _) = rows::singles(take, &passed);
    cases.retain(|case| {
        let site = case.plans[0].site;
        ["freeze", "thaw", "overlays-on", "add_overlays"]
            .iter()
            .any(|part| site.contains(part))
    });
    all_kept(cases).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_crash_during_the_recovery_loses_nothing() -> Result<()> {
    use Who::{Agent, Server};
    let pairs = [
        // The pivot is asked for and the agent dies, twice.
        [
            crash("agent::after-act", 3, Agent),
            crash("agent::after-persist", 1, Agent),
        ],
        // Written down as asked for, not asked for; then the other service.
        [
            crash("agent::after-persist", 4, Agent),
            crash("agent::before-persist", 1, Server),
        ],
        // The merge is seen by the server, and not noted; then on the way to the agent.
        [
            crash("api::before-enter", 2, Server),
            crash("api::before-ask", 1, Server),
        ],
        // The volume is gone, and nobody knows.
        [
            crash("agent::after-removal", 1, Agent),
            crash("api::after-ask", 1, Server),
        ],
        [
            crash("agent::before-removal", 1, Server),
            crash("agent::after-removal", 1, Agent),
        ],
        // It comes back, and cannot see the machines yet.
        [
            crash("agent::after-act", 1, Agent),
            Plan {
                site: "hypervisor::vms",
                hit: 1,
                fault: Fault::Upset(Upset::Unreached),
            },
        ],
    ];
    let scenario = scenario("active").context("the scenario")?;
    let case = |plans: [Plan; 2]| Case {
        scenario,
        plans: plans.to_vec(),
    };
    all_kept(pairs.map(case).to_vec()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_could_not_be_noted_is_noted_later() -> Result<()> {
    let unreached = |hit| Plan {
        site: "store::put_vms",
        hit,
        fault: Fault::Upset(Upset::Unreached),
    };
    // The hits of a later plan are counted from the fault before it.
    let stage = Stage::new(&[unreached(1), unreached(1)]);
    let backstage = Backstage {
        stage: Arc::clone(&stage),
        witness: Default::default(),
    };
    let mut cluster = Cluster::start_behind(Pace::Manual, Arc::new(backstage)).await?;
    let first = cluster.add_vm("first", &["vda"]).await?;
    stage.arm(&cluster, VmId::from(first));
    // It is in the list only when it stands in the record.
    cluster.add_vm("second", &["vda"]).await?;
    assert!(stage.pending().is_empty());
    Ok(())
}

/// A machine with a snapshot, and everything that looks at it.
struct Scene {
    cluster: Cluster,
    vm: VmId,
    stage: Arc<Stage>,
    backstage: Arc<Backstage>,
    world: World,
    ledger: Ledger,
}

impl Scene {
    async fn start() -> Result<Self> {
        let stage = Stage::new(&[]);
        let backstage = Arc::new(Backstage {
            stage: Arc::clone(&stage),
            witness: Default::default(),
        });
        let mut cluster = Cluster::start_behind(Pace::Manual, Arc::clone(&backstage) as _).await?;
        let vm = cluster.add_vm("vm", &["vda"]).await?;
        let world = World::new(
            cluster.hypervisor.clone(),
            VmId::from(vm),
            Arc::clone(&stage),
        );
        world.fill();
        let snapshot = cluster.api.snapshot(vm, "a").await?;
        let ledger = Ledger {
            images: cluster.hypervisor.images().clone(),
            stage: Arc::clone(&stage),
            taken: [(snapshot, world.acknowledged())].into(),
        };
        let witness = Witness {
            hypervisor: cluster.hypervisor.clone(),
        };
        assert!(backstage.witness.set(witness).is_ok());
        Ok(Self {
            cluster,
            vm: VmId::from(vm),
            stage,
            backstage,
            world,
            ledger,
        })
    }

    fn look(&self) -> Vec<String> {
        self.world.check();
        self.ledger.check();
        self.stage.violations()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_write_and_a_changed_snapshot_are_seen() -> Result<()> {
    let scene = Scene::start().await?;
    assert!(scene.look().is_empty());
    let images = scene.cluster.hypervisor.images().clone();
    images.write(&image("vm-vda.qcow2"), 1, 999);
    let seen = scene.look();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].contains("was acknowledged"), "{seen:?}");
    assert!(seen[1].contains("was taken"), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_without_its_volume_is_seen() -> Result<()> {
    let scene = Scene::start().await?;
    let images = scene.cluster.hypervisor.images().clone();
    scene.cluster.hypervisor.remove_vm(scene.vm);
    assert!(images.remove(&image("vm-vda.qcow2")));
    let seen = scene.look();
    assert!(seen[0].contains("cannot be read"), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removal_of_a_volume_that_is_needed_is_seen() -> Result<()> {
    let scene = Scene::start().await?;
    scene.backstage.removing(&"unknown.qcow2".parse()?).await;
    assert!(scene.stage.violations().is_empty());
    scene.backstage.removing(&"vm-vda.qcow2".parse()?).await;
    let seen = scene.stage.violations();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen[0].contains("while vm names it"), "{seen:?}");
    assert!(seen[1].contains("while snapshot a names it"), "{seen:?}");
    Ok(())
}
