//! Watches: where they begin, go on and end.

use super::*;

#[tokio::test]
async fn a_follower_reads_on_over_restarts_and_has_each_event_once() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda", "vdb"]).await?;
    let mut tail = Tail::open(&mut cluster, from_start()).await?;
    let (mut seen, mut token) = (Vec::new(), String::new());
    for (round, at) in [
        Type::LiveMergeStarted,
        Type::LiveMergeCompleted,
        Type::VolumeRemoved,
    ]
    .into_iter()
    .enumerate()
    {
        let snapshot = cluster.api.snapshot(vm, &format!("s{round}")).await?;
        let delete = cluster.api.delete(&snapshot).await?;
        tail.until(|event| event.r#type() == at && event.operation_id == delete.id)
            .await?;
        cluster.server.crash();
        // What was under way to the reader may still come, or not.
        while tail.piece().await.is_ok() {}
        seen.extend(tail.revisions());
        cluster.start_server().await?;
        token = tail.token.clone();
        tail = Tail::open(&mut cluster, behind(&token)).await?;
        cluster.api.succeeded(&delete, LIMIT).await?;
    }
    let log = log(&mut cluster).await?;
    let wanted: Vec<i64> = log.iter().map(|event| event.revision).collect();
    let last = *wanted.last().context("an event")?;
    // All of it may have come before the last restart, and what happens to the host goes on.
    let mut tail = Tail::open(&mut cluster, behind(&token)).await?;
    while seen.last() < Some(&last) && tail.revisions().last() < Some(&last) {
        tail.piece().await?;
    }
    seen.extend(tail.revisions());
    seen.retain(|revision| *revision <= last);
    assert_eq!(seen, wanted, "each once, in order");
    Ok(())
}

