//! What works on a whole machine, as libvirt calls it: a migration, a dump, a backup.

use super::{check, sys};
use std::ptr;
use virt::domain::Domain;
use virt::error::Error;

/// What a job on a whole machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DomainJob(sys::virDomainJobOperation);

impl DomainJob {
    /// Whether the machine goes to another host, or comes from one.
    pub(crate) fn migrates(self) -> bool {
        matches!(
            self.0,
            sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
                | sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
        )
    }
}

/// The job that works on a running machine, if one does.
pub(crate) fn domain_job(domain: &Domain) -> Result<Option<DomainJob>, Error> {
    let (mut kind, mut params, mut count) = (0, ptr::null_mut(), 0);
    // SAFETY: the domain is a live handle; libvirt makes the list, and none where no job is.
    check(unsafe {
        sys::virDomainGetJobStats(domain.as_ptr(), &mut kind, &mut params, &mut count, 0)
    })?;
    let mut operation = 0;
    let name = sys::VIR_DOMAIN_JOB_OPERATION;
    // SAFETY: the list and its length are libvirt's, the name ends in NUL; the list is given back once
    // and used no more.
    unsafe {
        sys::virTypedParamsGetInt(params, count, name.as_ptr(), &mut operation);
        sys::virTypedParamsFree(params, count);
    }
    let none = sys::VIR_DOMAIN_JOB_NONE as i32;
    Ok((kind != none).then_some(DomainJob(operation.unsigned_abs())))
}
