//! What the agent in a guest is asked for. All of it blocks, for a bounded time.
//!
//! ```text
//!   the time? ─┬─ an answer ─▶ freeze ─┬─ how many ──────────────────▶ frozen
//!              │                       ├─ no ─▶ thaw ─┬─ an answer ──▶ Refused
//!              │                       └─ no answer   └─ no answer ──▶ Unknown
//!              └─ no agent, or a silent one ─────────────────────────▶ Refused
//! ```
//!
//! - Whoever does not answer a question is never asked to freeze: nothing is left of it to be undone.
//! - An agent that is frozen already was frozen by somebody else, who will have it thawed.
//! - libvirt remembers how long it waits for an agent, so that is put back each time.

use std::time::Duration;

use livemerge_proto::ids::VmId;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};

use super::calls::{Answer, told};
use super::connection::Connection;
use super::error::meaning;
use crate::hypervisor::{HypervisorError, ffi};

/// An answer of the agent that libvirt reports as an error of its own; only the text tells them apart.
const AGENT_SAID_NO: &str = "unable to execute QEMU agent command";
/// What it says then of a command that it takes from nobody, or not while it is frozen.
const TAKEN_FROM_NOBODY: &str = "has been disabled";

impl Connection {
    pub(super) fn freeze_guest(&self, vm: VmId, answer: Duration) -> Answer<usize> {
        let domain = self.domain(vm)?;
        within(&domain, answer, |domain| {
            is_there(domain)?;
            let no = match ffi::freeze(domain) {
                Ok(frozen) => return Ok(frozen),
                Err(error) if said_no(&error) => error.message().to_owned(),
                Err(error) => return Err(HypervisorError::Unknown(error.message().to_owned())),
            };
            if !no.contains(TAKEN_FROM_NOBODY)
                && let Err(error) = ffi::thaw(domain)
                && !said_no(&error)
            {
                return Err(HypervisorError::Unknown(error.message().to_owned()));
            }
            Err(HypervisorError::Refused(no))
        })
    }

    pub(super) fn thaw_guest(&self, vm: VmId, answer: Duration) -> Answer<usize> {
        let domain = self.domain(vm)?;
        within(&domain, answer, |domain| told(ffi::thaw(domain)))
    }
}

/// Asks the agent with this limit for each of its answers.
fn within<T>(
    domain: &Domain,
    answer: Duration,
    ask: impl FnOnce(&Domain) -> Answer<T>,
) -> Answer<T> {
    told(ffi::set_agent_limit(domain, Some(answer)))?;
    let answered = ask(domain);
    if let Err(error) = ffi::set_agent_limit(domain, None) {
        tracing::debug!(%error, "libvirt keeps the limit of a guest's agent");
    }
    answered
}

/// Whether the agent answers: what it says about the time is of no interest.
fn is_there(domain: &Domain) -> Answer<()> {
    match domain.time(0) {
        Ok(_) => Ok(()),
        Err(error) if said_no(&error) => Ok(()),
        Err(error) => match meaning(&error) {
            // It was only asked for the time.
            HypervisorError::Unknown(_) if is_silent(&error) => {
                Err(HypervisorError::Refused(error.message().to_owned()))
            }
            other => Err(other),
        },
    }
}

fn is_silent(error: &Error) -> bool {
    use ErrorNumber::{AgentCommandTimeout, AgentUnresponsive, AgentUnsynced};
    let known = error.code().known();
    matches!(
        known,
        Some(AgentUnresponsive | AgentUnsynced | AgentCommandTimeout)
    )
}

fn said_no(error: &Error) -> bool {
    match error.code().known() {
        Some(ErrorNumber::AgentCommandFailed) => true,
        Some(ErrorNumber::InternalError) => error.message().contains(AGENT_SAID_NO),
        _ => false,
    }
}
