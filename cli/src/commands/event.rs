//! `livemerge event`

use crate::args::EventCommand;
use crate::connect::Session;
use crate::output::{Output, Stop};
use crate::page::{Page, read_all};
use crate::resolve;
use livemerge_proto::v1;

pub(super) async fn run(
    session: &Session,
    output: Output,
    command: EventCommand,
) -> Result<(), Stop> {
    let EventCommand::List {
        vm,
        operation,
        limit,
    } = command;
    let vm_id = resolve::vm_filter(session, vm.as_deref()).await?;
    let operation_id = operation.unwrap_or_default();
    let mut client = session.events();
    let events = read_all(limit, async |Page { size, token }| {
        let request = v1::ListEventsRequest {
            vm_id: vm_id.clone(),
            operation_id: operation_id.clone(),
            page_size: size,
            page_token: token,
        };
        let answer = session
            .call(request, async |r| client.list_events(r).await)
            .await?;
        Ok((answer.events, answer.next_page_token))
    });
    output.list(&events.await?)
}
