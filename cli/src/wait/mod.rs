//! Waits for the end of an operation.
//!
//! ```text
//!   WatchOperation ──▶ show each change ──▶ ended ──▶ the operation
//!            │            (over restarts of the server: `crate::watch`)
//!            └──▶ --timeout: exit 5        Ctrl-C: exit 130
//! ```
//!
//! The operation belongs to the server: nothing that ends a wait ends the operation.

pub(crate) mod phase;
mod progress;

use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::Stop;
use crate::watch::Watching;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use livemerge_proto::v1;
use progress::Progress;
use std::future::Future;
use std::time::Duration;
use tonic::{Response, Status};

const MEANWHILE: &str = "the operation goes on, trying again";
/// How long one WaitOperation waits; less than a call may take.
const A_WHILE: Duration = Duration::from_secs(20);

/// Watches an operation to its end with the progress on stderr; `seen` gets every change, also the
/// last.
///
/// # Errors
/// Ctrl-C, the end of the time, an operation that does not exist. A failed operation is no error.
pub(crate) async fn watch(
    session: &Session,
    operation_id: &str,
    mut seen: impl FnMut(&v1::Operation) -> Result<(), Stop>,
) -> Result<v1::Operation, Stop> {
    let mut progress = Progress::new();
    let mut watching = changes(session, operation_id);
    let watching = async {
        loop {
            let operation = next(&mut watching, &progress).await?;
            progress.show(&operation);
            seen(&operation)?;
            if ended(&operation) {
                return Ok(operation);
            }
        }
    };
    unless_interrupted(session, operation_id, watching).await
}

/// Waits for an operation's end without a word, but for a server that does not answer.
///
/// # Errors
/// Those of [`watch`].
pub(crate) async fn quietly(session: &Session, operation_id: &str) -> Result<v1::Operation, Stop> {
    let progress = Progress::silent();
    let mut watching = looks(session, operation_id);
    let waiting = async {
        loop {
            let operation = next(&mut watching, &progress).await?;
            if ended(&operation) {
                return Ok(operation);
            }
        }
    };
    unless_interrupted(session, operation_id, waiting).await
}

/// What an answer has of an operation.
type Told = Option<v1::Operation>;

async fn next(
    watching: &mut Watching<'_, Told>,
    progress: &Progress,
) -> Result<v1::Operation, Failure> {
    let told = watching.next(|text| progress.say(text)).await?;
    told.ok_or_else(|| Failure::incomplete("operation"))
}

/// Each change, as the server tells it.
fn changes<'a>(session: &'a Session, operation_id: &'a str) -> Watching<'a, Told> {
    let open = move |_| {
        let mut client = session.operations();
        let operation_id = operation_id.to_owned();
        async move {
            let request = v1::WatchOperationRequest { operation_id };
            let pieces = client.watch_operation(request).await?.into_inner();
            Ok::<_, Status>(pieces.map_ok(|piece| piece.operation))
        }
    };
    Watching::new(session, MEANWHILE, None, open, |_| None)
}

/// How it stands when it has ended, and every now and then before.
fn looks<'a>(session: &'a Session, operation_id: &'a str) -> Watching<'a, Told> {
    let look = move |()| async move {
        let request = v1::WaitOperationRequest {
            operation_id: operation_id.to_owned(),
            timeout: prost_types::Duration::try_from(A_WHILE).ok(),
        };
        let mut client = session.operations();
        let answer = client
            .wait_operation(request)
            .await
            .map(Response::into_inner);
        Some((answer.map(|answer| answer.operation), ()))
    };
    let open = move |_| async move { Ok(stream::unfold((), look).boxed()) };
    Watching::new(session, MEANWHILE, None, open, |_| None)
}

/// An end that this version has no state for is an end, too.
fn ended(operation: &v1::Operation) -> bool {
    use v1::OperationState::{Cancelled, Failed, Succeeded};
    operation.ended_at.is_some() || matches!(operation.state(), Succeeded | Failed | Cancelled)
}

/// Races the wait with Ctrl-C, and says how to go on watching when it ends early.
async fn unless_interrupted(
    session: &Session,
    operation_id: &str,
    wait: impl Future<Output = Result<v1::Operation, Stop>>,
) -> Result<v1::Operation, Stop> {
    let again = || {
        let command = session.command(&format!("operation watch {operation_id}"));
        format!("watch it again: {command}")
    };
    tokio::select! {
        ended = wait => ended.map_err(|stop| match stop {
            Stop::Failed(failure) if failure.exit() == Exit::Unavailable => {
                Stop::Failed(failure.hint(again()))
            }
            other => other,
        }),
        Ok(()) = tokio::signal::ctrl_c() => {
            let message = format!("interrupted; operation {operation_id} goes on");
            Err(Failure::new(Exit::Interrupted, message).hint(again()).into())
        }
    }
}
