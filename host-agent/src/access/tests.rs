use super::*;
use livemerge_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::collections::{BTreeMap, BTreeSet};

const SERVICES: [&str; 3] = [MERGES, HOST, VOLUMES];

/// The paths of all methods that this agent serves.
fn methods() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if SERVICES.contains(&name.as_str()) {
                let methods = service.method.iter();
                paths.extend(methods.map(|method| format!("/{name}/{}", method.name())));
            }
        }
    }
    paths
}

#[test]
fn every_method_has_a_rule_and_every_rule_a_method() {
    let methods = methods();
    assert!(methods.len() > 12, "{methods:?}");
    let rules = rules();
    let ruled = rules.paths().filter(|path| path.starts_with("/livemerge."));
    assert_eq!(ruled.map(str::to_owned).collect::<BTreeSet<_>>(), methods);
}

/// What each role may, by the names of the methods: an opinion of its own.
fn expected(method: &str, role: Role) -> bool {
    let reads = ["Get", "List", "Watch"];
    let reads = reads.iter().any(|verb| method.starts_with(verb));
    match role {
        Role::Viewer | Role::Operator => reads,
        Role::Agent => false,
        Role::Server => true,
    }
}

#[test]
fn each_method_takes_the_roles_that_its_kind_asks_for() {
    let rules = rules();
    let mut counts = BTreeMap::new();
    for path in methods() {
        let method = path.rsplit('/').next().unwrap();
        for role in Role::ALL {
            let may = rules.permits(&path, role).unwrap();
            assert_eq!(may, expected(method, role), "{path} {role:?}");
            *counts.entry(role).or_insert(0) += usize::from(may);
        }
    }
    assert_eq!(counts[&Role::Agent], 0);
    assert_eq!(counts[&Role::Server], methods().len());
}
