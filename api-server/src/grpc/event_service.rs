//! `livemerge.v1.EventService`.

use super::event_watch::{self, Begin, Watch};
use super::{convert, page::Pager, snapshot_service::problem};
use crate::snapshot::{Event, Severity};
use crate::store::{EventFilter, LogEnd, Page, Store};
use futures::Stream;
use livemerge_proto::fields::{Fields, duration, page_size};
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_server::EventService;
use livemerge_runtime::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(15);

/// Serves the audit log.
pub struct EventApi {
    /// Where it is kept.
    pub store: Arc<dyn Store>,
    /// Ends the watches.
    pub shutdown: Shutdown,
}

type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl EventService for EventApi {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let vm = fields.parse_optional("vm_id", &request.vm_id);
        let operation = fields.parse_optional("operation_id", &request.operation_id);
        let (vm, operation) = fields.finish(vm.zip(operation))?;
        let filter = EventFilter {
            vm,
            operation,
            least: least(request.least_severity()),
            kinds: request.types().filter_map(convert::event_kind).collect(),
            newest_first: request.newest_first,
        };
        let size = page_size(request.page_size);
        let pager = Pager::new(("events", &filter), size);
        let page = pager.page(&request.page_token)?;
        // Looked at first: what is added while the page is read stands behind.
        let end = self.store.log_end().await.map_err(problem)?;
        let mut found = self.store.events(&filter, &page).await.map_err(problem)?;
        let next_page_token = pager.cut(&mut found, |event| event.revision);
        let behind = behind(&found, &filter, &page, end, next_page_token.is_empty());
        let followed = EventFilter {
            newest_first: false,
            ..filter
        };
        let token = |behind| event_watch::token(end.log, &followed, behind);
        Ok(Response::new(v1::ListEventsResponse {
            events: found.into_iter().map(convert::event).collect(),
            next_page_token,
            resume_token: behind.map(token).unwrap_or_default(),
        }))
    }

    type WatchEventsStream = WatchStream;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::of(&request);
        let vm = fields.parse_optional("vm_id", &request.vm_id);
        let operation = fields.parse_optional("operation_id", &request.operation_id);
        let begin = begin(&mut fields, &request.resume_token, request.from_start);
        let ((vm, operation), begin) = fields.finish(vm.zip(operation).zip(begin))?;
        let filter = EventFilter {
            vm,
            operation,
            least: least(request.least_severity()),
            kinds: request.types().filter_map(convert::event_kind).collect(),
            newest_first: false,
        };
        let every = duration(request.heartbeat_interval, HEARTBEAT_DEFAULT);
        let store = Arc::clone(&self.store);
        let watch = Watch::open(store, filter, begin).await?;
        let stream = watch.stream(every, self.shutdown.clone());
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Where who has read the page goes on to follow the log. Whatever is newer than the newest page is behind it.
fn behind(
    found: &[Event],
    filter: &EventFilter,
    page: &Page<u64>,
    end: LogEnd,
    is_last: bool,
) -> Option<u64> {
    let revision = |event: Option<&Event>| event.map(|event| event.revision);
    if filter.newest_first {
        let newest = revision(found.first()).unwrap_or_default();
        return page.after.is_none().then(|| end.revision.max(newest));
    }
    let last = revision(found.last()).or(page.after).unwrap_or_default();
    Some(if is_last {
        end.revision.max(last)
    } else {
        last
    })
}

fn least(severity: v1::EventSeverity) -> Option<Severity> {
    match severity {
        // All matter at least as much as the least does.
        v1::EventSeverity::Unspecified | v1::EventSeverity::Info => None,
        v1::EventSeverity::Warning => Some(Severity::Warning),
        v1::EventSeverity::Error => Some(Severity::Error),
    }
}

fn begin(fields: &mut Fields, token: &str, from_start: bool) -> Option<Begin> {
    match (token, from_start) {
        ("", true) => Some(Begin::Start),
        ("", false) => Some(Begin::Now),
        (token, false) => Some(Begin::Behind(token.to_owned())),
        (_, true) => {
            fields.reject("from_start", "must be false with a resume_token");
            None
        }
    }
}
