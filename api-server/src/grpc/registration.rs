//! Who may make which host known, and where.

use crate::hosts::is_near;
use crate::snapshot::HostRecord;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_runtime::{Caller, Role};
use std::net::SocketAddr;

/// Whether a caller may register a host so.
///
/// # Errors
/// METHOD_NOT_PERMITTED for another host than the one that the caller is bound to. FIELD_INVALID for
/// the generation of an agent by who is none, and for
/// an endpoint on this server's machine by somebody on another one: the server would call whatever
/// listens there.
pub(super) fn admit(
    record: &HostRecord,
    caller: Option<&Caller>,
    from: Option<SocketAddr>,
) -> Result<(), Problem> {
    let bound = caller.and_then(|caller| Some((caller, caller.host()?)));
    if let Some((caller, host)) = bound.filter(|(_, host)| *host != record.id.to_string()) {
        let text = format!("{} may register host {host} alone", caller.name());
        return Err(Problem::new(Reason::MethodNotPermitted, text)
            .with("caller", caller.name())
            .with("host", &record.id));
    }
    if caller.is_some_and(|caller| caller.role() != Role::Agent) && record.generation > 0 {
        let must = "must be 0: an agent alone knows its own";
        return Err(Problem::field("generation", must));
    }
    let remote = from.is_some_and(|from| !from.ip().to_canonical().is_loopback());
    if remote && is_near(&record.endpoint) {
        let must = "must be an address that reaches the agent from the server's machine";
        return Err(Problem::field("endpoint", must));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_on_the_servers_machine_is_registered_from_there_alone() {
        let near = [
            "unix:/run/a.sock",
            "http://127.0.0.1:1",
            "https://localhost:1",
        ];
        let far = ["http://192.0.2.1:1", "https://h1.example.org:1"];
        let admitted = |endpoint: &str, from: Option<&str>| {
            let record = HostRecord {
                id: "h1".parse().unwrap(),
                endpoint: endpoint.to_owned(),
                generation: 1,
                version: String::new(),
            };
            admit(&record, None, from.map(|from| from.parse().unwrap())).is_ok()
        };
        for from in [
            None,
            Some("127.0.0.1:9"),
            Some("[::1]:9"),
            Some("[::ffff:127.0.0.1]:9"),
        ] {
            assert!(
                near.iter()
                    .chain(&far)
                    .all(|endpoint| admitted(endpoint, from)),
                "{from:?}"
            );
        }
        for from in [Some("192.0.2.7:9"), Some("[2001:db8::7]:9")] {
            assert!(
                far.iter().all(|endpoint| admitted(endpoint, from)),
                "{from:?}"
            );
            assert!(
                !near.iter().any(|endpoint| admitted(endpoint, from)),
                "{from:?}"
            );
        }
    }
}
