//! A channel whose calls end in time and are made again where that does no harm.

use super::calls::Patience;
use super::deadline::{self, GRPC_TIMEOUT};
use super::lost::{Lost, is_over};
use super::methods::Effect;
use crate::layers::status;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::request::Parts;
use http_body_util::{BodyExt as _, Collected, Full, Limited};
use std::error::Error;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tower::{Service, ServiceExt as _};
use uuid::Uuid;

/// Answers beyond this are refused: several times what a message may have.
const LARGEST_ANSWER: usize = 16 << 20;

type BoxError = Box<dyn Error + Send + Sync>;
type Answer = Result<http::Response<Body>, BoxError>;

/// What generated clients call through: see [`Patience::over`].
///
/// Answers of unary calls are read to their end, so that a connection which breaks within one is
/// noticed while the call can be made again.
#[derive(Clone, Debug)]
pub struct Patient<S> {
    inner: S,
    patience: Patience,
}

impl<S> Patient<S> {
    pub(super) fn new(inner: S, patience: Patience) -> Self {
        Patient { inner, patience }
    }

    /// When the call is over: what its caller asks for, else what the policy has, and never later
    /// than the call that it is made for.
    fn deadline(&self, headers: &HeaderMap, effect: Option<Effect>) -> Option<Instant> {
        let is_unary = effect.is_some_and(|effect| effect != Effect::Stream);
        let own = deadline::asked(headers).or(is_unary.then_some(self.patience.policy.time));
        // A time beyond the clock's range is no bound.
        let own = own.and_then(|time| Instant::now().checked_add(time));
        own.into_iter().chain(deadline::served_until()).min()
    }
}

impl<S> Service<http::Request<Body>> for Patient<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Answer>;

    /// Each try waits for the channel by itself.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let effect = self.patience.methods.effect(request.uri().path());
        let deadline = self.deadline(request.headers(), effect);
        let mut line = Line {
            inner: self.inner.clone(),
            deadline,
        };
        let patience = self.patience.clone();
        let call = async move {
            match effect {
                Some(Effect::Read | Effect::Change) => repeatedly(line, request, &patience).await,
                Some(Effect::Other) => whole(line.once(request).await?).await.map(closed),
                Some(Effect::Stream) | None => line.once(request).await,
            }
        };
        let Some(deadline) = deadline else {
            return Box::pin(call);
        };
        Box::pin(async move {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline) => Ok(status::deadline_exceeded().into_http()),
                // The channel has a clock of its own for the same time.
                answer = call => match answer {
                    Err(error) if is_over(error.as_ref()) => {
                        Ok(status::deadline_exceeded().into_http())
                    }
                    answer => answer,
                },
            }
        })
    }
}

/// A channel, and when a call over it is over.
struct Line<S> {
    inner: S,
    deadline: Option<Instant>,
}

impl<S> Line<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone,
    S::Error: Into<BoxError>,
{
    /// One try, which tells how much time is left.
    async fn once(&mut self, mut request: http::Request<Body>) -> Answer {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = deadline::spelled(left);
            request.headers_mut().insert(GRPC_TIMEOUT, left);
        }
        self.inner
            .clone()
            .oneshot(request)
            .await
            .map_err(Into::into)
    }

    /// Whether a pause that ends then leaves time for another try.
    fn is_open_at(&self, instant: Instant) -> bool {
        self.deadline.is_none_or(|deadline| instant < deadline)
    }
}

/// Makes a call until it is answered, or another try cannot help.
async fn repeatedly<S>(
    mut line: Line<S>,
    request: http::Request<Body>,
    patience: &Patience,
) -> Answer
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone,
    S::Error: Into<BoxError>,
{
    let (head, body) = request.into_parts();
    let message = body.collect().await?.to_bytes();
    let seed = Uuid::new_v4();
    let mut tries = 1;
    loop {
        let answer = match line.once(copy(&head, &message)).await {
            Ok(response) => whole(response).await,
            Err(error) => Err(error),
        };
        let Some(lost) = lost(&answer) else {
            patience.succeeded();
            return answer.map(closed);
        };
        let again_at = Instant::now() + patience.pause(tries, seed) + lost.retry_after;
        let may = tries < patience.policy.tries.get() && line.is_open_at(again_at);
        if !may || !patience.may_repeat() {
            return answer.map(closed);
        }
        tracing::debug!(
            path = head.uri.path(),
            tries,
            "not answered, called again soon"
        );
        tokio::time::sleep_until(again_at).await;
        tries += 1;
    }
}

fn copy(head: &Parts, message: &Bytes) -> http::Request<Body> {
    let body = Body::new(Full::new(message.clone()));
    http::Request::from_parts(head.clone(), body)
}

/// A response that has come to its end.
type Whole = http::Response<Collected<Bytes>>;

async fn whole(response: http::Response<Body>) -> Result<Whole, BoxError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER).collect().await?;
    Ok(http::Response::from_parts(head, body))
}

fn closed(response: Whole) -> http::Response<Body> {
    response.map(Body::new)
}

/// What an answer says of another try, when it is none.
fn lost(answer: &Result<Whole, BoxError>) -> Option<Lost> {
    let response = match answer {
        Ok(response) => response,
        Err(error) => return Lost::of_error(error.as_ref()),
    };
    let trailers = response.body().trailers();
    let told = [Some(response.headers()), trailers].into_iter().flatten();
    match told.filter_map(Status::from_header_map).next() {
        Some(status) => Lost::of_status(&status),
        None => Lost::of_http(response.status()),
    }
}
