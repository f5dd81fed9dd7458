//! The body of an answer that holds a place, until its end or until its client takes it no more.
//!
//! HTTP/2 asks a body for its next piece when the client has room for it, and does not ask before.
//! So a piece that was given and not asked beyond for a long time is one that the client does not
//! take. Then the body's source and place are given up, and whenever the client takes again what
//! the connection still holds for it (at most its window), it hears why. What it has not taken is
//! nowhere else: our watches are asked for each piece, and read on when they are.
//!
//! ```text
//!   asked ──nothing there yet──▶ quiet: the source's turn ──▶ asked
//!     │ a piece is given
//!     ▼
//!   offered: the client's turn ──asked──▶ ...
//!     └── for too long ──▶ cut ──asked──▶ ABORTED, WATCH_CONSUMER_TOO_SLOW
//! ```

use super::shares::Place;
use super::shed::Shed;
use crate::layers::status;
use http_body::Frame;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tracing::Instrument as _;

/// How long a client may leave an answer untaken.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    pub(super) stall: Duration,
    pub(super) shed: Shed,
}

/// A body with its place.
pub(super) struct HeldBody {
    turn: Arc<Mutex<Turn>>,
    _overseer: AbortOnDropHandle<()>,
}

enum Turn {
    /// It is the source's turn since it was asked, or the client's since a piece was offered.
    Open {
        source: Body,
        _place: Place,
        offered: Option<Instant>,
    },
    /// The client has not heard of it yet.
    Cut,
    Ended,
}

impl HeldBody {
    pub(super) fn new(source: Body, place: Place, patience: Patience) -> Self {
        let turn = Arc::new(Mutex::new(Turn::Open {
            source,
            _place: place,
            // The headers: a client may have no room for the first piece either.
            offered: Some(Instant::now()),
        }));
        let overseer = oversee(Arc::downgrade(&turn), patience).in_current_span();
        HeldBody {
            turn,
            _overseer: AbortOnDropHandle::new(tokio::spawn(overseer)),
        }
    }
}

fn lock(turn: &Mutex<Turn>) -> MutexGuard<'_, Turn> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cuts the body once its client has left a piece for too long.
async fn oversee(turn: Weak<Mutex<Turn>>, patience: Patience) {
    let stall = patience.stall;
    let mut look_at = Instant::now() + stall;
    loop {
        tokio::time::sleep_until(look_at).await;
        let Some(turn) = turn.upgrade() else { return };
        let mut turn = lock(&turn);
        let now = Instant::now();
        look_at = match &*turn {
            Turn::Open { offered, .. } => offered.unwrap_or(now) + stall,
            Turn::Cut | Turn::Ended => return,
        };
        if look_at <= now {
            patience.shed.count_slow_reader();
            tracing::info!("the client does not take its answer, which is given up");
            *turn = Turn::Cut;
            return;
        }
    }
}

impl http_body::Body for HeldBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let mut turn = lock(&self.turn);
        match &mut *turn {
            Turn::Ended => Poll::Ready(None),
            Turn::Cut => {
                *turn = Turn::Ended;
                Poll::Ready(Some(Ok(status::trailers(&status::reader_too_slow()))))
            }
            Turn::Open {
                source, offered, ..
            } => {
                *offered = None;
                let polled = Pin::new(source).poll_frame(cx);
                match &polled {
                    Poll::Ready(Some(_)) => *offered = Some(Instant::now()),
                    Poll::Ready(None) => *turn = Turn::Ended,
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &*lock(&self.turn) {
            Turn::Open { source, .. } => source.is_end_stream(),
            Turn::Cut => false,
            Turn::Ended => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;
    use crate::limits::{Holder, Limit, Shares};
    use futures::channel::mpsc;
    use http_body_util::{BodyExt as _, StreamBody};
    use std::num::NonZeroU32;
    use tokio::time::sleep;

    const STALL: Duration = Duration::from_secs(30);
    type Piece = Result<Frame<bytes::Bytes>, Status>;

    /// A body whose source is written to, and the only place there is.
    fn held() -> (mpsc::UnboundedSender<Piece>, HeldBody, Shares, Metrics) {
        let metrics = Metrics::default();
        let shed = Shed::new(&metrics);
        let shares = Shares::new(NonZeroU32::MIN, Limit::Watches, &shed);
        let place = shares.take(Holder::Local).unwrap();
        let (source, pieces) = mpsc::unbounded();
        let patience = Patience { stall: STALL, shed };
        let body = HeldBody::new(Body::new(StreamBody::new(pieces)), place, patience);
        (source, body, shares, metrics)
    }

    fn piece() -> Piece {
        Ok(Frame::data(bytes::Bytes::from_static(b"piece")))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_with_its_reason() {
        let (source, mut body, shares, metrics) = held();
        source.unbounded_send(piece()).unwrap();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        sleep(STALL - Duration::from_secs(1)).await;
        assert!(!source.is_closed());
        sleep(Duration::from_secs(2)).await;
        assert!(source.is_closed(), "the source is given up");
        assert!(shares.take(Holder::Local).is_ok(), "and so is the place");
        assert!(!http_body::Body::is_end_stream(&body));
        let last = body.frame().await.unwrap().unwrap();
        let status = Status::from_header_map(last.trailers_ref().unwrap()).unwrap();
        assert_eq!(status.code(), tonic::Code::Aborted);
        assert!(body.frame().await.is_none());
        let line = "livemerge_server_shed_total{limit=\"slow_reader\"} 1";
        assert!(metrics.text().contains(line), "{}", metrics.text());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_from_the_begin_is_cut_as_well() {
        let (source, _body, shares, _) = held();
        sleep(STALL + Duration::from_secs(1)).await;
        assert!(source.is_closed());
        assert!(shares.take(Holder::Local).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_may_be_quiet_for_ever() {
        let (source, mut body, shares, _) = held();
        let reader = tokio::spawn(async move { body.frame().await.map(Result::unwrap) });
        sleep(100 * STALL).await;
        assert!(shares.take(Holder::Local).is_err());
        source.unbounded_send(piece()).unwrap();
        assert!(reader.await.unwrap().unwrap().is_data());
        assert!(shares.take(Holder::Local).is_ok(), "the reader has left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_may_be_slow_as_long_as_it_takes_something() {
        let (source, mut body, shares, _) = held();
        for _ in 0..10 {
            source.unbounded_send(piece()).unwrap();
            sleep(STALL - Duration::from_secs(1)).await;
            assert!(body.frame().await.unwrap().unwrap().is_data());
        }
        assert!(shares.take(Holder::Local).is_err());
        drop(source);
        assert!(body.frame().await.is_none());
        assert!(shares.take(Holder::Local).is_ok(), "the body has ended");
    }
}
