//! `grpc.health.v1`: what each service says of its readiness.
//!
//! A service is NOT_SERVING until it is told to be ready: before anything answered, "ready" is not
//! known. From the start of a drain everything is NOT_SERVING whatever is set afterwards, and an
//! open Watch hears of it and then ends with UNAVAILABLE.

use crate::layers::status;
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The name that stands for the server as a whole.
const OVERALL: &str = "";

/// Handle to set the readiness of services. Clones share the state.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<State>>);

#[derive(Debug)]
struct State {
    draining: bool,
    ready: BTreeMap<String, bool>,
}

impl State {
    fn status(&self, service: &str) -> ServingStatus {
        match self.ready.get(service) {
            None => ServingStatus::ServiceUnknown,
            Some(true) if !self.draining => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        }
    }
}

impl Readiness {
    pub(crate) fn new() -> Self {
        let ready = BTreeMap::from([(OVERALL.to_owned(), false)]);
        Readiness(Arc::new(watch::Sender::new(State {
            draining: false,
            ready,
        })))
    }

    /// Makes `service` known, not ready yet.
    pub(crate) fn register(&self, service: &str) {
        self.set(service, false);
    }

    /// Sets one service by its full name, as in `livemerge.v1.MergeService`
    /// (`tonic::server::NamedService::NAME`).
    pub fn set(&self, service: &str, ready: bool) {
        self.0
            .send_if_modified(|state| state.ready.insert(service.to_owned(), ready) != Some(ready));
    }

    /// Sets the server as a whole: what a probe sees that names no service.
    pub fn set_overall(&self, ready: bool) {
        self.set(OVERALL, ready);
    }

    /// Sets every service and the server as a whole.
    pub fn set_all(&self, ready: bool) {
        self.0
            .send_modify(|state| state.ready.values_mut().for_each(|value| *value = ready));
    }

    /// NOT_SERVING for good.
    pub(crate) fn drain(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    pub(crate) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService {
            state: self.0.subscribe(),
        })
    }
}

/// Answers health calls from the state that [`Readiness`] sets.
#[derive(Debug)]
pub(crate) struct HealthService {
    state: watch::Receiver<State>,
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match self.state.borrow().status(&request.get_ref().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("service not registered")),
            status => Ok(Response::new(answer(status))),
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watcher = Watcher {
            state: self.state.clone(),
            service: request.into_inner().service,
            told: None,
            ended: false,
        };
        Ok(Response::new(
            stream::unfold(watcher, Watcher::next).boxed(),
        ))
    }
}

struct Watcher {
    state: watch::Receiver<State>,
    service: String,
    told: Option<ServingStatus>,
    ended: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        while !self.ended {
            let (status, draining) = {
                let state = self.state.borrow_and_update();
                (state.status(&self.service), state.draining)
            };
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((Ok(answer(status)), self));
            }
            if draining {
                self.ended = true;
                return Some((Err(status::draining()), self));
            }
            self.state.changed().await.ok()?;
        }
        None
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    async fn check(readiness: &Readiness, service: &str) -> Result<ServingStatus, Code> {
        let health = HealthService {
            state: readiness.0.subscribe(),
        };
        let request = Request::new(HealthCheckRequest {
            service: service.to_owned(),
        });
        health
            .check(request)
            .await
            .map(|r| r.get_ref().status())
            .map_err(|s| s.code())
    }

    #[tokio::test]
    async fn nothing_is_ready_before_it_says_so() {
        let readiness = Readiness::new();
        readiness.register("a");
        assert_eq!(check(&readiness, "a").await, Ok(ServingStatus::NotServing));
        assert_eq!(
            check(&readiness, OVERALL).await,
            Ok(ServingStatus::NotServing)
        );
        assert_eq!(check(&readiness, "b").await, Err(Code::NotFound));
        readiness.set("a", true);
        assert_eq!(check(&readiness, "a").await, Ok(ServingStatus::Serving));
        assert_eq!(
            check(&readiness, OVERALL).await,
            Ok(ServingStatus::NotServing)
        );
        readiness.set_overall(true);
        assert_eq!(check(&readiness, OVERALL).await, Ok(ServingStatus::Serving));
    }

    #[tokio::test]
    async fn a_drain_is_final() {
        let readiness = Readiness::new();
        readiness.set_all(true);
        readiness.drain();
        readiness.set_all(true);
        assert_eq!(
            check(&readiness, OVERALL).await,
            Ok(ServingStatus::NotServing)
        );
    }

    #[tokio::test]
    async fn a_watch_of_an_unknown_service_waits_for_it() {
        let readiness = Readiness::new();
        let health = HealthService {
            state: readiness.0.subscribe(),
        };
        let request = Request::new(HealthCheckRequest {
            service: "late".to_owned(),
        });
        let mut watch = health.watch(request).await.unwrap().into_inner();
        let first = watch.next().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::ServiceUnknown);
        readiness.set("late", true);
        let second = watch.next().await.unwrap().unwrap();
        assert_eq!(second.status(), ServingStatus::Serving);
    }
}
