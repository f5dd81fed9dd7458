//! `livemerge.v1.EventService`.

use super::{convert, page::Pager, snapshot_service::problem};
use crate::store::{EventFilter, Store};
use livemerge_proto::fields::Fields;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_server::EventService;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Serves the audit log.
pub struct EventApi {
    /// Where it is kept.
    pub store: Arc<dyn Store>,
}

#[tonic::async_trait]
impl EventService for EventApi {
    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let vm = fields.parse_optional("vm_id", &request.vm_id);
        let operation = fields.parse_optional("operation_id", &request.operation_id);
        let size = fields.page_size("page_size", request.page_size);
        let ((vm, operation), size) = fields.finish(vm.zip(operation).zip(size))?;
        let pager = Pager::new(("events", vm, operation), size);
        let page = pager.page(&request.page_token)?;
        let mut found = self
            .store
            .events(&EventFilter { vm, operation }, &page)
            .await
            .map_err(problem)?;
        let next_page_token = pager.cut(&mut found, |event| event.revision);
        let events = found.into_iter().map(convert::event).collect();
        Ok(Response::new(v1::ListEventsResponse {
            events,
            next_page_token,
        }))
    }
}
