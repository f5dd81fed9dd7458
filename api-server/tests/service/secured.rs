//! The services behind their rules, over a real connection: who gets through to which method, and
//! what the record says of who asked.

use crate::agent::Agent;
use crate::{HOST, any_id, until};
use livemerge_api_server::config::{Config, HostConfig};
use livemerge_api_server::store::{SqliteStore, Store as _};
use livemerge_api_server::{access, console, hosts, server};
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::event_service_client::EventServiceClient;
use livemerge_proto::v1::inventory_service_client::InventoryServiceClient;
use livemerge_proto::v1::operation_service_client::OperationServiceClient;
use livemerge_proto::v1::snapshot_service_client::SnapshotServiceClient;
use livemerge_runtime::{
    AuthConfig, Client, ClientConfig, ConsoleAddress, Line, Reach, Role, Security, Server,
    Shutdown, SystemClock, TlsConfig,
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// The origin whose pages may call.
pub(crate) const CONSOLE: &str = "https://console.example.org";

/// A server that knows a token for each role.
pub(crate) struct Secured {
    pub(crate) address: String,
    /// Where browsers are served.
    pub(crate) web: String,
    /// Where the console is.
    pub(crate) console: String,
    dir: TempDir,
    shutdown: Shutdown,
    pub(crate) agent: Agent,
}

impl Drop for Secured {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Secured {
    pub(crate) async fn serve(vm: &str) -> Self {
        Self::serve_as(vm, Config::default()).await
    }

    pub(crate) async fn serve_as(vm: &str, mut config: Config) -> Self {
        let (agent, endpoint) = Agent::serve(vm.to_owned(), &["vda"]).await;
        let dir = tempfile::tempdir().unwrap();
        let entry = |role: Role| {
            let name = role.as_str();
            fs::write(dir.path().join(name), token(role)).unwrap();
            let digest = Sha256::digest(token(role));
            let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("[tokens.{name}]\nsha256 = \"{digits}\"\nrole = \"{name}\"\n")
        };
        let tokens_file = dir.path().join("tokens.toml");
        let entries = Role::ALL.map(entry).concat();
        // The agent's stands before the server's.
        let bound = entries.replace(
            "role = \"agent\"\n",
            "role = \"agent\"\nhost = \"host-1\"\n",
        );
        fs::write(&tokens_file, bound).unwrap();
        let auth = AuthConfig {
            tokens_file: Some(tokens_file),
            ..AuthConfig::default()
        };
        let security = Security::open(&TlsConfig::default(), Some(&auth), access::rules()).unwrap();

        let store = SqliteStore::open(&dir.path().join("api.db")).await.unwrap();
        config
            .hosts
            .insert(HOST.parse().unwrap(), HostConfig { endpoint });
        config.web.listen = Some(([127, 0, 0, 1], 0).into());
        config.web.allowed_origins = vec![CONSOLE.to_owned().try_into().unwrap()];
        let web = config.web.bind(&config.listen, Reach::Near).await.unwrap();
        let web_address = web.as_ref().unwrap().address().unwrap().to_string();
        config.console.listen = ConsoleAddress::At(([127, 0, 0, 1], 0).into());
        let console = config
            .console
            .bind(console::page, &config.listen, Reach::Near);
        let console = console.await.unwrap();
        let console_address = console.as_ref().unwrap().address().unwrap().to_string();
        let server = Server::new(config.server.clone())
            .secured(security)
            .web(web)
            .web(console);
        let shutdown = server.shutdown();
        let dial = hosts::dial(Client::default(), None);
        let opened = server::open(
            &config,
            Arc::new(SystemClock),
            Arc::new(store),
            dial,
            shutdown.clone(),
        );
        let services = opened.await.unwrap();
        let server = server
            .service(services.snapshots)
            .service(services.operations)
            .service(services.inventory)
            .service(services.events);
        let listen = livemerge_runtime::ListenConfig::loopback(0);
        let listener = listen.bind(Reach::Near).await.unwrap();
        let address = format!("http://{}", listener.address().unwrap());
        tokio::spawn(server.serve(listener));
        Self {
            address,
            web: web_address,
            console: console_address,
            dir,
            shutdown,
            agent,
        }
    }

    /// A line that shows the token of a role, or nothing.
    pub(crate) fn line(&self, role: Option<Role>) -> Line {
        let client = ClientConfig {
            token_file: role.map(|role| self.dir.path().join(role.as_str())),
            ..ClientConfig::default()
        };
        let client = client.open(false).unwrap();
        client.line(&self.address, |endpoint| endpoint).unwrap()
    }
}

pub(crate) fn token(role: Role) -> String {
    format!("the-token-of-{}", role.as_str())
}

/// Sends an empty message, and gives the reason if the gate has refused it.
async fn refused(line: &Line, path: &str) -> Option<Reason> {
    let mut client = Grpc::new(line.clone());
    client.ready().await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    let path = path.parse().unwrap();
    let answer = client.server_streaming(Request::new(()), path, codec).await;
    let gate = [
        Reason::CredentialsMissing,
        Reason::CredentialsInvalid,
        Reason::MethodNotPermitted,
    ];
    let reason = |status: Status| Some(Problem::try_from(status).ok()?.reason);
    reason(answer.err()?).filter(|reason| gate.contains(reason))
}

fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let methods = service.method.iter();
            let name = format!("{}.{}", file.package(), service.name());
            paths.extend(methods.map(|method| format!("/{name}/{}", method.name())));
        }
    }
    paths
}

