//! [`Server`]: where the API server listens; [`Session`]: how a command calls it.

use crate::access::{self, Wire};
use crate::args::AccessArgs;
use crate::failure::Failure;
use livemerge_proto::ids::RequestId;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_runtime::CallAddress;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

/// Where the server listens when nothing else is said.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7420";

/// For a call when `--timeout` says nothing.
const CALL: Duration = Duration::from_secs(30);
const ROUNDED: Duration = Duration::from_millis(2);
const CONNECT: Duration = Duration::from_secs(10);
/// A quiet connection is asked for a sign of life so often, and given up after the other.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// The address of an API server: `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server(String);

impl FromStr for Server {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str =
            "must be `http://ADDRESS:PORT`, `https://ADDRESS:PORT` or `unix:/PATH`";
        if text != "unix:/" && text.parse::<CallAddress>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(WANTED)
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One command's calls to one server, within one time.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    server: Server,
    wire: Wire,
    request_id: RequestId,
    /// Of all calls of the command.
    trace: Uuid,
    deadline: Option<Instant>,
}

impl Session {
    /// Calls this server. It is connected by the first call.
    ///
    /// # Errors
    /// When the address cannot be used, or the files of `access`.
    pub(crate) fn new(
        server: Server,
        access: &AccessArgs,
        request_id: Option<RequestId>,
        time: Option<Duration>,
    ) -> Result<Self, Failure> {
        let bounds = |endpoint: Endpoint| {
            endpoint
                .user_agent(concat!("livemerge-cli/", env!("CARGO_PKG_VERSION")))
                .expect("it is plain text")
                .connect_timeout(CONNECT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE_ANSWER)
                .keep_alive_while_idle(true)
        };
        Ok(Self {
            wire: access::wire(&server, access, bounds)?,
            request_id: request_id.unwrap_or_else(|| Uuid::new_v4().into()),
            trace: Uuid::new_v4(),
            // A time beyond the clock's range is no bound.
            deadline: time.and_then(|time| Instant::now().checked_add(time)),
            server,
        })
    }

    /// Hosts, machines, chains.
    pub(crate) fn inventory(&self) -> InventoryServiceClient<Wire> {
        InventoryServiceClient::new(self.wire.clone())
    }

    /// Snapshots.
    pub(crate) fn snapshots(&self) -> SnapshotServiceClient<Wire> {
        SnapshotServiceClient::new(self.wire.clone())
    }

    /// Operations.
    pub(crate) fn operations(&self) -> OperationServiceClient<Wire> {
        OperationServiceClient::new(self.wire.clone())
    }

    /// The audit log.
    pub(crate) fn events(&self) -> EventServiceClient<Wire> {
        EventServiceClient::new(self.wire.clone())
    }

    /// Whom it calls.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// What names this command's one mutation.
    pub(crate) fn request_id(&self) -> String {
        self.request_id.to_string()
    }

    /// Makes a call within the command's time.
    ///
    /// # Errors
    /// What the server answers; no answer in time.
    pub(crate) async fn call<M, T>(
        &self,
        message: M,
        send: impl AsyncFnOnce(Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let time = self.time_left()?.unwrap_or(CALL);
        let begun = Instant::now();
        let mut request = Request::new(message);
        request.set_timeout(time);
        if let Ok(traceparent) = self.traceparent().parse() {
            request.metadata_mut().insert("traceparent", traceparent);
        }
        let answer = send(request).await.map_err(|status| {
            // On the wire a time is rounded down.
            let is_over = begun.elapsed() + ROUNDED >= time;
            if status.code() == Code::DeadlineExceeded && is_over {
                return Failure::out_of_time();
            }
            Failure::of_call(&status, &self.server).traced(&self.trace.simple().to_string())
        });
        Ok(answer?.into_inner())
    }

    /// A span of a call, as W3C's trace context spells it: sampled, where the server records spans.
    fn traceparent(&self) -> String {
        let (span, _) = Uuid::new_v4().as_u64_pair();
        format!("00-{}-{span:016x}-01", self.trace.simple())
    }

    /// Works until the command's own time is over, if it has one.
    ///
    /// # Errors
    /// When it is over.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        match self.deadline {
            None => Ok(work.await),
            Some(deadline) => tokio::time::timeout_at(deadline, work)
                .await
                .map_err(|_elapsed| Failure::out_of_time()),
        }
    }

    /// Makes the call that changes something; a failure says how to repeat it without doing it
    /// twice.
    ///
    /// # Errors
    /// Those of [`Session::call`].
    pub(crate) async fn mutate<M, T>(
        &self,
        message: M,
        send: impl AsyncFnOnce(Request<M>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let answer = self.call(message, send).await;
        answer.map_err(|failure| failure.line("request-id", self.request_id()))
    }

    /// The time that `--timeout` leaves; `None` without a bound.
    ///
    /// # Errors
    /// When it is over.
    pub(crate) fn time_left(&self) -> Result<Option<Duration>, Failure> {
        let Some(deadline) = self.deadline else {
            return Ok(None);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(Failure::out_of_time())
        } else {
            Ok(Some(left))
        }
    }

    /// A command to the same server, for people to type.
    pub(crate) fn command(&self, words: &str) -> String {
        match self.server.0.as_str() {
            DEFAULT_SERVER => format!("livemerge {words}"),
            server => format!("livemerge --server {server} {words}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in [
            DEFAULT_SERVER,
            "http://[::1]:7420",
            "http://api",
            "https://api.example.org:7420",
            "unix:/run/a.sock",
        ] {
            assert_eq!(good.parse::<Server>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "x",
            "127.0.0.1:7420",
            "ftp://a",
            "https://",
            "unix:",
            "unix:a",
            "unix:/",
            "http://",
        ] {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
    }
}
