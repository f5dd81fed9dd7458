//! A line between two services on which the answer of a chosen call is lost: the call is made and
//! answered at the other end, and then the connection breaks.
//!
//! ```text
//!   client ─── relay ─── here (HTTP/2) ─── service
//!                ▲           │
//!                └── reset ──┘ when the chosen answer is here, whole
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tower::{Service, ServiceExt as _};

use crate::relay::{Line, Relay};

/// Works as long as it lives.
#[derive(Debug)]
pub struct AnswerLine {
    relay: Relay,
    plan: Arc<Plan>,
    losses: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

/// What is to be lost, and what was called.
#[derive(Debug)]
struct Plan {
    wanted: Mutex<Option<String>>,
    calls: Mutex<BTreeMap<String, usize>>,
    losses: watch::Sender<usize>,
    breaks: watch::Sender<Line>,
}

impl AnswerLine {
    /// One before the service at this endpoint (`http://127.0.0.1:7421`).
    pub async fn before(endpoint: &str) -> Result<Self> {
        let service = Endpoint::from_shared(endpoint.to_owned())?.connect_lazy();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let relay = Relay::before(&format!("http://{}", listener.local_addr()?)).await?;
        let (told, losses) = watch::channel(0);
        let plan = Arc::new(Plan {
            wanted: Mutex::default(),
            calls: Mutex::default(),
            losses: told,
            breaks: relay.line(),
        });
        let carried = Arc::clone(&plan);
        let layer = tower::layer::layer_fn(move |_nothing: Routes| Carrier {
            service: service.clone(),
            plan: Arc::clone(&carried),
        });
        let mut server = Server::builder().layer(layer);
        let serve = server
            .add_routes(Routes::default())
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move {
            if let Err(error) = serve.await {
                eprintln!("the line that loses answers has ended: {error}");
            }
        });
        Ok(Self {
            relay,
            plan,
            losses,
            task,
        })
    }

    /// What to call in place of the service.
    pub fn endpoint(&self) -> &str {
        self.relay.endpoint()
    }

    /// The next answer to a call of this method (`StartMerge`) is lost, and the line stays broken
    /// until it is mended.
    pub fn lose_answer_of(&self, method: &str) {
        *locked(&self.plan.wanted) = Some(method.to_owned());
    }

    /// Waits until so many answers have been lost in all.
    pub async fn lost(&self, times: usize, limit: Duration) -> Result<()> {
        let mut losses = self.losses.clone();
        let lost = losses.wait_for(|lost| *lost >= times);
        let lost = tokio::time::timeout(limit, lost).await;
        lost.with_context(|| format!("no call: {:?}", locked(&self.plan.calls)))?
            .map(drop)
            .context("the line has ended")
    }

    /// How many answers have been lost.
    pub fn losses(&self) -> usize {
        *self.losses.borrow()
    }

    /// The line works again.
    pub fn mend(&self) {
        self.relay.set(Line::Through);
    }

    /// How often a method was called, lost answers included.
    pub fn calls_of(&self, method: &str) -> usize {
        locked(&self.plan.calls)
            .get(method)
            .copied()
            .unwrap_or_default()
    }
}

impl Drop for AnswerLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries the calls of one connection.
#[derive(Clone)]
struct Carrier {
    service: Channel,
    plan: Arc<Plan>,
}

impl Service<Request<Body>> for Carrier {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (service, plan) = (self.service.clone(), Arc::clone(&self.plan));
        async move { Ok(carry(service, &plan, request).await) }.boxed()
    }
}

async fn carry(service: Channel, plan: &Plan, request: Request<Body>) -> Response<Body> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    let method = method.to_owned();
    *locked(&plan.calls).entry(method.clone()).or_default() += 1;
    let is_lost = locked(&plan.wanted)
        .take_if(|wanted| *wanted == method)
        .is_some();
    let answer = match service.oneshot(request).await {
        Ok(answer) => answer,
        Err(error) => return Status::unavailable(error.to_string()).into_http(),
    };
    if !is_lost {
        return answer;
    }
    // It has been given in full; what became of it at the other end the caller never learns.
    let (_head, body) = answer.into_parts();
    let _whole = body.collect().await;
    plan.breaks.send_replace(Line::Reset);
    plan.losses.send_modify(|lost| *lost += 1);
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_call_is_carried_and_the_chosen_answer_is_lost_once() -> Result<()> {
        let (_reporter, health) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(health)
                .serve_with_incoming(incoming),
        );
        let line = AnswerLine::before(&endpoint).await?;
        let channel = Endpoint::from_shared(line.endpoint().to_owned())?.connect_lazy();
        let mut client = HealthClient::new(channel);
        let ask = HealthCheckRequest::default;
        client.check(ask()).await?;

        line.lose_answer_of("Check");
        assert!(client.check(ask()).await.is_err());
        line.lost(1, LIMIT).await?;
        assert!(client.check(ask()).await.is_err(), "it is mended already");
        line.mend();
        client.check(ask()).await?;
        assert_eq!(line.calls_of("Check"), 3);
        Ok(())
    }
}
