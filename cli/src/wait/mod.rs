//! Waits for the end of an operation.
//!
//! ```text
//!            ┌────────────── back off, say so once, ask again ◀──────────┐
//!            ▼                                                           │
//!   WatchOperation ──▶ show each change ──▶ ended ──▶ the operation      │
//!            └──────── UNAVAILABLE, silence, the stream's end ───────────┘
//!                      --timeout: exit 5        Ctrl-C: exit 130
//! ```
//!
//! The operation belongs to the server: nothing that ends a wait ends the operation.

mod line;
pub(crate) mod phase;
mod progress;

use crate::connect::Session;
use crate::failure::{Exit, Failure};
use crate::output::Stop;
use line::Line;
use livemerge_proto::v1;
use progress::Progress;
use std::future::Future;
use std::time::Duration;

/// A watch repeats itself at least every 15 s; one that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(45);
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
    let mut line = Line::new(session, operation_id, Progress::new());
    let watching = async {
        loop {
            match watch_once(&mut line, &mut seen).await {
                Err(Stop::Failed(failure)) => line.lost(failure).await?,
                ended_or_gone => return ended_or_gone,
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
    let mut line = Line::new(session, operation_id, Progress::silent());
    let waiting = async {
        loop {
            match wait_a_while(&mut line).await {
                Ok(operation) if ended(&operation) => return Ok(operation),
                Ok(_goes_on) => {}
                Err(failure) => line.lost(failure).await?,
            }
        }
    };
    unless_interrupted(session, operation_id, waiting).await
}

/// One stream, to the operation's end or its own.
async fn watch_once(
    line: &mut Line<'_>,
    seen: &mut impl FnMut(&v1::Operation) -> Result<(), Stop>,
) -> Result<v1::Operation, Stop> {
    let request = v1::WatchOperationRequest {
        operation_id: line.operation_id.to_owned(),
    };
    let mut client = line.session.operations();
    let mut stream = line.session.open(client.watch_operation(request)).await?;
    while let Some(piece) = line.session.within(SILENCE, stream.message()).await? {
        let operation = piece
            .operation
            .ok_or_else(|| Failure::incomplete("operation"))?;
        line.answered();
        line.progress.show(&operation);
        seen(&operation)?;
        if ended(&operation) {
            return Ok(operation);
        }
    }
    Err(Failure::new(
        Exit::Unavailable,
        "the server ended the watch before the operation",
    )
    .into())
}

async fn wait_a_while(line: &mut Line<'_>) -> Result<v1::Operation, Failure> {
    let session = line.session;
    let time = session
        .time_left()?
        .map_or(A_WHILE, |left| left.min(A_WHILE));
    let request = v1::WaitOperationRequest {
        operation_id: line.operation_id.to_owned(),
        timeout: prost_types::Duration::try_from(time).ok(),
    };
    let mut client = session.operations();
    let answer = session
        .call(request, async |r| client.wait_operation(r).await)
        .await?;
    line.answered();
    answer
        .operation
        .ok_or_else(|| Failure::incomplete("operation"))
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
