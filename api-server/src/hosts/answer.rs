//! What an agent's error means: a *no*, or no answer at all. That is decided by its reason; a time-out, a
//! broken line, an error without a reason of ours: no answer. And which agents are not worked with.

use super::types::HostError;
use livemerge_proto::agent_api::{SPOKEN, is_understood};
use livemerge_proto::ids::HostId;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use tonic::{Code, Status};

/// What a failed call means.
pub(super) fn classify(status: Status) -> HostError {
    match Problem::try_from(status) {
        // Not what was asked is refused, but this server; who has asked it shall not think that
        // it is they.
        Ok(problem) if is_about_us(problem.reason) => {
            let text = format!("the host's agent does not let this server in: {problem}");
            HostError::Unknown(
                Problem::new(Reason::HostUnreachable, text).with("agent_reason", problem.reason),
            )
        }
        Ok(problem) if problem.reason == Reason::DeadlineExceeded => {
            let text = "the host's agent does not answer in time";
            let silent = Problem::new(Reason::HostUnreachable, text);
            HostError::Unknown(silent.with("code", problem.reason.code()))
        }
        Ok(problem) => meant(problem),
        Err(status) if is_missing(&status) => {
            let text = "the host's agent is too old for this: it does not know such a request";
            HostError::Refused(Problem::new(Reason::AgentIncompatible, text))
        }
        Err(status) => {
            let text = format!("the host's agent does not answer: {}", status.message());
            HostError::Unknown(
                Problem::new(Reason::HostUnreachable, text).with("code", status.code()),
            )
        }
    }
}

/// What a problem of its own means that the agent answers with.
pub(super) fn meant(problem: Problem) -> HostError {
    if is_a_no(problem.reason) {
        HostError::Refused(problem)
    } else {
        HostError::Unknown(problem)
    }
}

/// Whether the agent has no such method. A proxy that finds no agent answers in HTTP, of which tonic
/// makes the same code.
pub(super) fn is_missing(status: &Status) -> bool {
    let of_http = status.message().starts_with("grpc-status header missing");
    status.code() == Code::Unimplemented && !of_http
}

/// An agent that is not worked with.
pub(super) fn incompatible(host: &HostId, number: i32) -> Problem {
    let (what, first) = if number > SPOKEN {
        ("is newer than this server works with", "the server")
    } else if is_understood(number) {
        ("lacks what this server needs of it", "the agent")
    } else {
        ("is older than this server works with", "the agent")
    };
    let text = format!(
        "the agent of host {host} {what}: its contract is {number}, the server's {SPOKEN}; upgrade {first}"
    );
    Problem::new(Reason::AgentIncompatible, text)
        .with("host", host)
        .with("agent_api_version", number)
        .with("server_api_version", SPOKEN)
}

/// An agent of which it is not known what it is.
pub(super) fn unheard(host: &HostId) -> Problem {
    let text = format!("the agent of host {host} has not said yet which contract it speaks");
    Problem::new(Reason::HostUnreachable, text).with("host", host)
}

/// Whether the agent refuses this server's credentials, or lacks a role for it.
fn is_about_us(reason: Reason) -> bool {
    matches!(
        reason.code(),
        Code::Unauthenticated | Code::PermissionDenied
    )
}

/// Whether the agent has understood and done nothing, and would say the same again.
pub fn is_a_no(reason: Reason) -> bool {
    match reason.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Cancelled => false,
        // A configuration that somebody mends.
        Code::Unauthenticated | Code::PermissionDenied => false,
        Code::ResourceExhausted => reason == Reason::InsufficientSpace,
        // It is this server that is too old, or restored; what it has ordered goes on.
        _ => !matches!(
            reason,
            Reason::StaleGeneration | Reason::WatchConsumerTooSlow
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_answered_otherwise_later_is_no_no() {
        let open = [
            Reason::StaleGeneration,
            Reason::WatchConsumerTooSlow,
            Reason::ServerOverloaded,
            Reason::WatchLimitReached,
            Reason::HostUnreachable,
            Reason::HypervisorUnreachable,
            Reason::StorageUnreachable,
            Reason::StoreUnavailable,
            Reason::PivotPutOff,
            Reason::VmBusy,
            Reason::MergeLimitReached,
            Reason::ServerDraining,
            Reason::DeadlineExceeded,
            Reason::CredentialsMissing,
            Reason::CredentialsInvalid,
            Reason::MethodNotPermitted,
            Reason::MergeIoError,
            Reason::InternalBug,
        ];
        for reason in Reason::ALL {
            assert_eq!(is_a_no(*reason), !open.contains(reason), "{reason}");
        }
    }

    #[test]
    fn an_error_of_nobody_we_know_is_no_answer() {
        let no = Problem::new(Reason::PointOfNoReturn, "too late");
        assert_eq!(classify(no.clone().into()), HostError::Refused(no));
        let HostError::Unknown(shut_out) =
            classify(Problem::new(Reason::MethodNotPermitted, "not you").into())
        else {
            panic!("it is no answer");
        };
        assert_eq!(shut_out.reason, Reason::HostUnreachable);
        let HostError::Unknown(slow) =
            classify(Problem::new(Reason::DeadlineExceeded, "its clock").into())
        else {
            panic!("it is no answer");
        };
        assert_eq!(slow.reason, Reason::HostUnreachable);
        let silent = Problem::new(Reason::StoreUnavailable, "later");
        assert_eq!(classify(silent.clone().into()), HostError::Unknown(silent));
        for code in [Code::FailedPrecondition, Code::NotFound, Code::Unavailable] {
            let HostError::Unknown(problem) = classify(Status::new(code, "a proxy's")) else {
                panic!("{code} is no answer of an agent");
            };
            assert_eq!(problem.reason, Reason::HostUnreachable);
        }
    }

    #[test]
    fn a_method_that_an_agent_lacks_is_a_no_and_a_proxy_s_404_is_not() {
        let HostError::Refused(lacks) = classify(Status::unimplemented("")) else {
            panic!("it would lack it again");
        };
        assert_eq!(lacks.reason, Reason::AgentIncompatible);
        let text = "grpc-status header missing, mapped from HTTP status code 404";
        let HostError::Unknown(lost) = classify(Status::unimplemented(text)) else {
            panic!("no agent has said so");
        };
        assert_eq!(lost.reason, Reason::HostUnreachable);
    }
}
