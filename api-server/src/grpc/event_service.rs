//! `livemerge.v1.EventService`.

use super::event_watch::{self, Begin, Watch};
use super::{convert, page::Pager, snapshot_service::problem};
use crate::snapshot::{EventKind, Severity};
use crate::store::{EventFilter, Store};
use futures::Stream;
use livemerge_proto::fields::Fields;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_server::EventService;
use livemerge_runtime::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

const HEARTBEAT_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(15);
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(15);
const MAX_TYPES: usize = 100;

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
        let mut fields = Fields::new();
        let size = fields.page_size("page_size", request.page_size);
        let filter = Asked {
            vm_id: &request.vm_id,
            operation_id: &request.operation_id,
            least_severity: request.least_severity,
            types: &request.types,
        };
        let filter = filter.parse(&mut fields);
        let (filter, size) = fields.finish(filter.zip(size))?;
        let pager = Pager::new(("events", &filter), size);
        let page = pager.page(&request.page_token)?;
        // Looked at first: what is added while the page is read stands behind.
        let end = self.store.log_end().await.map_err(problem)?;
        let mut found = self.store.events(&filter, &page).await.map_err(problem)?;
        let next_page_token = pager.cut(&mut found, |event| event.revision);
        let last = found.last().map(|event| event.revision).or(page.after);
        let behind = match next_page_token.as_str() {
            "" => end.revision.max(last.unwrap_or_default()),
            _another_page => last.unwrap_or_default(),
        };
        Ok(Response::new(v1::ListEventsResponse {
            events: found.into_iter().map(convert::event).collect(),
            next_page_token,
            resume_token: event_watch::token(end.log, &filter, behind),
        }))
    }

    type WatchEventsStream = WatchStream;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let every = fields.duration(
            "heartbeat_interval",
            request.heartbeat_interval,
            HEARTBEAT_BOUNDS,
            HEARTBEAT_DEFAULT,
        );
        let filter = Asked {
            vm_id: &request.vm_id,
            operation_id: &request.operation_id,
            least_severity: request.least_severity,
            types: &request.types,
        };
        let filter = filter.parse(&mut fields);
        let begin = begin(&mut fields, &request.resume_token, request.from_start);
        let ((filter, every), begin) = fields.finish(filter.zip(every).zip(begin))?;
        let store = Arc::clone(&self.store);
        let watch = Watch::open(store, filter, begin).await?;
        let stream = watch.stream(every, self.shutdown.clone());
        Ok(Response::new(Box::pin(stream)))
    }
}

/// The filter that both calls take.
struct Asked<'a> {
    vm_id: &'a str,
    operation_id: &'a str,
    least_severity: i32,
    types: &'a [i32],
}

impl Asked<'_> {
    fn parse(&self, fields: &mut Fields) -> Option<EventFilter> {
        let vm = fields.parse_optional("vm_id", self.vm_id);
        let operation = fields.parse_optional("operation_id", self.operation_id);
        let least = least(fields, self.least_severity);
        let kinds = kinds(fields, self.types);
        Some(EventFilter {
            vm: vm?,
            operation: operation?,
            least: least?,
            kinds: kinds?,
        })
    }
}

fn least(fields: &mut Fields, severity: i32) -> Option<Option<Severity>> {
    match v1::EventSeverity::try_from(severity) {
        // All matter at least as much as the least does.
        Ok(v1::EventSeverity::Unspecified | v1::EventSeverity::Info) => Some(None),
        Ok(v1::EventSeverity::Warning) => Some(Some(Severity::Warning)),
        Ok(v1::EventSeverity::Error) => Some(Some(Severity::Error)),
        Err(_) => {
            fields.reject(
                "least_severity",
                format_args!("is {severity}, which is none"),
            );
            None
        }
    }
}

fn kinds(fields: &mut Fields, types: &[i32]) -> Option<Vec<EventKind>> {
    if types.len() > MAX_TYPES {
        fields.reject(
            "types",
            format_args!("must have at most {MAX_TYPES} entries"),
        );
        return None;
    }
    let mut kinds = Vec::new();
    for number in types {
        match v1::EventType::try_from(*number)
            .ok()
            .and_then(convert::event_kind)
        {
            Some(kind) => kinds.push(kind),
            None => {
                let text = format_args!("has {number}, which is no type of an event");
                fields.reject("types", text);
                return None;
            }
        }
    }
    Some(kinds)
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