#[tokio::test]
async fn a_watch_begins_with_the_next_event_unless_told_otherwise() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let mut tail = Tail::open(&mut cluster, v1::WatchEventsRequest::default()).await?;
    assert_eq!(
        tail.piece().await?,
        None,
        "a heartbeat says where it begins"
    );
    let begin = tail.token.clone();
    let create = cluster.api.create(vm, "first").await?;
    let about = |event: &v1::Event| event.operation_id == create.id;
    tail.until(|event| about(event) && event.r#type() == Type::SnapshotCreated)
        .await?;
    let first = tail
        .events
        .iter()
        .find(|event| about(event))
        .context("an event")?;
    assert_eq!(first.r#type(), Type::SnapshotCreateRequested);
    let all = log(&mut cluster).await?;
    let before = all
        .iter()
        .filter(|event| event.revision < tail.events[0].revision);
    assert!(before.count() > 0, "something had happened before");
    // The first heartbeat's token is as good as any: nothing is lost if the line breaks then.
    let mut again = Tail::open(&mut cluster, behind(&begin)).await?;
    again
        .until(|event| about(event) && event.r#type() == Type::SnapshotCreated)
        .await?;
    assert_eq!(again.events, tail.events);
    Ok(())
}

#[tokio::test]
async fn a_list_says_where_to_watch_from() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    cluster.api.snapshot(vm, "first").await?;
    let filter = v1::ListEventsRequest {
        vm_id: vm.to_string(),
        ..v1::ListEventsRequest::default()
    };
    let page = v1::ListEventsRequest {
        page_size: 1,
        ..filter.clone()
    };
    let page = list(&mut cluster, page).await?;
    assert_eq!(page.events.len(), 1);
    let watch = |token: &str| v1::WatchEventsRequest {
        vm_id: vm.to_string(),
        ..behind(token)
    };
    let mut tail = Tail::open(&mut cluster, watch(&page.resume_token)).await?;
    tail.until(|event| event.r#type() == Type::SnapshotCreated)
        .await?;
    assert_eq!(tail.events.len(), 1, "the rest, without the page");
    // Behind the last page comes what is new.
    let all = list(&mut cluster, filter).await?;
    let mut tail = Tail::open(&mut cluster, watch(&all.resume_token)).await?;
    let create = cluster.api.create(vm, "second").await?;
    tail.until(|_| true).await?;
    assert_eq!(tail.events[0].operation_id, create.id);
    assert_eq!(tail.events[0].r#type(), Type::SnapshotCreateRequested);
    Ok(())
}

#[tokio::test]
async fn the_newest_come_first_where_they_are_asked_for_and_what_is_newer_is_watched() -> Result<()>
{
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    cluster.api.snapshot(vm, "first").await?;
    let oldest_first = v1::ListEventsRequest {
        vm_id: vm.to_string(),
        ..v1::ListEventsRequest::default()
    };
    let mut wanted = list(&mut cluster, oldest_first.clone()).await?.events;
    wanted.reverse();
    let mut request = v1::ListEventsRequest {
        page_size: 1,
        newest_first: true,
        ..oldest_first.clone()
    };
    let first = list(&mut cluster, request.clone()).await?;
    let mut found = first.events;
    request.page_token = first.next_page_token;
    // Its answers continue no other question.
    let turned = v1::ListEventsRequest {
        page_token: request.page_token.clone(),
        ..oldest_first
    };
    let refused = list(&mut cluster, turned).await.unwrap_err();
    assert!(format!("{refused:#}").contains("page token"), "{refused:#}");
    while !request.page_token.is_empty() {
        let page = list(&mut cluster, request.clone()).await?;
        assert_eq!(page.resume_token, "", "only the first page has one");
        found.extend(page.events);
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, wanted);
    let watch = v1::WatchEventsRequest {
        vm_id: vm.to_string(),
        ..behind(&first.resume_token)
    };
    let mut tail = Tail::open(&mut cluster, watch).await?;
    let create = cluster.api.create(vm, "second").await?;
    tail.until(|_| true).await?;
    assert_eq!(tail.events[0].operation_id, create.id);
    Ok(())
}

#[tokio::test]
async fn a_stopping_server_ends_its_watches_with_the_token() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    cluster.add_vm("vm", &["vda"]).await?;
    let mut quiet = Tail::open(&mut cluster, v1::WatchEventsRequest::default()).await?;
    quiet.piece().await?;
    cluster.drain_server();
    let ended = loop {
        match quiet.piece().await {
            Ok(_) => {}
            Err(status) => break problem(status),
        }
    };
    assert_eq!(ended.reason, Reason::ServerDraining);
    cluster.server.crash();
    cluster.start_server().await?;
    let token = &ended.metadata["resume_token"];
    Tail::open(&mut cluster, behind(token))
        .await?
        .piece()
        .await?;
    Ok(())
}

#[tokio::test]
async fn heartbeats_come_while_others_events_do_and_move_the_token() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let quiet = v1::WatchEventsRequest {
        vm_id: vm.to_string(),
        heartbeat_interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        ..from_start()
    };
    let mut tail = Tail::open(&mut cluster, quiet).await?;
    tail.piece().await?;
    let first = tail.token.clone();
    let mut generation = 0;
    let mut beats = 0;
    while beats < 3 {
        generation += 1;
        note(&mut cluster, generation).await?;
        let next = tokio::time::timeout(Duration::from_millis(1), tail.piece()).await;
        beats += usize::from(next.is_ok());
    }
    assert_eq!(tail.events, [], "nothing happened to the machine");
    let now = v1::ListEventsRequest {
        vm_id: vm.to_string(),
        ..Default::default()
    };
    let now = list(&mut cluster, now).await?.resume_token;
    assert_ne!(now, first);
    while tail.token != now {
        assert_eq!(tail.piece().await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_gets_all_of_a_long_log() -> Result<()> {
    const MANY: i64 = 350;
    let mut cluster = Cluster::start(QUICK).await?;
    let noted = v1::WatchEventsRequest {
        types: vec![Type::HostRegistered.into()],
        ..from_start()
    };
    let mut early = Tail::open(&mut cluster, noted.clone()).await?;
    for generation in 1..=MANY {
        note(&mut cluster, generation).await?;
    }
    let mut late = Tail::open(&mut cluster, noted).await?;
    for tail in [&mut early, &mut late] {
        while tail.events.len() < usize::try_from(MANY)? + 1 {
            tail.piece().await?;
        }
    }
    assert_eq!(early.revisions(), late.revisions());
    assert!(early.revisions().is_sorted_by(|a, b| a < b));
    Ok(())
}
