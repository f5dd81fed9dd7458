//! Each method holds its request against the declared rules, and the rules of storage's words are
//! what storage says of them.

use crate::agent;
use crate::config::Config;
use crate::domains::Domain;
use crate::rig::Rig;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::fields::Fields;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::rules::Rules;
use livemerge_proto::v1;
use livemerge_runtime::{Shutdown, SystemClock};
use livemerge_storage::{Identity, RemovalId, StorageId, VolumeName};
use proptest::prelude::*;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use std::convert::Infallible;
use std::sync::Arc;
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::{Service, http};
use tonic_prost::ProstCodec;

/// A request of which every field is bad that can be.
fn spoiled(message: &MessageDescriptor) -> DynamicMessage {
    let mut spoiled = DynamicMessage::new(message.clone());
    for field in message.fields().filter(|field| !field.is_list()) {
        let value = match field.kind() {
            Kind::String => Value::String("\u{7}".to_owned()),
            Kind::Int32 => Value::I32(-1),
            Kind::Int64 => Value::I64(-1),
            Kind::Enum(_) => Value::EnumNumber(77),
            Kind::Message(within) if !field.is_map() => Value::Message(self::spoiled(&within)),
            _ => continue,
        };
        spoiled.set_field(&field, value);
    }
    spoiled
}

async fn refusal<S>(service: S, path: &str, request: DynamicMessage) -> Status
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let mut client = Grpc::new(service);
    client.ready().await.unwrap();
    let codec = ProstCodec::<DynamicMessage, ()>::default();
    let path = path.parse().unwrap();
    let answer = client.server_streaming(tonic::Request::new(request), path, codec);
    answer.await.map(drop).unwrap_err()
}

#[tokio::test]
async fn each_method_tells_all_that_is_wrong_with_a_request() {
    let (rig, state) = (Rig::new().await, tempfile::tempdir().unwrap());
    let mut config = Config::default();
    config.host.state_dir = state.path().to_owned();
    let domains = vec![Domain::plain(Arc::clone(&rig.store) as _)];
    let clock = Arc::new(SystemClock);
    let agent = agent::open(&config, clock, rig.hypervisor(), domains, Shutdown::new()).await;
    let agent = agent.unwrap();
    let contracts = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let rules = Rules::compile(&contracts).unwrap();
    let mut looked_at = 0;
    for service in contracts.services() {
        // `GetHost` and `WatchMerges` take nothing.
        let methods = service
            .methods()
            .filter(|method| method.input().fields().len() > 0);
        for method in methods {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let request = spoiled(&method.input());
            let wanted = rules.violations(&request);
            assert!(!wanted.is_empty(), "{path} has nothing to be wrong");
            let told = match service.name() {
                "MergeService" => refusal(agent.merges.clone(), &path, request).await,
                "HostService" => refusal(agent.host.clone(), &path, request).await,
                "VolumeService" => refusal(agent.volumes.clone(), &path, request).await,
                _of_the_server => continue,
            };
            let told = Problem::try_from(told).unwrap();
            assert_eq!(told.reason, Reason::FieldInvalid, "{path}: {told}");
            // What the rules say stands before what they cannot say.
            assert_eq!(told.violations[..wanted.len()], wanted, "{path}");
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 15);
}

/// Names that are nearly good.
fn nearly() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,20}",
        "[ -~]{0,40}",
        "[a-z0-9-]{0,70}",
        "[A-Za-z0-9_.+-]{0,8}",
        "[a.]{190,210}",
        "[!-~]{195,205}",
        "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    ]
}

proptest! {
    #[test]
    fn the_rules_say_what_storage_says(text in nearly()) {
        let refused = |request: &v1::RemoveVolumeRequest| {
            let refused = Fields::of(request).check().err();
            let violations = refused.map(|it| it.violations).unwrap_or_default();
            violations.into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        let found = refused(&v1::RemoveVolumeRequest {
            request_id: text.clone(),
            generation: 1,
            volume: Some(v1::VolumeRef { storage: text.clone(), name: text.clone() }),
            identity: text.clone(),
            also: vec![],
        });
        let bad = |field: &str| found.iter().any(|it| it == field);
        prop_assert_eq!(bad("volume.storage"), text.parse::<StorageId>().is_err());
        prop_assert_eq!(bad("volume.name"), text.parse::<VolumeName>().is_err());
        prop_assert_eq!(bad("identity"), text.parse::<Identity>().is_err());
        // A removal's id is its request's.
        prop_assert_eq!(bad("request_id"), text.parse::<RemovalId>().is_err());
    }
}
