//! The audit log: entries are added, and never change.

use super::records::{change, event, host, log, messages, operation, request};
use crate::snapshot::{Event, NewEvent};
use crate::store::{Change, EventFilter, Page, Store, StoreError};
use std::collections::HashMap;
use std::sync::Arc;

/// Whatever writes to the log, it stands behind what was there, in the order given.
pub(super) async fn only_grows(store: Arc<dyn Store>) {
    store.add_events(&[event("1"), event("2")]).await.unwrap();
    store.add_events(&[]).await.unwrap();
    let before = log(store.as_ref()).await;
    assert!(before[0].revision >= 1, "a follower begins behind 0");

    let created = Change {
        events: vec![event("3"), event("4")],
        ..change(&operation(1, 1))
    };
    let operation = store.apply(&created).await.unwrap();
    let refused = store.apply(&created).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );
    store
        .put_host(&host("h", 1), Some(&event("5")))
        .await
        .unwrap();
    store.put_host(&host("h", 2), None).await.unwrap();
    store
        .apply(&Change {
            events: vec![event("6")],
            ..change(&operation)
        })
        .await
        .unwrap();

    let after = log(store.as_ref()).await;
    assert_eq!(after[..2], before);
    assert_eq!(
        messages(store.as_ref()).await,
        ["1", "2", "3", "4", "5", "6"]
    );
    assert!(
        after.is_sorted_by(|a, b| a.revision < b.revision),
        "{after:?}"
    );
}

/// The end moves with the log, and with every way to add to it comes the sign.
pub(super) async fn end_and_sign(store: Arc<dyn Store>) {
    let mut grows = store.log_grows();
    let empty = store.log_end().await.unwrap();
    assert_eq!(empty.revision, 0);
    let created = Change {
        events: vec![event("2")],
        ..change(&operation(1, 1))
    };
    let accepted = Change {
        events: vec![event("3"), event("4")],
        ..change(&operation(2, 1))
    };
    for (way, added) in [1, 1, 2, 1].into_iter().enumerate() {
        grows.mark_unchanged();
        let before = log(store.as_ref()).await.len();
        match way {
            0 => store.add_events(&[event("1")]).await.unwrap(),
            1 => drop(store.apply(&created).await.unwrap()),
            2 => drop(store.accept(&request(1), &accepted).await.unwrap()),
            _ => store
                .put_host(&host("h", 1), Some(&event("5")))
                .await
                .unwrap(),
        }
        assert!(grows.has_changed().unwrap(), "way {way}");
        let log = log(store.as_ref()).await;
        assert_eq!(log.len(), before + added, "way {way}");
        let end = store.log_end().await.unwrap();
        assert_eq!(end.log, empty.log);
        assert_eq!(Some(end.revision), log.last().map(|event| event.revision));
    }
}

/// Reading on behind the last entry that was seen shows every entry once, also while many write:
/// an entry never appears behind one that could be read before it.
pub(super) async fn follower(store: Arc<dyn Store>) {
    const WRITERS: usize = 8;
    const EACH: usize = 20;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(Arc::clone(&store), writer, EACH)))
        .collect();
    let mut seen: Vec<Event> = Vec::new();
    let mut written = false;
    loop {
        let page = Page {
            after: seen.last().map(|event| event.revision),
            limit: 7,
        };
        let some = store.events(&EventFilter::default(), &page).await.unwrap();
        let none = some.is_empty();
        seen.extend(some);
        // Once more after the last writer has ended: that look sees all.
        if none && written {
            break;
        }
        written = none && writers.iter().all(tokio::task::JoinHandle::is_finished);
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(
        seen.len(),
        WRITERS * EACH,
        "none was missed, none came twice"
    );
    assert!(seen.is_sorted_by(|a, b| a.revision < b.revision));
    let mut last: HashMap<String, usize> = HashMap::new();
    for NewEvent { message, actor, .. } in seen.into_iter().map(|event| event.entry) {
        let number = message.parse().unwrap();
        let before = last.insert(actor.unwrap(), number);
        assert_eq!(
            before.map_or(0, |before| before + 1),
            number,
            "a writer's own order"
        );
    }
}

async fn write(store: Arc<dyn Store>, writer: usize, count: usize) {
    for number in (0..count).step_by(2) {
        let entry = |number: usize| NewEvent {
            actor: Some(writer.to_string()),
            ..event(&number.to_string())
        };
        store
            .add_events(&[entry(number), entry(number + 1)])
            .await
            .unwrap();
    }
}
