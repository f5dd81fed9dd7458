//! What the contracts say of calling a method again: clients and meshes go by it.

use livemerge_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;
use std::collections::HashSet;

/// Changes without a request id. Whoever calls them repeats them by another rule.
const NAMELESS: [&str; 6] = [
    "MergeService.CancelMerge",
    "MergeService.SetMergeBandwidth",
    "MergeService.StartMerge",
    "OperationService.CancelOperation",
    "OperationService.UpdateOperation",
    "VolumeService.RestoreVolume",
];

/// How the names of methods begin that change nothing.
const READS: [&str; 6] = ["Check", "Get", "List", "Plan", "Wait", "Watch"];

#[test]
fn reads_and_changes_with_a_request_id_say_that_they_may_be_called_again() {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let ours = set
        .file
        .iter()
        .filter(|file| file.package() == "livemerge.v1");
    let (messages, services): (Vec<_>, Vec<_>) =
        ours.map(|file| (&file.message_type, &file.service)).unzip();
    let with_id: HashSet<String> = messages
        .into_iter()
        .flatten()
        .filter(|message| {
            message
                .field
                .iter()
                .any(|field| field.name() == "request_id")
        })
        .map(|message| format!(".livemerge.v1.{}", message.name()))
        .collect();
    let mut nameless = Vec::new();
    for service in services.into_iter().flatten() {
        for method in &service.method {
            let name = format!("{}.{}", service.name(), method.name());
            let options = method.options.clone().unwrap_or_default();
            let is_read = READS.iter().any(|read| method.name().starts_with(read));
            let expected = if is_read {
                IdempotencyLevel::NoSideEffects
            } else if with_id.contains(method.input_type()) {
                IdempotencyLevel::Idempotent
            } else {
                nameless.push(name.clone());
                IdempotencyLevel::IdempotencyUnknown
            };
            assert_eq!(options.idempotency_level(), expected, "{name}");
        }
    }
    nameless.sort();
    assert_eq!(nameless, NAMELESS);
}
