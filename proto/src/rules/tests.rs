//! The rules of the contracts: all are evaluated, every field has one, and they say what the types of
//! [`crate::ids`] say.

mod table;

use super::*;
use crate::ids::{DiskTarget, HostId, SnapshotName, VmId};
use crate::v1;
use compile::ValueRules;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{Kind, MessageDescriptor};
use std::collections::{BTreeMap, BTreeSet};

/// Fields whose values no rule can judge.
const FREE: [(&str, &str); 2] = [
    (
        "page_token",
        "opaque: PAGE_TOKEN_INVALID tells of another question's",
    ),
    (
        "resume_token",
        "opaque: RESUME_TOKEN_INVALID tells of another filter's",
    ),
];

fn contracts() -> DescriptorPool {
    DescriptorPool::decode(crate::DESCRIPTORS).unwrap()
}

fn rules() -> Rules {
    Rules::compile(&contracts()).unwrap()
}

/// What the methods take, by name.
fn requests() -> BTreeMap<String, MessageDescriptor> {
    let contracts = contracts();
    let methods: Vec<_> = contracts
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .collect();
    let inputs = methods.iter().map(prost_reflect::MethodDescriptor::input);
    inputs.map(|it| (it.name().to_owned(), it)).collect()
}

#[test]
fn every_field_of_a_request_has_a_rule_or_a_reason_to_have_none() {
    fn look(rules: &MessageRules, without: &mut Vec<String>) {
        for field in rules.message.fields() {
            let found = rules.fields.iter().find(|it| it.field == field);
            // Both values of a bool are good.
            let free = field.kind() == Kind::Bool || FREE.iter().any(|(it, _)| *it == field.name());
            match found.map(|it| &it.value) {
                None if free => {}
                None => without.push(field.full_name().to_owned()),
                Some(ValueRules::Message(within)) => look(within, without),
                Some(ValueRules::List(list)) => match &list.item {
                    ValueRules::Message(within) => look(within, without),
                    ValueRules::Any => without.push(field.full_name().to_owned()),
                    _ => {}
                },
                Some(ValueRules::Any) => {
                    if let Kind::Message(within) = field.kind() {
                        assert_eq!(within.fields().len(), 0, "{}", field.full_name());
                    }
                }
                Some(_) => {}
            }
        }
    }
    let rules = rules();
    let mut without = Vec::new();
    rules
        .requests
        .values()
        .for_each(|it| look(it, &mut without));
    assert!(rules.requests.len() > 40);
    assert!(without.is_empty(), "without a rule: {without:#?}");
}

#[test]
fn all_that_is_wrong_with_a_request_is_told_at_once() {
    let (rules, mut requests) = (rules(), requests());
    for (name, request, wanted) in table::BAD {
        let message = requests
            .remove(*name)
            .unwrap_or_else(|| panic!("{name} is no request"));
        let request = DynamicMessage::parse_text_format(message, request);
        let found = rules.violations(&request.unwrap_or_else(|error| panic!("{name}: {error}")));
        let found: Vec<_> = found
            .iter()
            .map(|(at, must)| format!("{at} {must}"))
            .collect();
        assert_eq!(found, *wanted, "{name}");
    }
    let left: BTreeSet<_> = requests
        .values()
        .filter(|message| message.fields().len() > 0)
        .map(|message| message.name())
        .collect();
    assert!(left.is_empty(), "not in the table: {left:?}");
}

#[test]
fn what_is_as_it_must_be_is_not_refused() {
    let (rules, requests) = (rules(), requests());
    for (name, request) in table::GOOD {
        let request = DynamicMessage::parse_text_format(requests[*name].clone(), request).unwrap();
        assert_eq!(rules.violations(&request), [], "{name}");
    }
}

/// The contracts, and a method beside them whose request has these rules, and one field with those.
fn with_a_request(of_message: &str, of_field: &str) -> DescriptorPool {
    let mut contracts = contracts();
    let file = contracts.get_message_by_name("google.protobuf.FileDescriptorProto");
    let text = format!(
        "name: 'test.proto' package: 'test' syntax: 'proto3' dependency: 'buf/validate/validate.proto'
         message_type {{ name: 'Asked' options {{ {of_message} }} field {{
             name: 'name' number: 1 label: LABEL_OPTIONAL type: TYPE_STRING
             options {{ [buf.validate.field] {{ {of_field} }} }} }} }}
         service {{ name: 'Test' method {{
             name: 'Ask' input_type: '.test.Asked' output_type: '.test.Asked' }} }}"
    );
    let file = DynamicMessage::parse_text_format(file.unwrap(), &text).unwrap();
    let file = file.encode_to_vec();
    contracts
        .decode_file_descriptor_proto(file.as_slice())
        .unwrap();
    contracts
}

