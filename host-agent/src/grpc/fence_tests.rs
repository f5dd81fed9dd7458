//! Every order carries its server's generation, and is refused when a newer server has given one.

use crate::agent::{self, Agent};
use crate::config::Config;
use crate::domains::Domain;
use crate::rig::Rig;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::v1;
use livemerge_proto::v1::host_service_client::HostServiceClient;
use livemerge_proto::v1::merge_service_client::MergeServiceClient;
use livemerge_proto::v1::volume_service_client::VolumeServiceClient;
use livemerge_runtime::{Shutdown, SystemClock};
use livemerge_storage::VolumeStore as _;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Response, Status};

const ORDERS: [&str; 7] = [
    "CancelMergeRequest",
    "CreateOverlaysRequest",
    "GrowVolumeRequest",
    "RemoveVolumeRequest",
    "RestoreVolumeRequest",
    "SetMergeBandwidthRequest",
    "StartMergeRequest",
];
const ID: &str = "00000000-0000-0000-0000-000000000001";

/// A new order is in the table, too: what a server asks of an agent and carries a generation.
#[test]
fn all_orders_with_a_generation_are_looked_at() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let is_agents = |file: &&FileDescriptorProto| {
        let name = file.name().rsplit('/').next();
        let files = [
            "merge_service.proto",
            "host_service.proto",
            "volume_service.proto",
        ];
        name.is_some_and(|name| files.contains(&name))
    };
    let messages = set
        .file
        .iter()
        .filter(is_agents)
        .flat_map(|file| &file.message_type);
    let orders = messages.filter(|message| {
        let mut fields = message.field.iter();
        message.name().ends_with("Request") && fields.any(|field| field.name() == "generation")
    });
    let orders: BTreeSet<&str> = orders.map(|message| message.name()).collect();
    assert_eq!(orders, BTreeSet::from(ORDERS));
}

#[tokio::test]
async fn every_order_of_an_older_server_is_refused_and_does_nothing() {
    let rig = Rig::new().await;
    let volume = rig.volume("left.qcow2", None).await;
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.host.state_dir = state.path().to_owned();
    let agent = open(&rig, &config).await;
    let identity = volume.identity.to_string();
    // What the newer server orders is not there to be worked on.
    for order in ORDERS {
        let refused = give(&agent, order, 7, "of-another").await;
        assert_ne!(refused, Some(Reason::StaleGeneration), "{order}");
    }
    for order in ORDERS {
        let refused = give(&agent, order, 6, &identity).await;
        assert_eq!(refused, Some(Reason::StaleGeneration), "{order}");
    }
    assert_eq!(
        rig.store.stat(&volume.volume.name).await.unwrap().identity,
        volume.identity
    );
    let looks = [
        "vms",
        "vm",
        "job",
        "migrates",
        "references",
        "kept_snapshots",
    ];
    for call in rig.host.calls() {
        assert!(looks.contains(&call.name()), "{call:?}");
    }
    // The same server goes on, and so does a newer one, also after the agent's restart.
    drop(agent);
    let agent = open(&rig, &config).await;
    let removal = ORDERS[3];
    assert_eq!(
        give(&agent, removal, 6, &identity).await,
        Some(Reason::StaleGeneration)
    );
    assert_eq!(give(&agent, removal, 7, &identity).await, None);
    assert!(
        rig.store.stat(&volume.volume.name).await.is_err(),
        "it is removed"
    );
}

/// Whatever the server's generation is, it is this agent's that is too low.
#[tokio::test]
async fn an_agent_that_was_replaced_takes_no_order_until_it_is_started_again() {
    let rig = Rig::new().await;
    let volume = rig.volume("left.qcow2", None).await;
    let state = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.host.state_dir = state.path().to_owned();
    let identity = volume.identity.to_string();
    let agent = open(&rig, &config).await;
    agent.tenure.replaced();
    for order in ORDERS {
        let refused = give(&agent, order, 7, &identity).await;
        assert_eq!(refused, Some(Reason::StaleGeneration), "{order}");
    }
    assert!(rig.store.stat(&volume.volume.name).await.is_ok());
    drop(agent);
    let agent = open(&rig, &config).await;
    assert_eq!(give(&agent, ORDERS[3], 7, &identity).await, None);
}

