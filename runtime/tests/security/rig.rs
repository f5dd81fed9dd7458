//! A server with certificates and tokens, a service that says who asks, and clients of all kinds.

use crate::authority::{Authority, Files, Issued, When};
use http_body::{Body as _, Frame};
use livemerge_runtime::{
    AuthConfig, Caller, ClientConfig, Line, ListenAddress, ListenConfig, Reach, Role, Rules,
    Security, Server, ServerConfig, Shutdown, Subject, TlsConfig, hold_hangups,
};
use rustix::process::{Signal, getpid, kill_process};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Service, ServiceExt as _};

pub(crate) const SPIFFE: &str = "spiffe://example.org/livemerge/";
/// What the service answers to whom it serves; the text is the caller's name.
pub(crate) const SERVED: Code = Code::AlreadyExists;

/// The token of a role.
pub(crate) fn token(role: Role) -> String {
    format!("hush-hush-{}", role.as_str())
}

/// A file with a token for each of the roles, and for nobody where there are none.
pub(crate) fn tokens(roles: &[Role]) -> String {
    if roles.is_empty() {
        return "[tokens]\n".to_owned();
    }
    let entry = |role: &Role| {
        let digest = Sha256::digest(token(*role));
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = role.as_str();
        format!("[tokens.{name}]\nsha256 = \"{digits}\"\nrole = \"{name}\"\n")
    };
    roles.iter().map(entry).collect()
}

/// Which methods the service has for whom. `Unruled` has no rule.
pub(crate) const METHODS: [(&str, &[Role]); 5] = [
    ("Read", &[Role::Viewer, Role::Operator, Role::Server]),
    ("Write", &[Role::Operator]),
    ("Register", &[Role::Agent]),
    ("Order", &[Role::Server]),
    ("Hold", &[Role::Viewer, Role::Operator]),
];

fn rules() -> Rules {
    METHODS.iter().fold(Rules::new(), |rules, (method, roles)| {
        rules.permit("test.Who", &[method], roles)
    })
}

/// A server, its authority and the authority of its clients, and their files.
pub(crate) struct Rig {
    pub(crate) files: Files,
    pub(crate) servers: Authority,
    pub(crate) clients: Authority,
    pub(crate) address: ListenAddress,
    pub(crate) health: Option<SocketAddr>,
    pub(crate) shutdown: Shutdown,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Rig {
    /// A server with TLS, client certificates and tokens, after `change` of its configuration.
    pub(crate) async fn start(
        change: impl FnOnce(&Files, &mut TlsConfig, &mut AuthConfig),
    ) -> Self {
        Rig::start_at(ListenConfig::loopback(0), Files::new(), change).await
    }

    pub(crate) async fn start_at(
        listen: ListenConfig,
        files: Files,
        change: impl FnOnce(&Files, &mut TlsConfig, &mut AuthConfig),
    ) -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let (cert, key) = files.put_issued("server", &servers.issue(&["127.0.0.1"], When::Now));
        let mut tls = TlsConfig {
            cert_file: Some(cert),
            key_file: Some(key),
            client_ca_file: Some(files.put("clients-ca.pem", &clients.pem())),
            ..TlsConfig::default()
        };
        files.put("servers-ca.pem", &servers.pem());
        files.put("crl.pem", &clients.revoked(&[]));
        let subject = |role: Role| (format!("{SPIFFE}{}", role.as_str()), Subject::Role(role));
        let mut subjects = BTreeMap::from(Role::ALL.map(subject));
        subjects.insert("Viewer.Example.org".to_owned(), Role::Viewer.into());
        let mut auth = AuthConfig {
            tokens_file: Some(files.put("tokens.toml", &tokens(&Role::ALL))),
            subjects,
            ..AuthConfig::default()
        };
        change(&files, &mut tls, &mut auth);
        let security = Security::open(&tls, Some(&auth), rules()).unwrap();
        let server = Server::new(ServerConfig::default())
            .service(Who)
            .streams(["/test.Who/Hold"])
            .secured(security);
        let shutdown = server.shutdown();
        let listener = listen.bind(Reach::Near).await.unwrap();
        let address = listener.address().unwrap();
        let health = listener.health_address();
        tokio::spawn(server.serve(listener));
        Rig {
            files,
            servers,
            clients,
            address,
            health,
            shutdown,
        }
    }

    /// One without TLS, with tokens alone.
    pub(crate) async fn with_tokens() -> Self {
        Rig::start(|_, tls, auth| {
            *tls = TlsConfig::default();
            auth.subjects.clear();
        })
        .await
    }

