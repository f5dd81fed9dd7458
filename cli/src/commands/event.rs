//! `livemerge event`

use crate::args::{EventCommand, EventFilterArgs, WatchEventsArgs};
use crate::connect::Session;
use crate::failure::Failure;
use crate::follow;
use crate::output::{Output, Stop};
use crate::page::{Page, read_all};
use crate::resolve;
use livemerge_proto::v1;

pub(super) async fn run(
    session: &Session,
    output: Output,
    command: EventCommand,
) -> Result<(), Stop> {
    match command {
        EventCommand::List {
            filter,
            newest_first,
            limit,
        } => output.list(&list(session, filter, newest_first, limit).await?),
        EventCommand::Watch(args) => watch(session, output, args).await,
    }
}

pub(super) async fn list(
    session: &Session,
    filter: EventFilterArgs,
    newest_first: bool,
    limit: Option<usize>,
) -> Result<Vec<v1::Event>, Failure> {
    let vm_id = resolve::vm_filter(session, filter.vm.as_deref()).await?;
    let (least_severity, types) = (filter.least_severity(), filter.types());
    let operation_id = filter.operation.unwrap_or_default();
    let mut client = session.events();
    read_all(limit, async |Page { size, token }| {
        let request = v1::ListEventsRequest {
            vm_id: vm_id.clone(),
            operation_id: operation_id.clone(),
            page_size: size,
            page_token: token,
            least_severity,
            types: types.clone(),
            newest_first,
        };
        let answer = session
            .call(request, async |r| client.list_events(r).await)
            .await?;
        Ok((answer.events, answer.next_page_token))
    })
    .await
}

async fn watch(session: &Session, output: Output, args: WatchEventsArgs) -> Result<(), Stop> {
    let WatchEventsArgs {
        filter,
        since_token,
        from_start,
    } = args;
    let wanted = v1::WatchEventsRequest {
        vm_id: resolve::vm_filter(session, filter.vm.as_deref()).await?,
        least_severity: filter.least_severity(),
        types: filter.types(),
        operation_id: filter.operation.unwrap_or_default(),
        resume_token: since_token.unwrap_or_default(),
        from_start,
        heartbeat_interval: None,
    };
    follow::events(session, output, wanted).await
}
