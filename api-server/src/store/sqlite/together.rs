//! Changes of operations that are asked for at the same time become durable at the same time: a commit
//! waits for the disk, and they need not wait for it one after the other.
//!
//! ```text
//!   accept, apply ─▶ asked ─┐        who has the turn takes all that were asked for by then
//!   accept, apply ─▶ asked ─┼─▶ BEGIN ─▶ each of them ─▶ COMMIT ─▶ all are answered
//!   accept, apply ─▶ asked ─┘        and those who ask meanwhile come next
//! ```
//!
//! - Each change is whole or not made, and later ones see the earlier. Each is one message to the connection;
//!   where anything stands in the way of one of them all are begun anew, each within a savepoint, so that one
//!   that is refused is undone alone.
//! - Nobody is answered before the commit, not even who was refused: what it was refused for may not last.
//! - Who asks does the work, so nothing is written behind a store that is closed. If it goes away in the
//!   midst of it, the others hear that it is not known.

use super::open::unavailable;
use super::read;
use super::statement::execute;
use super::write::{change_all, statements};
use super::writer::{TURN, Tx, Writer};
use crate::store::{Accepted, Change, RequestRecord, StoreError};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::timeout;

/// So many in one transaction at most.
const MOST: usize = 64;

type Outcome = Result<Accepted, StoreError>;

/// The changes that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Together {
    asked: Mutex<Vec<Asked>>,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Asked {
    /// Accepted with it.
    request: Option<RequestRecord>,
    change: Change,
    answer: oneshot::Sender<Outcome>,
}

impl Together {
    /// Makes a change, with others that are asked for at the same time.
    pub(super) async fn make(
        &self,
        writer: &Writer,
        request: Option<&RequestRecord>,
        change: &Change,
    ) -> Outcome {
        let (answer, mut answered) = oneshot::channel();
        let asked = Asked {
            request: request.cloned(),
            change: change.clone(),
            answer,
        };
        self.asked().push(asked);
        let turn = tokio::select! {
            biased;
            outcome = &mut answered => return outcome.unwrap_or_else(|_| given_up()),
            turn = timeout(TURN, self.turn.lock()) => turn,
        };
        let Ok(turn) = turn else {
            // A commit has no end. Who has not been taken by now is not any more, and who has may be made yet.
            return unknown("the one who writes has not come to an end");
        };
        // Who had the turn may have made it just now; and there may be more than go into one transaction.
        let outcome = loop {
            match answered.try_recv() {
                Ok(outcome) => break outcome,
                Err(TryRecvError::Closed) => break given_up(),
                Err(TryRecvError::Empty) => write(writer, self.take()).await,
            }
        };
        drop(turn);
        outcome
    }

    fn take(&self) -> Vec<Asked> {
        let mut asked = self.asked();
        // Who has gone away wants nothing any more.
        asked.retain(|asked| !asked.answer.is_closed());
        let most = asked.len().min(MOST);
        asked.drain(..most).collect()
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes all of them durable, and answers.
async fn write(writer: &Writer, all: Vec<Asked>) {
    let (asked, answers): (Vec<_>, Vec<_>) = all
        .into_iter()
        .map(|asked| ((asked.request, asked.change), asked.answer))
        .unzip();
    for (outcome, answer) in outcomes(writer, &asked).await.into_iter().zip(answers) {
        // Who has gone away meanwhile does not hear it.
        let _ = answer.send(outcome);
    }
}

async fn outcomes(writer: &Writer, asked: &[(Option<RequestRecord>, Change)]) -> Vec<Outcome> {
    let mut tx = match writer.begin().await {
        Ok(tx) => tx,
        Err(error) => return nothing_written(error, asked.len()),
    };
    let made = match make_unhindered(&mut tx, asked).await {
        Some(made) => made,
        None => {
            // What was made so far is undone with it.
            drop(tx);
            tx = match writer.begin().await {
                Ok(tx) => tx,
                Err(error) => return nothing_written(error, asked.len()),
            };
            match make_all(&mut tx, asked).await {
                Ok(made) => made,
                Err(error) => return nothing_written(error, asked.len()),
            }
        }
    };
    if !made.iter().any(|made| matches!(made, Ok(Accepted::New(_)))) {
        return made;
    }
    match writer.commit_log(tx).await {
        Ok(()) => made,
        Err(error) => {
            let why = Shared::of(error);
            let lost = |made: Outcome| match made {
                Ok(_) => Err(StoreError::Unknown(Box::new(why.clone()))),
                Err(_) => Err(unavailable(why.clone())),
            };
            made.into_iter().map(lost).collect()
        }
    }
}

/// As nearly all are. `None` when anything stands in the way of any of them.
async fn make_unhindered(
    tx: &mut Tx,
    asked: &[(Option<RequestRecord>, Change)],
) -> Option<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(asked.len());
    for (request, change) in asked {
        let (operation, statements) = statements(request.as_ref(), change).ok()?;
        let rows = execute(tx, &statements).await.ok()?;
        if rows != statements.len() as u64 {
            return None;
        }
        outcomes.push(Ok(Accepted::New(operation)));
    }
    Some(outcomes)
}

/// An error when nothing of all that can be made durable any more.
async fn make_all(
    tx: &mut Tx,
    asked: &[(Option<RequestRecord>, Change)],
) -> Result<Vec<Outcome>, StoreError> {
    if let [(request, change)] = asked {
        return Ok(vec![make(tx, request.as_ref(), change).await]);
    }
    let mut outcomes = Vec::with_capacity(asked.len());
    for (request, change) in asked {
        let mut savepoint = tx.begin().await.map_err(unavailable)?;
        let made = make(&mut savepoint, request.as_ref(), change).await;
        let kept = match &made {
            Ok(_) => savepoint.commit().await,
            // SQLite ends a whole transaction by itself when the disk is full or breaks.
            Err(_) => savepoint.rollback().await,
        };
        kept.map_err(unavailable)?;
        outcomes.push(made);
    }
    Ok(outcomes)
}

async fn make(
    connection: &mut SqliteConnection,
    request: Option<&RequestRecord>,
    change: &Change,
) -> Outcome {
    if let Some(request) = request
        && let Some(operation) = read::repeated(connection, request).await?
    {
        return Ok(Accepted::Repeated(operation));
    }
    let operation = change_all(connection, request, change).await?;
    Ok(Accepted::New(operation))
}

/// Who made the change is gone.
fn given_up() -> Outcome {
    unknown("who wrote it has gone away")
}

fn unknown(why: &str) -> Outcome {
    Err(StoreError::Unknown(why.into()))
}

fn nothing_written(error: StoreError, count: usize) -> Vec<Outcome> {
    let why = Shared::of(error);
    let unwritten = || Err(unavailable(why.clone()));
    std::iter::repeat_with(unwritten).take(count).collect()
}

/// What went wrong for several.
#[derive(Debug, Clone)]
struct Shared(Arc<dyn Error + Send + Sync>);

impl Shared {
    fn of(error: StoreError) -> Self {
        Self(match error {
            StoreError::Unavailable(source) | StoreError::Unknown(source) => source.into(),
            other => Arc::new(other),
        })
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
