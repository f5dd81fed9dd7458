//! What the corpora of requests begin with: a call of each method. Written anew with `UPDATE_CORPUS=1`.

use std::fs;

use livemerge_proto::DESCRIPTORS;
use livemerge_runtime::fuzzing::methods;
use tonic::{Code, Status};

use super::{agent, corpus, files, server};

/// By the name of its method; a method that comes anew has none yet.
fn calls(target: &str, services: &[&str], mut call: impl FnMut(&[u8]) -> Option<Status>) {
    let update = std::env::var_os("UPDATE_CORPUS").is_some();
    for (path, sample) in methods(DESCRIPTORS, services) {
        let name = path.rsplit('/').next().unwrap().to_owned();
        if update {
            fs::write(corpus().join(target).join(&name), &sample).unwrap();
        }
        let kept = files(target).into_iter().find(|(file, _)| *file == name);
        assert!(kept.is_some(), "UPDATE_CORPUS=1 adds {path} to {target}");
        let answer = call(&sample);
        let refused = answer.is_some_and(|status| status.code() == Code::Internal);
        assert!(!refused, "{path} has failed over its own sample");
    }
}

#[test]
fn each_method_of_the_agent_is_called() {
    calls("agent_requests", &agent::SERVICES, |bytes| {
        agent::with_edge(|edge| edge.call(bytes))
    });
}

#[test]
fn each_method_of_the_server_is_called() {
    calls("server_requests", &server::SERVICES, |bytes| {
        server::with_edge(|edge| edge.call(bytes))
    });
}
