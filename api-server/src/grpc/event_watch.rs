//! Following the audit log: resume tokens, and the stream behind one.
//!
//! ```text
//!   token ─▶ behind ─▶ read a batch ─▶ send piece by piece ─▶ nothing left ─▶ wait for a sign ┐
//!               ▲           ▲ the reader takes its time: nothing is read ahead of it          │
//!               └───────────┴───────────────── heartbeat, log grows ◀─────────────────────────┘
//! ```
//!
//! Invariants:
//! - A token names a log, a revision in it and a filter; everything that fits behind the revision
//!   is sent, once and in order, whichever server reads on.
//! - At most one batch is held in memory, however slow the reader is.
//! - A sign that was missed costs a heartbeat's time, not an event.

use super::{convert, page::digest, snapshot_service::problem};
use crate::snapshot::Event;
use crate::store::{EventFilter, LogEnd, Page, Store, StoreError};
use futures::Stream;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_runtime::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

/// So many events are read at once.
const BATCH: usize = 100;

/// Where a watch begins.
pub(super) enum Begin {
    /// With the first event.
    Start,
    /// With the next one that is written.
    Now,
    /// Behind the piece of this token.
    Behind(String),
}

/// A place in the log, and what is wanted behind it.
pub(super) struct Watch {
    store: Arc<dyn Store>,
    grows: watch::Receiver<()>,
    filter: EventFilter,
    log: u64,
    behind: u64,
}

impl Watch {
    /// # Errors
    /// `RESUME_TOKEN_INVALID`, `RESUME_TOKEN_EXPIRED`, or the store's.
    pub(super) async fn open(
        store: Arc<dyn Store>,
        filter: EventFilter,
        begin: Begin,
    ) -> Result<Self, Problem> {
        let end = store.log_end().await?;
        let behind = match begin {
            Begin::Start => 0,
            Begin::Now => end.revision,
            Begin::Behind(token) => parse(&token, &filter, end)?,
        };
        Ok(Self {
            grows: store.log_grows(),
            store,
            filter,
            log: end.log,
            behind,
        })
    }

    /// A heartbeat, what stands behind the place, then what is added, until the server stops.
    pub(super) fn stream(
        mut self,
        every: Duration,
        shutdown: Shutdown,
    ) -> impl Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send {
        async_stream::try_stream! {
            yield self.piece(None);
            let mut quiet_until = Instant::now() + every;
            while !shutdown.is_cancelled() {
                let (batch, end) = self.read().await.map_err(problem)?;
                for event in batch {
                    if shutdown.is_cancelled() {
                        Err(self.draining())?;
                    }
                    self.behind = event.revision;
                    yield self.piece(Some(event));
                    quiet_until = Instant::now() + every;
                }
                let Some(end) = end else { continue };
                self.behind = self.behind.max(end);
                if Instant::now() >= quiet_until {
                    yield self.piece(None);
                    quiet_until = Instant::now() + every;
                }
                let sign = tokio::time::timeout_at(quiet_until, self.grows.changed());
                if let Some(Ok(Err(_closed))) = shutdown.run_until_cancelled(sign).await {
                    return;
                }
            }
            Err(self.draining())?;
        }
    }

    /// The next batch; with the end of the log if the batch reaches it.
    async fn read(&mut self) -> Result<(Vec<Event>, Option<u64>), StoreError> {
        // In this order: what is added meanwhile wakes again, and stands behind the end.
        self.grows.mark_unchanged();
        let end = self.store.log_end().await?;
        let page = Page {
            after: Some(self.behind),
            limit: BATCH,
        };
        let batch = self.store.events(&self.filter, &page).await?;
        let whole = batch.len() < BATCH;
        Ok((batch, whole.then_some(end.revision)))
    }

    fn piece(&self, event: Option<Event>) -> v1::WatchEventsResponse {
        v1::WatchEventsResponse {
            event: event.map(convert::event),
            resume_token: self.token(),
        }
    }

    fn token(&self) -> String {
        token(self.log, &self.filter, self.behind)
    }

    fn draining(&self) -> Status {
        Problem::new(Reason::ServerDraining, "the server is stopping")
            .with("resume_token", self.token())
            .into()
    }
}

/// Goes on behind a revision of a log, with this filter.
pub(super) fn token(log: u64, filter: &EventFilter, behind: u64) -> String {
    format!("{log:016x}.{behind}.{}", digest(&question(filter)))
}

