//! Both programs, whole but for the hypervisor, over connections with certificates on both sides:
//! the host comes up, and who has another certificate gets no further than its role.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::Full;
use livemerge_api_server::{config as server_config, server};
use livemerge_host_agent::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use livemerge_host_agent::{access, agent, config as agent_config};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_runtime::{ClientConfig, Line, Role};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(120);
const NAMES: &str = "spiffe://example.org/livemerge";

struct Site {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    server: String,
    agent: String,
    running: Vec<JoinHandle<Result<()>>>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

impl Site {
    async fn start() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut site = Site {
            dir: tempfile::tempdir()?,
            authority: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
            server: free_address()?,
            agent: free_address()?,
            running: Vec::new(),
        };
        fs::write(site.path("ca.pem"), site.authority.pem())?;
        fs::create_dir(site.path("images"))?;
        for name in [
            "server", "host-1", "host-2", "viewer", "operator", "stranger",
        ] {
            site.issue(name)?;
        }
        site.start_server()?;
        site.start_agent()?;
        Ok(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for that name, and for this machine's address.
    fn issue(&self, name: &str) -> Result<()> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.subject_alt_names = vec![
            SanType::URI(format!("{NAMES}/{name}").as_str().try_into()?),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.authority)?;
        fs::write(self.path(&format!("{name}.pem")), cert.pem())?;
        Ok(fs::write(
            self.path(&format!("{name}.key")),
            key.serialize_pem(),
        )?)
    }

    /// The tables that both have alike.
    fn tables(&self, name: &str, address: &str, others: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            "[listen]\naddress = '{address}'\n\
             [tls]\ncert_file = '{dir}/{name}.pem'\nkey_file = '{dir}/{name}.key'\n\
             client_ca_file = '{dir}/ca.pem'\n\
             [client]\nca_file = '{dir}/ca.pem'\ncert_file = '{dir}/{name}.pem'\n\
             key_file = '{dir}/{name}.key'\n\
             [auth.subjects]\n'{NAMES}/viewer' = 'viewer'\n'{NAMES}/operator' = 'operator'\n{others}"
        )
    }

    fn start_server(&mut self) -> Result<()> {
        let bound =
            |host: &str| format!("'{NAMES}/{host}' = {{ role = 'agent', host = '{host}' }}\n");
        let subjects = bound("host-1") + &bound("host-2");
        let text = self.tables("server", &self.server, &subjects);
        let store = format!(
            "[agents]\ncertificate = 'host'\n[console]\nlisten = ''\n[store]\npath = '{}'\n",
            self.path("api.db").display()
        );
        let config: server_config::Config = toml::from_str(&(text + &store))?;
        config.check(false)?;
        config.check_files()?;
        let run = async move { server::run(&config, false).await };
        self.running.push(tokio::spawn(run));
        Ok(())
    }

    fn start_agent(&mut self) -> Result<()> {
        let subjects = format!("'{NAMES}/server' = 'server'\n'{NAMES}/host-2' = 'agent'\n");
        let text = self.tables("host-1", &self.agent, &subjects);
        let own = format!(
            "[host]\nid = 'host-1'\nstate_dir = '{}'\napi_server = 'HTTPS://{}'\n\
             [storage.default]\nkind = 'file'\npath = '{}'\n",
            self.path("state").display(),
            self.server,
            self.path("images").display(),
        );
        let config: agent_config::Config = toml::from_str(&(text + &own))?;
        config.check(false)?;
        config.check_files()?;
        let host = Arc::new(FakeHypervisor::new(FakeImages::default(), Pace::Manual));
        let run = async move { agent::run(&config, host, false).await };
        self.running.push(tokio::spawn(run));
        Ok(())
    }

    /// A line with somebody's certificate, or with none.
    fn line(&self, name: Option<&str>, address: &str) -> Result<Line> {
        let file = |kind| name.map(|name| self.path(&format!("{name}.{kind}")));
        let client = ClientConfig {
            ca_file: Some(self.path("ca.pem")),
            cert_file: file("pem"),
            key_file: file("key"),
            ..ClientConfig::default()
        };
        let line = client
            .open(false)?
            .line(&format!("https://{address}"), |endpoint| endpoint);
        line.map_err(anyhow::Error::msg)
    }

