use super::*;
use crate::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::host_service_client::HostServiceClient;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use livemerge_runtime::{Client, Line};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// For what must come.
const SOON: Duration = Duration::from_secs(60);
/// All that health knows of: each service, and the agent as a whole.
const NAMES: [&str; 4] = [
    "",
    "livemerge.v1.HostService",
    "livemerge.v1.MergeService",
    "livemerge.v1.VolumeService",
];

#[test]
fn a_directory_has_one_agent() {
    let dir = tempfile::tempdir().unwrap();
    let first = own(dir.path()).unwrap();
    let second = own(dir.path()).unwrap_err().to_string();
    assert_eq!(second, "another agent has it");
    drop(first);
    assert!(own(dir.path()).is_ok());
}

/// Waits until health says this of each.
async fn all_are(line: &Line, status: ServingStatus) {
    for name in NAMES {
        let says_so = async {
            loop {
                let service = name.to_owned();
                let mut health = HealthClient::new(line.clone());
                let answer = health.check(HealthCheckRequest { service }).await;
                if answer.is_ok_and(|answer| answer.get_ref().status() == status) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let said = tokio::time::timeout(SOON, says_so).await;
        said.unwrap_or_else(|_| panic!("{name:?} is not {status:?}"));
    }
}

/// Why the chains of a machine are not shown.
async fn chain(line: &Line) -> Reason {
    let request = v1::MergeServiceGetVolumeChainRequest {
        vm_id: uuid::Uuid::new_v4().to_string(),
        disk: String::new(),
    };
    let mut merges = MergeServiceClient::new(line.clone());
    let refused = merges.get_volume_chain(request).await.unwrap_err();
    Problem::try_from(refused).unwrap().reason
}

#[tokio::test]
async fn the_agent_is_there_before_libvirt_and_outlives_its_absence() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("agent.sock").display());
    let text = format!(
        "[host]\nid = 'h'\napi_server = ''\nstate_dir = '{}'\n[listen]\naddress = '{socket}'\n",
        dir.path().join("state").display()
    );
    let config: Config = toml::from_str(&text).unwrap();
    let libvirt = Arc::new(FakeHypervisor::new(FakeImages::default(), Pace::Manual));
    libvirt.disconnect();
    let hypervisor = Arc::clone(&libvirt) as Arc<dyn Hypervisor>;
    let serving = tokio::spawn(async move { run(&config, hypervisor, false).await });
    let line = Client::default().line(&socket, |endpoint| endpoint);
    let line = line.unwrap();

    for _absence in 0..2 {
        all_are(&line, ServingStatus::NotServing).await;
        let mut host = HostServiceClient::new(line.clone());
        let shown = host.get_host(v1::HostServiceGetHostRequest {}).await;
        let shown = shown.unwrap().into_inner().host.unwrap();
        assert!(!shown.hypervisor_connected);
        assert_eq!(chain(&line).await, Reason::HypervisorUnreachable);

        libvirt.connect();
        all_are(&line, ServingStatus::Serving).await;
        assert_eq!(chain(&line).await, Reason::VmNotFound);
        libvirt.disconnect();
    }
    serving.abort();
}