#[test]
fn a_rule_that_is_not_evaluated_is_an_error() {
    let refused = |rule: &str| Rules::compile(&with_a_request("", rule)).err();
    assert_eq!(refused("string { max_len: 3 }"), None);
    for (rule, named) in [
        ("string { prefix: 'a' }", "`prefix`"),
        ("string { pattern: '^new$' }", "no text for people"),
        ("int64 { gt: 3 }", "`int64`"),
        ("ignore: IGNORE_ALWAYS", "`ignore`"),
        ("cel { id: 'a' expression: 'true' }", "`cel`"),
    ] {
        let told = refused(rule).unwrap_or_else(|| panic!("{rule} is passed over"));
        assert_eq!(told.field, "test.Asked.name");
        assert!(told.why.contains(named), "{told}");
    }
    let crossing = "[buf.validate.message] { cel_expression: 'true' }";
    let told = Rules::compile(&with_a_request(crossing, "")).err();
    assert_eq!(told.map(|told| told.field), Some("test.Asked".to_owned()));
}

#[test]
fn lengths_are_bounded() {
    let labels = |labels: Vec<(String, String)>| {
        let update = v1::CreateSnapshotRequest {
            labels: labels.into_iter().collect(),
            ..v1::CreateSnapshotRequest::default()
        };
        let found = violations(&update).into_iter();
        let found = found.filter(|(at, _)| at.starts_with("labels"));
        found
            .map(|(at, must)| format!("{at} {must}"))
            .collect::<Vec<_>>()
    };
    let many = |count: usize| (0..count).map(|number| (number.to_string(), String::new()));
    assert_eq!(labels(many(32).collect()), [""; 0]);
    assert_eq!(
        labels(many(33).collect()),
        ["labels must have at most 32 entries"]
    );
    assert_eq!(labels(vec![("k".repeat(63), "ü".repeat(256))]), [""; 0]);
    let long = labels(vec![("k".repeat(5000), "ü".repeat(257))]);
    let at = format!("labels[{:?}]", "k".repeat(64));
    assert_eq!(
        long,
        [
            format!("{at} must have a key of 1 to 63 of `a-z 0-9 . / _ -`"),
            format!("{at} must have at most 256 characters"),
        ]
    );
    let named = |chars: usize| {
        let name = "é".repeat(chars);
        violations(&v1::ListVmsRequest {
            name,
            ..v1::ListVmsRequest::default()
        })
    };
    assert_eq!(named(256), []);
    assert_eq!(named(257)[0].1, "must have at most 256 characters");
}

/// Names that are nearly good.
fn nearly() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,40}",
        "[ -~]{0,40}",
        "[a-z0-9.-]{0,70}",
        "[A-Za-z0-9_-]{0,40}",
        "[ \u{a0}\u{2003}\u{85}\ta-c]{0,6}",
        "[0-9a-fA-F]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        "é{126,130}",
    ]
}

fn named(violations: &[Violation], field: &str) -> bool {
    violations.iter().any(|(at, _)| at == field)
}

proptest! {
    #[test]
    fn the_rules_say_what_the_types_say(text in nearly()) {
        let create = violations(&v1::CreateSnapshotRequest {
            vm_id: text.clone(),
            name: text.clone(),
            ..v1::CreateSnapshotRequest::default()
        });
        prop_assert_eq!(named(&create, "vm_id"), text.parse::<VmId>().is_err());
        prop_assert_eq!(named(&create, "name"), text.parse::<SnapshotName>().is_err());
        let host = violations(&v1::GetHostRequest { host_id: text.clone() });
        prop_assert_eq!(named(&host, "host_id"), text.parse::<HostId>().is_err());
        let chain = violations(&v1::GetVolumeChainRequest { vm_id: String::new(), disk: text.clone() });
        let disk = !text.is_empty() && text.parse::<DiskTarget>().is_err();
        prop_assert_eq!(named(&chain, "disk"), disk);
    }
}

#[test]
fn a_list_that_is_too_long_is_told_once_and_its_items_are_not_looked_at() {
    let request = v1::BatchDeleteSnapshotsRequest {
        snapshot_ids: vec![String::new(); 1_000_000],
        ..Default::default()
    };
    let mut fields = crate::fields::Fields::of(&request);
    for place in 0..request.snapshot_ids.len() {
        fields.reject(&format!("snapshot_ids[{place}]"), "is required");
    }
    let found = fields.check().unwrap_err().violations;
    let of_list = found.iter().filter(|(at, _)| at == "snapshot_ids");
    assert_eq!(of_list.count(), 1);
    assert!(found.len() <= MOST_VIOLATIONS, "{}", found.len());
}