    async fn host_is_up(&self) -> Result<v1::Host> {
        let mut inventory = InventoryServiceClient::new(self.line(Some("viewer"), &self.server)?);
        let up = async {
            loop {
                let host_id = "host-1".to_owned();
                let answer = inventory.get_host(v1::GetHostRequest { host_id }).await;
                let host = answer.ok().and_then(|answer| answer.into_inner().host);
                if let Some(host) = host.filter(|host| host.status() == v1::HostStatus::Up) {
                    return host;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let up = tokio::time::timeout(LIMIT, up).await;
        up.context("the host does not come up")
    }
}

/// An address of loopback that nobody has just now.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// Why the gate refuses an empty call; `None` when it lets it through.
async fn refused(line: &Line, path: &str) -> Result<Option<Reason>> {
    let request = http::Request::post(path).header("content-type", "application/grpc");
    let mut line = line.clone();
    let empty = Body::new(Full::from(&[0_u8; 5][..]));
    let answer = line.ready().await?.call(request.body(empty)?).await?;
    let Some(status) = Status::from_header_map(answer.headers()) else {
        return Ok(None);
    };
    let reason = Problem::try_from(status).ok().map(|problem| problem.reason);
    let gate = [
        Reason::CredentialsMissing,
        Reason::CredentialsInvalid,
        Reason::MethodNotPermitted,
    ];
    Ok(reason.filter(|reason| gate.contains(reason)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_work_together_by_their_certificates() -> Result<()> {
    let site = Site::start().await?;
    let host = site.host_is_up().await?;
    assert_eq!(host.endpoint, format!("https://{}", site.agent));

    let mut events = EventServiceClient::new(site.line(Some("viewer"), &site.server)?);
    let request = v1::ListEventsRequest {
        types: vec![v1::EventType::HostRegistered.into()],
        ..v1::ListEventsRequest::default()
    };
    let events = events.list_events(request).await?.into_inner().events;
    let actors: Vec<&str> = events.iter().map(|event| event.actor.as_str()).collect();
    assert_eq!(actors, [format!("{NAMES}/host-1")]);

    // The certificate of another host registers that one, and not this one.
    let mut other = InventoryServiceClient::new(site.line(Some("host-2"), &site.server)?);
    let register = |host: &str| v1::RegisterHostRequest {
        request_id: Uuid::new_v4().to_string(),
        host_id: host.to_owned(),
        endpoint: format!("https://{}", site.agent),
        generation: 1,
        version: "test".to_owned(),
    };
    let refusal = other.register_host(register("host-1")).await.unwrap_err();
    let problem = Problem::try_from(refusal).ok().context("a reason")?;
    assert_eq!(problem.reason, Reason::MethodNotPermitted, "{problem}");
    other.register_host(register("host-2")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_takes_orders_of_the_server_alone() -> Result<()> {
    let site = Site::start().await?;
    site.host_is_up().await?;
    let rules = access::rules();
    let paths: Vec<&str> = rules
        .paths()
        .filter(|path| path.starts_with("/livemerge."))
        .collect();
    assert!(paths.len() > 12);
    for (name, role) in [
        ("server", Some(Role::Server)),
        ("operator", Some(Role::Operator)),
        ("viewer", Some(Role::Viewer)),
        ("host-2", Some(Role::Agent)),
        ("stranger", None),
    ] {
        let line = site.line(Some(name), &site.agent)?;
        for path in &paths {
            let may = role.is_some_and(|role| rules.permits(path, role) == Some(true));
            let wanted = (!may).then_some(Reason::MethodNotPermitted);
            assert_eq!(refused(&line, path).await?, wanted, "{name} {path}");
        }
    }
    let nobody = site.line(None, &site.agent)?;
    if refused(&nobody, "/grpc.health.v1.Health/Check")
        .await
        .is_ok()
    {
        bail!("a client without a certificate is connected");
    }
    Ok(())
}
