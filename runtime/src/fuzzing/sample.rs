//! Requests with something in each field, made out of their descriptors: what a fuzzer begins with.

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const UUID: &str = "0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f";
/// No request nests deeper.
const DEPTH: usize = 6;

/// A message of this type (`.package.Message`).
pub(super) fn message(set: &FileDescriptorSet, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    fill(set, name, DEPTH, &mut bytes);
    bytes
}

fn fill(set: &FileDescriptorSet, name: &str, depth: usize, bytes: &mut Vec<u8>) {
    let Some(found) = find(set, name).filter(|_| depth > 0) else {
        return;
    };
    for field in &found.field {
        let tag = u32::try_from(field.number()).expect("numbers of fields are positive");
        match field.r#type() {
            Type::Message | Type::Group => {
                let mut inner = Vec::new();
                fill(set, field.type_name(), depth - 1, &mut inner);
                put(tag, &inner, bytes);
            }
            Type::String | Type::Bytes => put(tag, text(found, field).as_bytes(), bytes),
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                encode_key(tag, WireType::SixtyFourBit, bytes);
                bytes.extend([0; 8]);
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                encode_key(tag, WireType::ThirtyTwoBit, bytes);
                bytes.extend([0; 4]);
            }
            _ => {
                encode_key(tag, WireType::Varint, bytes);
                encode_varint(1, bytes);
            }
        }
    }
}

fn put(tag: u32, content: &[u8], bytes: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(content.len() as u64, bytes);
    bytes.extend(content);
}

/// What is likely right.
fn text(message: &DescriptorProto, field: &FieldDescriptorProto) -> &'static str {
    match field.name() {
        "host_id" => "host-1",
        "finding_id" => "a",
        "disk" => "vda",
        "storage" => "default",
        "endpoint" => "http://127.0.0.1:9",
        "etag" => "r1",
        "page_token" | "resume_token" => "",
        "name" if message.name() == "VolumeRef" => "a.qcow2",
        name if name.ends_with("_id") || name.ends_with("_ids") => UUID,
        _ => "a",
    }
}

fn find<'a>(set: &'a FileDescriptorSet, name: &str) -> Option<&'a DescriptorProto> {
    set.file.iter().find_map(|file| {
        let local = name
            .strip_prefix('.')?
            .strip_prefix(file.package())?
            .strip_prefix('.')?;
        let mut parts = local.split('.');
        let first = parts.next()?;
        let outer = file.message_type.iter().find(|it| it.name() == first)?;
        parts.try_fold(outer, |outer, part| {
            outer.nested_type.iter().find(|it| it.name() == part)
        })
    })
}
