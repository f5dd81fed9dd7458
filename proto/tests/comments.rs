//! Every message, field, enum, value, service and method of the contracts has a comment.

use livemerge_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::collections::HashSet;

#[test]
fn everything_is_commented() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let ours: Vec<_> = set
        .file
        .iter()
        .filter(|f| f.package() == "livemerge.v1")
        .collect();
    assert!(ours.len() > 5);
    let missing: Vec<String> = ours.iter().flat_map(|file| uncommented(file)).collect();
    assert!(missing.is_empty(), "without a comment: {missing:#?}");
}

fn uncommented(file: &FileDescriptorProto) -> Vec<String> {
    let info = file
        .source_code_info
        .as_ref()
        .expect("compiled with source info");
    let commented = info
        .location
        .iter()
        .filter(|l| !l.leading_comments().trim().is_empty());
    let commented: HashSet<&[i32]> = commented.map(|l| l.path.as_slice()).collect();
    let has = |path: &[i32]| commented.contains(path);
    let mut missing = Vec::new();
    let mut look = |path: &[i32], name: String| {
        if !has(path) {
            missing.push(name);
        }
    };
    // The numbers are the field numbers of descriptor.proto.
    for (m, message) in file.message_type.iter().enumerate() {
        look(&[4, m as i32], message.name().to_owned());
        for (f, field) in message.field.iter().enumerate() {
            look(
                &[4, m as i32, 2, f as i32],
                format!("{}.{}", message.name(), field.name()),
            );
        }
    }
    for (e, enumeration) in file.enum_type.iter().enumerate() {
        look(&[5, e as i32], enumeration.name().to_owned());
        for (v, value) in enumeration.value.iter().enumerate() {
            look(&[5, e as i32, 2, v as i32], value.name().to_owned());
        }
    }
    for (s, service) in file.service.iter().enumerate() {
        look(&[6, s as i32], service.name().to_owned());
        for (m, method) in service.method.iter().enumerate() {
            look(
                &[6, s as i32, 2, m as i32],
                format!("{}.{}", service.name(), method.name()),
            );
        }
    }
    missing
}