async fn open(rig: &Rig, config: &Config) -> Agent {
    let domains = vec![Domain::plain(Arc::clone(&rig.store) as _)];
    let clock = Arc::new(SystemClock);
    let opened = agent::open(config, clock, rig.hypervisor(), domains, Shutdown::new());
    opened.await.unwrap()
}

fn named(name: &str) -> Option<v1::VolumeRef> {
    Some(v1::VolumeRef {
        storage: "default".to_owned(),
        name: name.to_owned(),
    })
}

fn marked(name: &str) -> v1::MarkedVolume {
    v1::MarkedVolume {
        volume: named(name),
        identity: "of-another".to_owned(),
    }
}

/// Gives an order that is complete; `identity` of the volume to be removed. Why it was refused.
async fn give(agent: &Agent, order: &str, generation: i64, identity: &str) -> Option<Reason> {
    fn refused<T>(answer: Result<Response<T>, Status>) -> Option<Reason> {
        let refused = answer.err()?;
        Some(Problem::try_from(refused).unwrap().reason)
    }
    let mut merges = MergeServiceClient::new(agent.merges.clone());
    let mut host = HostServiceClient::new(agent.host.clone());
    let mut volumes = VolumeServiceClient::new(agent.volumes.clone());
    let id = ID.to_owned();
    match order {
        "CancelMergeRequest" => {
            let request = v1::CancelMergeRequest {
                generation,
                merge_id: id,
            };
            refused(merges.cancel_merge(request).await)
        }
        "SetMergeBandwidthRequest" => {
            let request = v1::SetMergeBandwidthRequest {
                generation,
                merge_id: id,
                bytes_per_second: 1,
            };
            refused(merges.set_merge_bandwidth(request).await)
        }
        "StartMergeRequest" => {
            let disk = v1::DiskMerge {
                merge_id: id.clone(),
                disk: "vda".to_owned(),
                direction: v1::MergeDirection::Commit.into(),
                kept: Some(marked("kept.qcow2")),
                removed: vec![marked("left.qcow2")],
                bytes_per_second: 0,
                spare: None,
            };
            let request = v1::StartMergeRequest {
                generation,
                vm_id: id,
                disks: vec![disk],
                promised_elsewhere: vec![],
                sequence: 2,
            };
            refused(merges.start_merge(request).await)
        }
        "CreateOverlaysRequest" => {
            let overlay = v1::Overlay {
                disk: "vda".to_owned(),
                below: named("left.qcow2"),
                overlay: named("overlay.qcow2"),
            };
            let request = v1::CreateOverlaysRequest {
                request_id: id.clone(),
                generation,
                vm_id: id,
                overlays: vec![overlay],
                sequence: 1,
                ..v1::CreateOverlaysRequest::default()
            };
            refused(host.create_overlays(request).await)
        }
        "RemoveVolumeRequest" => {
            let request = v1::RemoveVolumeRequest {
                request_id: id,
                generation,
                volume: named("left.qcow2"),
                identity: identity.to_owned(),
                also: vec![],
            };
            refused(volumes.remove_volume(request).await)
        }
        "GrowVolumeRequest" => {
            let request = v1::GrowVolumeRequest {
                request_id: id,
                generation,
                volume: named("left.qcow2"),
                identity: identity.to_owned(),
                virtual_bytes: 1 << 30,
            };
            refused(volumes.grow_volume(request).await)
        }
        "RestoreVolumeRequest" => {
            let request = v1::RestoreVolumeRequest {
                generation,
                storage: "default".to_owned(),
                removal_id: id,
            };
            refused(volumes.restore_volume(request).await)
        }
        other => panic!("{other} is not given"),
    }
}