/// The revision behind which a token goes on.
fn parse(token: &str, filter: &EventFilter, end: LogEnd) -> Result<u64, Problem> {
    let invalid = || {
        let text = "the resume token was not given for this filter";
        Problem::new(Reason::ResumeTokenInvalid, text)
    };
    let mut parts = token.splitn(3, '.');
    let (log, behind) = (parts.next(), parts.next());
    let log = log.and_then(|log| u64::from_str_radix(log, 16).ok());
    let behind: Option<u64> = behind.and_then(|behind| behind.parse().ok());
    let (log, behind) = log.zip(behind).ok_or_else(invalid)?;
    if self::token(log, filter, behind) != token {
        return Err(invalid());
    }
    if log != end.log || behind > end.revision {
        let text = "the audit log that the resume token belongs to is not the one that is here";
        return Err(Problem::new(Reason::ResumeTokenExpired, text));
    }
    Ok(behind)
}

/// What a filter asks, the same in every version that knows its fields.
fn question(filter: &EventFilter) -> String {
    let vm = filter.vm.map(|vm| format!("vm={vm}"));
    let operation = filter.operation.map(|id| format!("operation={id}"));
    let least = filter
        .least
        .map(|least| convert::severity(least).as_str_name().to_owned());
    let mut kinds: Vec<_> = filter
        .kinds
        .iter()
        .map(|kind| convert::event_type(*kind).as_str_name().to_owned())
        .collect();
    kinds.sort();
    kinds.dedup();
    let parts = [vm, operation, least].into_iter().flatten().chain(kinds);
    parts.collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{EventKind, Severity};
    use uuid::Uuid;

    const END: LogEnd = LogEnd {
        log: 7,
        revision: 20,
    };

    fn filters() -> Vec<EventFilter> {
        let none = EventFilter::default;
        let id = Uuid::from_u128(1);
        vec![
            none(),
            EventFilter {
                vm: Some(id.into()),
                ..none()
            },
            EventFilter {
                operation: Some(id.into()),
                ..none()
            },
            EventFilter {
                least: Some(Severity::Warning),
                ..none()
            },
            EventFilter {
                least: Some(Severity::Error),
                ..none()
            },
            EventFilter {
                kinds: vec![EventKind::HostUp],
                ..none()
            },
            EventFilter {
                kinds: vec![EventKind::HostUp, EventKind::HostRegistered],
                ..none()
            },
        ]
    }

    fn reason(token: &str, filter: &EventFilter) -> Reason {
        parse(token, filter, END).unwrap_err().reason
    }

    #[test]
    fn a_token_goes_on_with_its_own_filter_only() {
        for given in filters() {
            let token = token(END.log, &given, 12);
            for asked in filters() {
                let same = format!("{given:?}") == format!("{asked:?}");
                if same {
                    assert_eq!(parse(&token, &asked, END).unwrap(), 12);
                } else {
                    assert_eq!(reason(&token, &asked), Reason::ResumeTokenInvalid);
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_types_is_not_part_of_the_question() {
        let kinds = [EventKind::HostUp, EventKind::VolumeRemoved];
        let filter = |kinds: &[EventKind]| EventFilter {
            kinds: kinds.to_vec(),
            ..EventFilter::default()
        };
        let turned = [kinds[1], kinds[0], kinds[1]];
        let token = token(END.log, &filter(&kinds), 3);
        assert_eq!(parse(&token, &filter(&turned), END).unwrap(), 3);
    }

    #[test]
    fn a_token_of_another_log_has_expired() {
        let all = EventFilter::default();
        assert_eq!(parse(&token(7, &all, 20), &all, END).unwrap(), 20);
        assert_eq!(reason(&token(8, &all, 3), &all), Reason::ResumeTokenExpired);
        assert_eq!(
            reason(&token(7, &all, 21), &all),
            Reason::ResumeTokenExpired
        );
    }

    #[test]
    fn garbage_is_invalid() {
        let all = EventFilter::default();
        let good = token(7, &all, 3);
        let garbage = [
            "x",
            ".",
            "..",
            "7.3",
            "é.3.x",
            &format!("{good}0"),
            &format!("+{good}"),
            &good[1..],
        ];
        for text in garbage {
            assert_eq!(reason(text, &all), Reason::ResumeTokenInvalid, "{text}");
        }
    }
}
