//! The barest server of tonic: any unary call is answered with one message, decoded and encoded as
//! generated code does it, and nothing else. It runs as a process of its own, as the API server does.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use livemerge_proto::v1;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::api::Api;
use crate::services::program;

/// The argument that makes this program such a server.
pub const SUBCOMMAND: &str = "echo";

/// Answers every `GetSnapshot` with the same.
#[derive(Clone)]
struct Echo(v1::GetSnapshotResponse);

impl NamedService for Echo {
    const NAME: &'static str = "livemerge.v1.SnapshotService";
}

impl UnaryService<v1::GetSnapshotRequest> for Echo {
    type Response = v1::GetSnapshotResponse;
    type Future = Ready<Result<Response<Self::Response>, Status>>;

    fn call(&mut self, request: Request<v1::GetSnapshotRequest>) -> Self::Future {
        let mut answer = self.0.clone();
        if let Some(snapshot) = &mut answer.snapshot {
            snapshot.id = request.into_inner().snapshot_id;
        }
        ready(Ok(Response::new(answer)))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(echo, request).await) })
    }
}

/// Serves on a port of loopback, which it prints, until it is killed; with the answer that this server
/// gives.
///
/// # Errors
/// When it cannot listen, or the server does not answer.
pub async fn serve(like: &str, snapshot: &str) -> Result<()> {
    let request = v1::GetSnapshotRequest {
        snapshot_id: snapshot.to_owned(),
    };
    let answer = Api::at(like)?.snapshots.get_snapshot(request).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    #[allow(
        clippy::print_stdout,
        reason = "this is how its caller learns the port"
    )]
    {
        println!("{}", listener.local_addr()?);
    }
    let echo = Echo(answer.into_inner());
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_service(echo);
    Ok(server.serve_with_incoming(incoming).await?)
}

/// Such a process. Dropped, it is killed.
pub(super) struct EchoProcess {
    child: Child,
    pub(super) endpoint: String,
}

impl EchoProcess {
    pub(super) fn start(like: &str, snapshot: &str) -> Result<Self> {
        let mut command = Command::new(program("livemerge-bench")?);
        command.args([SUBCOMMAND, like, snapshot]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("its output")?;
        let mut address = String::new();
        BufReader::new(out).read_line(&mut address)?;
        Ok(Self {
            child,
            endpoint: format!("http://{}", address.trim()),
        })
    }
}

impl Drop for EchoProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
