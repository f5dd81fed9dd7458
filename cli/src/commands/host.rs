//! `livemerge host`

use crate::args::{HostCommand, RegisterArgs, Switch};
use crate::connect::Session;
use crate::failure::Failure;
use crate::output::{Output, Stop};
use crate::page::{Page, read_all};
use livemerge_proto::v1;

pub(super) async fn run(
    session: &Session,
    output: Output,
    command: HostCommand,
) -> Result<(), Stop> {
    match command {
        HostCommand::List => output.list(&list(session).await?),
        HostCommand::Get { host } => output.one(&get(session, host).await?),
        HostCommand::Register(args) => output.one(&register(session, args).await?),
        HostCommand::Maintenance { host, state } => {
            output.one(&maintain(session, host, state == Switch::On).await?)
        }
    }
}

pub(super) async fn list(session: &Session) -> Result<Vec<v1::Host>, Failure> {
    let mut client = session.inventory();
    read_all(None, async |Page { size, token }| {
        let request = v1::ListHostsRequest {
            page_size: size,
            page_token: token,
        };
        let answer = session
            .call(request, async |r| client.list_hosts(r).await)
            .await?;
        Ok((answer.hosts, answer.next_page_token))
    })
    .await
}

async fn get(session: &Session, host_id: String) -> Result<v1::Host, Failure> {
    let mut client = session.inventory();
    let request = v1::GetHostRequest { host_id };
    let answer = session
        .call(request, async |r| client.get_host(r).await)
        .await?;
    answer.host.ok_or_else(|| Failure::incomplete("host"))
}

async fn register(session: &Session, args: RegisterArgs) -> Result<v1::Host, Failure> {
    let mut client = session.inventory();
    let request = v1::RegisterHostRequest {
        request_id: session.request_id(),
        host_id: args.host,
        endpoint: args.endpoint,
        // The agent's alone: a number from here could be above it.
        generation: 0,
        version: String::new(),
    };
    let answer = session
        .mutate(request, async |r| client.register_host(r).await)
        .await?;
    answer.host.ok_or_else(|| Failure::incomplete("host"))
}

async fn maintain(
    session: &Session,
    host_id: String,
    maintenance: bool,
) -> Result<v1::Host, Failure> {
    let mut client = session.inventory();
    let request = v1::SetHostMaintenanceRequest {
        request_id: session.request_id(),
        host_id,
        maintenance,
    };
    let answer = session
        .mutate(request, async |r| client.set_host_maintenance(r).await)
        .await?;
    answer.host.ok_or_else(|| Failure::incomplete("host"))
}