    /// A client with that certificate.
    pub(crate) fn with(&self, issued: &Issued) -> Line {
        self.line(&self.showing(issued))
    }

    /// The configuration of a client that shows a certificate.
    pub(crate) fn showing(&self, issued: &Issued) -> ClientConfig {
        let name = format!("client-{}", issued.serial);
        let (cert, key) = self.files.put_issued(&name, issued);
        ClientConfig {
            cert_file: Some(cert),
            key_file: Some(key),
            ..self.trusting()
        }
    }

    /// A client with a good certificate for one of the role's names.
    pub(crate) fn of(&self, role: Role) -> Line {
        let name = format!("{SPIFFE}{}", role.as_str());
        self.with(&self.clients.issue(&[&name], When::Now))
    }

    /// A client that knows the server's authority and shows nothing.
    pub(crate) fn trusting(&self) -> ClientConfig {
        ClientConfig {
            ca_file: Some(self.files.path("servers-ca.pem")),
            ..ClientConfig::default()
        }
    }

    pub(crate) fn line(&self, client: &ClientConfig) -> Line {
        let scheme = if client.ca_file.is_some() {
            "https"
        } else {
            "http"
        };
        self.line_to(scheme, client).unwrap()
    }

    pub(crate) fn line_to(&self, scheme: &str, client: &ClientConfig) -> Result<Line, String> {
        let address = format!("{scheme}://{}", self.address);
        let bounds =
            |endpoint: tonic::transport::Endpoint| endpoint.connect_timeout(Duration::from_secs(5));
        client.open(false).unwrap().line(&address, bounds)
    }

    /// Asks the server to look at its files. It may not have come to its handler of the signal yet.
    pub(crate) async fn reload(&self) {
        hold_hangups().unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What came of a call: the code, the reason of an error, and its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) text: String,
}

impl Outcome {
    pub(crate) fn is(&self, code: Code, reason: &str) -> bool {
        self.code == code && self.reason == reason
    }

    /// Whether a certificate is good no more: told so, or too late for that.
    pub(crate) fn shut_out(&self) -> bool {
        self.is(Code::Unauthenticated, "CREDENTIALS_INVALID") || self.reason == "no answer"
    }

    /// Whether it reached the service, which knew the caller by this name.
    pub(crate) fn served(&self, name: &str) -> bool {
        self.code == SERVED && self.text == name
    }
}

/// Calls a method. A call that reaches no server is UNAVAILABLE.
pub(crate) async fn call(line: &Line, path: &str, headers: &[(&str, &str)]) -> Outcome {
    match send(line, path, headers).await {
        Ok(response) => ending(response).await,
        Err(error) => Outcome {
            code: Code::Unavailable,
            reason: "no answer".to_owned(),
            text: format!("{error:?}"),
        },
    }
}

pub(crate) async fn send(
    line: &Line,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<http::Response<Body>, tonic::transport::Error> {
    let mut request = http::Request::post(path).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    // An empty message.
    let body = Body::new(http_body_util::Full::from(&[0_u8; 5][..]));
    let mut line = line.clone();
    line.ready().await?.call(request.body(body).unwrap()).await
}

pub(crate) async fn ending(response: http::Response<Body>) -> Outcome {
    let (head, mut body) = response.into_parts();
    let mut status = Status::from_header_map(&head.headers);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { break };
        let trailers = frame.trailers_ref().and_then(Status::from_header_map);
        status = trailers.or(status);
    }
    let status = status.unwrap_or_else(|| Status::unknown("no status"));
    let details = status.get_error_details();
    Outcome {
        code: status.code(),
        reason: details
            .error_info()
            .map_or_else(String::new, |info| info.reason.clone()),
        text: status.message().to_owned(),
    }
}

/// Says who asks; `Hold` answers and then says nothing, for ever.
#[derive(Clone)]
struct Who;

impl NamedService for Who {
    const NAME: &'static str = "test.Who";
}

impl Service<http::Request<Body>> for Who {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert!(
            !request.headers().contains_key("authorization"),
            "the gate takes it off"
        );
        if request.uri().path().ends_with("/Hold") {
            let response = http::Response::builder().header("content-type", "application/grpc");
            let held = response.body(Body::new(Held)).unwrap();
            return std::future::ready(Ok(held));
        }
        let caller = request.extensions().get::<Caller>();
        let name = caller.map_or("nobody", Caller::name);
        std::future::ready(Ok(Status::new(SERVED, name).into_http()))
    }
}

struct Held;

impl http_body::Body for Held {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        Poll::Pending
    }
}
