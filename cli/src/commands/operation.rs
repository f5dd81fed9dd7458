//! `livemerge operation`

use super::left::Left;
use crate::args::{CancelArgs, LimitArgs, OperationCommand, State};
use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Listed as _, Output, Stop};
use crate::page::{Page, read_all};
use crate::{resolve, wait};
use livemerge_proto::v1;

pub(super) async fn run(
    session: &Session,
    output: Output,
    command: OperationCommand,
) -> Result<(), Stop> {
    match command {
        OperationCommand::Get { operation } => output.one(&get(session, operation).await?),
        OperationCommand::List { vm, state, limit } => {
            output.list(&list(session, vm.as_deref(), &state, limit).await?)
        }
        OperationCommand::Watch { operation } => watch(session, output, &operation).await,
        OperationCommand::Wait { operation } => {
            let ended = wait::quietly(session, &operation).await?;
            conclude(session, output, &ended).await
        }
        OperationCommand::Cancel(CancelArgs { operation, wait }) => {
            let asked = cancel(session, operation).await?;
            if wait {
                see_cancelled(session, output, &asked.id).await
            } else {
                output.one(&asked)
            }
        }
        OperationCommand::Limit(args) => output.one(&limit(session, args).await?),
    }
}

/// Shows an operation that was accepted just now, or with `wait` what it came to.
pub(super) async fn accepted(
    session: &Session,
    output: Output,
    accepted: v1::Operation,
    wait: bool,
) -> Result<(), Stop> {
    if !wait {
        return output.one(&accepted);
    }
    let ended = wait::watch(session, &accepted.id, |_shown_on_stderr| Ok(())).await?;
    conclude(session, output, &ended).await
}

/// Shows an operation that has ended; one without success is this command's failure, too.
async fn conclude(session: &Session, output: Output, ended: &v1::Operation) -> Result<(), Stop> {
    let written = output.one(ended);
    // Whoever reads may be gone; the failure counts all the same.
    success(session, ended).await?;
    written
}

async fn success(session: &Session, ended: &v1::Operation) -> Result<(), Stop> {
    let failure = Failure::of_operation(ended);
    match ended.state() {
        v1::OperationState::Succeeded => Ok(()),
        v1::OperationState::Cancelled => {
            let left = Left::by(session, ended).await;
            Err(left.told_by(failure).into())
        }
        _ => Err(failure.into()),
    }
}

/// Waits for the end of an operation that was asked to end: here that is the success.
async fn see_cancelled(session: &Session, output: Output, id: &str) -> Result<(), Stop> {
    let ended = wait::watch(session, id, |_shown_on_stderr| Ok(())).await?;
    let written = output.one(&ended);
    match ended.state() {
        v1::OperationState::Cancelled => Left::by(session, &ended).await.say(),
        v1::OperationState::Succeeded => {
            let message = format!("operation {id} was done before it could be cancelled");
            return Err(Failure::new(Exit::Refused, message).into());
        }
        _ => return Err(Failure::of_operation(&ended).into()),
    }
    written
}

async fn watch(session: &Session, output: Output, operation_id: &str) -> Result<(), Stop> {
    match output.format() {
        Format::Table => {
            let ended = wait::watch(session, operation_id, |_shown_on_stderr| Ok(())).await?;
            conclude(session, output, &ended).await
        }
        Format::Json => {
            let write = |seen: &v1::Operation| output.json_line(&seen.document());
            let ended = wait::watch(session, operation_id, write).await?;
            success(session, &ended).await
        }
    }
}

async fn get(session: &Session, operation_id: String) -> Result<v1::Operation, Failure> {
    let mut client = session.operations();
    let request = v1::GetOperationRequest { operation_id };
    let answer = session
        .call(request, async |r| client.get_operation(r).await)
        .await?;
    answer
        .operation
        .ok_or_else(|| Failure::incomplete("operation"))
}

async fn cancel(session: &Session, operation_id: String) -> Result<v1::Operation, Failure> {
    let mut client = session.operations();
    let request = v1::CancelOperationRequest { operation_id };
    let answer = session
        .call(request, async |r| client.cancel_operation(r).await)
        .await?;
    answer
        .operation
        .ok_or_else(|| Failure::incomplete("operation"))
}

async fn limit(session: &Session, args: LimitArgs) -> Result<v1::Operation, Failure> {
    let mut client = session.operations();
    let request = v1::UpdateOperationRequest {
        operation_id: args.operation,
        bytes_per_second: args.rate,
    };
    let answer = session
        .call(request, async |r| client.update_operation(r).await)
        .await?;
    answer
        .operation
        .ok_or_else(|| Failure::incomplete("operation"))
}

pub(super) async fn list(
    session: &Session,
    vm: Option<&str>,
    states: &[State],
    limit: Option<usize>,
) -> Result<Vec<v1::Operation>, Failure> {
    let vm_id = resolve::vm_filter(session, vm).await?;
    let states: Vec<i32> = states
        .iter()
        .map(|s| v1::OperationState::from(*s).into())
        .collect();
    let mut client = session.operations();
    read_all(limit, async |Page { size, token }| {
        let request = v1::ListOperationsRequest {
            vm_id: vm_id.clone(),
            states: states.clone(),
            page_size: size,
            page_token: token,
        };
        let answer = session
            .call(request, async |r| client.list_operations(r).await)
            .await?;
        Ok((answer.operations, answer.next_page_token))
    })
    .await
}
