//! Filters and tokens: what is asked, and what is refused.

use super::*;

type Fits<'a> = &'a dyn Fn(&v1::Event) -> bool;

#[tokio::test]
async fn filters_are_the_same_for_lists_and_watches() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let other = cluster.add_vm("other", &["vda"]).await?;
    let snapshot = cluster.api.snapshot(vm, "first").await?;
    cluster.api.snapshot(other, "first").await?;
    let refused = HypervisorError::Refused("not now".to_owned());
    cluster.hypervisor.fail_next("pivot", refused);
    let delete = cluster.api.delete(&snapshot).await?;
    cluster.api.succeeded(&delete, LIMIT).await?;
    let all = log(&mut cluster).await?;
    let merged = [Type::LiveMergeCompleted, Type::VolumeRemoved];
    let questions: [(v1::WatchEventsRequest, Fits<'_>); 6] = [
        (from_start(), &|_| true),
        (
            v1::WatchEventsRequest {
                vm_id: other.to_string(),
                ..from_start()
            },
            &|event| event.vm_id == other.to_string(),
        ),
        (
            v1::WatchEventsRequest {
                operation_id: delete.id.clone(),
                ..from_start()
            },
            &|event| event.operation_id == delete.id,
        ),
        (
            v1::WatchEventsRequest {
                least_severity: Severity::Warning.into(),
                ..from_start()
            },
            &|event| event.severity() != Severity::Info,
        ),
        (
            v1::WatchEventsRequest {
                types: merged.map(i32::from).to_vec(),
                ..from_start()
            },
            &|event| merged.contains(&event.r#type()),
        ),
        (
            v1::WatchEventsRequest {
                vm_id: vm.to_string(),
                least_severity: Severity::Warning.into(),
                types: vec![Type::LiveMergePivotPutOff.into()],
                ..from_start()
            },
            &|event| event.r#type() == Type::LiveMergePivotPutOff,
        ),
    ];
    for (question, fits) in questions {
        let wanted: Vec<v1::Event> = all.iter().filter(|event| fits(event)).cloned().collect();
        assert!(!wanted.is_empty(), "{question:?}");
        let listed = v1::ListEventsRequest {
            vm_id: question.vm_id.clone(),
            operation_id: question.operation_id.clone(),
            least_severity: question.least_severity,
            types: question.types.clone(),
            page_size: 1000,
            ..v1::ListEventsRequest::default()
        };
        let listed = list(&mut cluster, listed).await?.events;
        assert_eq!(listed[..wanted.len()], wanted, "{question:?}");
        let mut tail = Tail::open(&mut cluster, question.clone()).await?;
        let last = wanted.last().context("an event")?.revision;
        tail.until(|event| event.revision == last).await?;
        assert_eq!(tail.events, wanted, "{question:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let vm = cluster.add_vm("vm", &["vda"]).await?;
    let mut tail = Tail::open(&mut cluster, from_start()).await?;
    tail.piece().await?;
    let good = tail.token;
    let of_vm = v1::WatchEventsRequest {
        vm_id: vm.to_string(),
        ..behind(&good)
    };
    let cut = good[..good.len() - 1].to_owned();
    for wrong in [
        of_vm,
        behind("x"),
        behind(&cut),
        behind(&format!("{good}0")),
    ] {
        let refused = Tail::open(&mut cluster, wrong.clone()).await.err();
        let reason = refused.map(|status| problem(status).reason);
        assert_eq!(reason, Some(Reason::ResumeTokenInvalid), "{wrong:?}");
    }
    let tick = |millis: i32| prost_types::Duration {
        seconds: 0,
        nanos: millis * 1_000_000,
    };
    let bad = [
        (
            v1::WatchEventsRequest {
                from_start: true,
                ..behind(&good)
            },
            "from_start",
        ),
        (
            v1::WatchEventsRequest {
                vm_id: "vm".into(),
                ..from_start()
            },
            "vm_id",
        ),
        (
            v1::WatchEventsRequest {
                types: vec![9999],
                ..from_start()
            },
            "types[0]",
        ),
        (
            v1::WatchEventsRequest {
                types: vec![0],
                ..from_start()
            },
            "types[0]",
        ),
        (
            v1::WatchEventsRequest {
                types: vec![1; 101],
                ..from_start()
            },
            "types",
        ),
        (
            v1::WatchEventsRequest {
                least_severity: 9,
                ..from_start()
            },
            "least_severity",
        ),
        (
            v1::WatchEventsRequest {
                heartbeat_interval: Some(tick(49)),
                ..from_start()
            },
            "heartbeat_interval",
        ),
        (
            v1::WatchEventsRequest {
                heartbeat_interval: Some(prost_types::Duration {
                    seconds: 16,
                    nanos: 0,
                }),
                ..from_start()
            },
            "heartbeat_interval",
        ),
    ];
    for (request, field) in bad {
        let refused = Tail::open(&mut cluster, request)
            .await
            .err()
            .context(field)?;
        let refused = problem(refused);
        assert_eq!(refused.reason, Reason::FieldInvalid);
        assert_eq!(refused.violations[0].0, field);
    }
    Ok(())
}

#[tokio::test]
async fn a_token_of_another_log_has_expired() -> Result<()> {
    let mut cluster = Cluster::start(QUICK).await?;
    let mut tail = Tail::open(&mut cluster, from_start()).await?;
    tail.piece().await?;
    let mut other = Cluster::start(QUICK).await?;
    let refused = Tail::open(&mut other, behind(&tail.token)).await.err();
    let reason = refused.map(|status| problem(status).reason);
    assert_eq!(reason, Some(Reason::ResumeTokenExpired));
    Ok(())
}
