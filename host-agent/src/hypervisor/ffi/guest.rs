//! What libvirt asks of the agent in a guest.

use std::ffi::c_int;
use std::ptr;
use std::time::Duration;

use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use super::check;

/// How long libvirt waits for each answer of a guest's agent: whole seconds, at least one. `None` for
/// what it does by itself.
pub(in crate::hypervisor) fn set_agent_limit(
    domain: &Domain,
    limit: Option<Duration>,
) -> Result<(), Error> {
    let seconds = match limit {
        Some(limit) => c_int::try_from(limit.as_secs().max(1)).unwrap_or(c_int::MAX),
        None => sys::VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK,
    };
    // SAFETY: the domain is a live handle.
    check(unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), seconds, 0) }).map(drop)
}

/// Freezes all file systems of a guest, and tells how many.
pub(in crate::hypervisor) fn freeze(domain: &Domain) -> Result<usize, Error> {
    // SAFETY: the domain is a live handle; without mount points all file systems are meant.
    let frozen = check(unsafe { sys::virDomainFSFreeze(domain.as_ptr(), ptr::null_mut(), 0, 0) })?;
    Ok(usize::try_from(frozen).unwrap_or_default())
}

/// Lets all file systems of a guest be written again, and tells how many were frozen.
pub(in crate::hypervisor) fn thaw(domain: &Domain) -> Result<usize, Error> {
    // SAFETY: as above.
    let thawed = check(unsafe { sys::virDomainFSThaw(domain.as_ptr(), ptr::null_mut(), 0, 0) })?;
    Ok(usize::try_from(thawed).unwrap_or_default())
}