#[tokio::test]
async fn each_method_lets_its_roles_through_and_no_others() {
    let secured = Secured::serve(&any_id()).await;
    let rules = access::rules();
    let nobody = secured.line(None);
    let methods = methods();
    // Those of the agents have no rule here, and are refused like what is not there at all.
    let unruled = methods
        .iter()
        .filter(|path| rules.permits(path, Role::Operator).is_none());
    assert!(unruled.count() > 10);
    for path in &methods {
        let missing = Some(Reason::CredentialsMissing);
        assert_eq!(refused(&nobody, path).await, missing, "{path}");
    }
    for role in Role::ALL {
        let line = secured.line(Some(role));
        for path in &methods {
            let may = rules.permits(path, role).unwrap_or(false);
            let wanted = (!may).then_some(Reason::MethodNotPermitted);
            assert_eq!(refused(&line, path).await, wanted, "{path} {role:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_does_not_tell_what_exists() {
    let vm = any_id();
    let secured = Secured::serve(&vm).await;
    let mut viewer = SnapshotServiceClient::new(secured.line(Some(Role::Viewer)));
    let mut refusals = Vec::new();
    for vm_id in [vm, any_id(), "no id".to_owned()] {
        let request = v1::CreateSnapshotRequest {
            vm_id,
            ..v1::CreateSnapshotRequest::default()
        };
        let refusal = viewer.create_snapshot(request).await.unwrap_err();
        refusals.push(Problem::try_from(refusal).unwrap());
    }
    assert_eq!(refusals[0].reason, Reason::MethodNotPermitted);
    assert!(
        refusals.iter().all(|refusal| *refusal == refusals[0]),
        "{refusals:?}"
    );
}

#[tokio::test]
async fn the_record_names_the_token_that_asked() {
    let vm = any_id();
    let secured = Secured::serve(&vm).await;
    let mut viewer = InventoryServiceClient::new(secured.line(Some(Role::Viewer)));
    until("the machine", async || {
        let vm_id = vm.clone();
        viewer.get_vm(v1::GetVmRequest { vm_id }).await.ok()
    })
    .await;
    let mut operator = SnapshotServiceClient::new(secured.line(Some(Role::Operator)));
    let request = v1::CreateSnapshotRequest {
        request_id: any_id(),
        vm_id: vm.clone(),
        name: "s1".to_owned(),
        ..v1::CreateSnapshotRequest::default()
    };
    let answer = operator.create_snapshot(request).await.unwrap();
    let id = answer.into_inner().operation.unwrap().id;
    let mut viewer = OperationServiceClient::new(secured.line(Some(Role::Viewer)));
    let request = v1::GetOperationRequest { operation_id: id };
    let answer = viewer.get_operation(request).await.unwrap();
    let operation = answer.into_inner().operation.unwrap();
    assert_eq!(operation.requested_by, "token:operator");
}

#[tokio::test]
async fn an_agent_registers_its_own_host_and_the_record_names_it() {
    let secured = Secured::serve(&any_id()).await;
    let mut agent = InventoryServiceClient::new(secured.line(Some(Role::Agent)));
    let register = |host: &str| v1::RegisterHostRequest {
        request_id: any_id(),
        host_id: host.to_owned(),
        endpoint: "http://127.0.0.1:9".to_owned(),
        generation: 9,
        version: "test".to_owned(),
    };
    let refusal = agent.register_host(register("host-2")).await.unwrap_err();
    let problem = Problem::try_from(refusal).unwrap();
    assert_eq!(problem.reason, Reason::MethodNotPermitted, "{problem}");
    let mut operator = InventoryServiceClient::new(secured.line(Some(Role::Operator)));
    let refusal = operator
        .register_host(register("host-2"))
        .await
        .unwrap_err();
    let problem = Problem::try_from(refusal).unwrap();
    assert_eq!(problem.reason, Reason::FieldInvalid, "{problem}");
    let request = v1::RegisterHostRequest {
        generation: 0,
        ..register("host-2")
    };
    operator.register_host(request).await.unwrap();
    let mut viewer = EventServiceClient::new(secured.line(Some(Role::Viewer)));
    let request = v1::ListEventsRequest {
        types: vec![v1::EventType::HostRegistered.into()],
        ..v1::ListEventsRequest::default()
    };
    let events = viewer
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .events;
    let told = events
        .iter()
        .map(|event| (event.host_id.as_str(), event.actor.as_str()));
    // Nobody has asked for the one of the configuration.
    let wanted = [("host-1", ""), ("host-2", "token:operator")];
    assert_eq!(told.collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn a_host_that_may_not_be_called_stays_listed_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("api.db")).await.unwrap();
    let record = livemerge_api_server::snapshot::HostRecord {
        id: HOST.parse().unwrap(),
        endpoint: "https://192.0.2.1:1".to_owned(),
        generation: 1,
        version: String::new(),
    };
    store.put_host(&record, None).await.unwrap();
    let hosts = hosts::Hosts::open(
        Arc::new(store),
        Arc::new(SystemClock),
        hosts::dial(Client::default(), None),
        hosts::LinkPolicy::default(),
        1,
        Shutdown::new(),
    );
    let hosts = hosts.await.unwrap();
    assert_eq!(hosts.all().len(), 1);
    let handle = hosts.handle(&record.id).unwrap();
    let problem = handle.agent.report().await.unwrap_err().into_problem();
    assert_eq!(problem.reason, Reason::HostUnreachable, "{problem}");
    assert!(problem.to_string().contains("client.ca_file"), "{problem}");
}
