//! Each method holds its request against the declared rules, behind the gate.

use crate::any_id;
use crate::secured::Secured;
use livemerge_api_server::access;
use livemerge_proto::DESCRIPTORS;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_proto::rules::Rules;
use livemerge_runtime::{Line, Role};
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use tonic::client::Grpc;
use tonic::{Request, Status};
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

async fn refusal(line: Line, path: &str, request: DynamicMessage) -> Status {
    let mut client = Grpc::new(line);
    client.ready().await.unwrap();
    let codec = ProstCodec::<DynamicMessage, ()>::default();
    let path = path.parse().unwrap();
    let answer = client.server_streaming(Request::new(request), path, codec);
    answer.await.map(drop).unwrap_err()
}

#[tokio::test]
async fn each_method_tells_all_that_is_wrong_with_a_request() {
    let secured = Secured::serve(&any_id()).await;
    let contracts = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let (rules, gate) = (Rules::compile(&contracts).unwrap(), access::rules());
    let mut looked_at = 0;
    for service in contracts.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            if gate.permits(&path, Role::Operator).is_none() {
                continue;
            }
            let request = spoiled(&method.input());
            let wanted = rules.violations(&request);
            assert!(!wanted.is_empty(), "{path} has nothing to be wrong");
            let line = secured.line(Some(Role::Operator));
            let told = Problem::try_from(refusal(line, &path, request.clone()).await).unwrap();
            assert_eq!(told.reason, Reason::FieldInvalid, "{path}: {told}");
            // What the rules say stands before what they cannot say.
            assert_eq!(told.violations[..wanted.len()], wanted, "{path}");
            // Whoever may not ask is not told what is wrong.
            let told =
                Problem::try_from(refusal(secured.line(None), &path, request).await).unwrap();
            assert_eq!(told.reason, Reason::CredentialsMissing, "{path}: {told}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 25, "{looked_at}");
}

#[tokio::test]
async fn a_thousand_bad_ids_are_told_in_an_answer_that_can_be_read() {
    let secured = Secured::serve(&any_id()).await;
    let contracts = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let plan = contracts.get_message_by_name("livemerge.v1.PlanDeleteSnapshotRequest");
    let mut request = DynamicMessage::new(plan.unwrap());
    let ids = (0..1000).map(|place| Value::String(format!("`{place}`")));
    request.set_field_by_name("snapshot_ids", Value::List(ids.collect()));
    let path = "/livemerge.v1.SnapshotService/PlanDeleteSnapshot";
    let told = refusal(secured.line(Some(Role::Operator)), path, request).await;
    let told = Problem::try_from(told).unwrap();
    assert_eq!(told.reason, Reason::FieldInvalid);
    let named: Vec<_> = told.violations.iter().map(|(field, _)| &**field).collect();
    assert_eq!(named[..2], ["snapshot_ids[0]", "snapshot_ids[1]"]);
    let more: usize = told.metadata["more"].parse().unwrap();
    assert_eq!(named.len() + more, 1000);
}
