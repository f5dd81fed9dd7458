//! Who is the agent of a host: one that has been replaced while it stood still, and wakes up.

use anyhow::{Result, ensure};
use livemerge_proto::v1;
use livemerge_tests::journal::{Journal, starts};
use livemerge_tests::scene::{LIMIT, Scene};
use livemerge_tests::services::SECOND_STATE;

use super::{POLL, WEIGHT_BYTES, WORKLOAD, assert_nothing_lost, slow};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_wakes_up_replaced_is_refused_and_the_merge_is_done_once() -> Result<()> {
    let mut scene = Scene::begin_with_daemon(&["vda"], WORKLOAD).await?;
    let vm = scene.vm();
    let snapshot = scene.snapshot("nightly").await?;
    scene.grow_active_layer("vda", WEIGHT_BYTES).await?;
    let images = scene.images_of("vda").await?;
    let deletion = scene.api.delete_with(&snapshot, slow()).await?;
    let merge = scene.until_copying().await?;

    scene.services.agent.freeze(true)?;
    scene.until_host(v1::HostStatus::Unresponsive).await?;
    let mut second = scene.services.second_agent(&scene.rig)?;
    second.start()?;
    scene.until_host(v1::HostStatus::Up).await?;

    // Both see the job, and one is the host's agent.
    scene.services.agent.freeze(false)?;
    let begun = std::time::Instant::now();
    while !scene.services.agent.log_text().contains("STALE_GENERATION") {
        let log = scene.services.agent.log_text();
        ensure!(begun.elapsed() < LIMIT, "nobody refuses it: {log}");
        tokio::time::sleep(POLL).await;
    }
    assert!(!second.log_text().contains("STALE_GENERATION"));
    // Its job goes on by itself, so slowly that nothing is to be written down before it is refused.
    let left = scene.journal().history(&merge.id)?;
    assert_eq!(left.last().map(|line| &*line.phase), Some("copying"));
    let open = scene.api.operation(&deletion.id).await?;
    assert_eq!(open.state(), v1::OperationState::Running, "{open:?}");
    assert!(images[1].exists());
    scene.api.limit(&deletion, 0).await?;

    scene.api.succeeded(&deletion, LIMIT).await?;
    let own = Journal::at(scene.rig.path().join(SECOND_STATE).join("merges"));
    assert_eq!(own.merges(), std::slice::from_ref(&merge.id));
    let story = own.history(&merge.id)?;
    assert_eq!(story.last().map(|line| &*line.phase), Some("merged"));
    let theirs = scene.journal().history(&merge.id)?;
    assert_eq!(theirs, left, "the older one does nothing more");
    for story in [story, theirs] {
        assert_eq!(starts(&story), 1, "{story:?}");
    }
    let log = scene.api.log(vm).await?;
    let completed = |event: &&v1::Event| event.r#type() == v1::EventType::LiveMergeCompleted;
    assert_eq!(log.iter().filter(completed).count(), 1);
    assert!(!images[1].exists());
    assert_eq!(scene.images_of("vda").await?, images[..1]);
    assert_eq!(scene.api.list(vm).await?, []);
    scene.agrees().await?;

    std::mem::swap(&mut scene.services.agent, &mut second);
    second.stop()?;
    scene.write_more(20).await?;
    assert_nothing_lost(&scene.verdicts().await?);
    Ok(())
}
