//! How full images are, and which disks have no room left, as libvirt knows.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::{ptr, slice};

use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use super::check;

/// A value of a machine's statistics, as far as anybody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hypervisor) enum Stat {
    Number(u64),
    Text(String),
}

/// What is known of a machine's disks and everything that they are built on: `block.0.name` and so
/// on.
pub(in crate::hypervisor) fn block_stats(domain: &Domain) -> Result<BTreeMap<String, Stat>, Error> {
    let mut records = ptr::null_mut();
    let (what, flags) = (
        sys::VIR_DOMAIN_STATS_BLOCK,
        sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_BACKING,
    );
    // SAFETY: the list of live handles ends in null, and libvirt makes the list of records.
    let count = check(unsafe {
        let mut domains = [domain.as_ptr(), ptr::null_mut()];
        sys::virDomainListGetStats(domains.as_mut_ptr(), what, &mut records, flags)
    })?;
    let mut stats = BTreeMap::new();
    for number in 0..usize::try_from(count).unwrap_or_default() {
        // SAFETY: libvirt gave so many records, each with as many parameters as it says; they stay
        // until the list is freed below.
        let params = unsafe {
            let record = &**records.add(number);
            let count = usize::try_from(record.nparams).unwrap_or_default();
            match record.params.is_null() {
                true => &[],
                false => slice::from_raw_parts(record.params, count),
            }
        };
        stats.extend(params.iter().filter_map(stat));
    }
    // SAFETY: made by libvirt above, and used no more.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(stats)
}

fn stat(param: &sys::virTypedParameter) -> Option<(String, Stat)> {
    // SAFETY: libvirt ends the name in NUL within its room, and the type says which of the values
    // is meant; a text ends in NUL.
    unsafe {
        let name = CStr::from_ptr(param.field.as_ptr());
        let value = match param.type_ as c_uint {
            sys::VIR_TYPED_PARAM_ULLONG => Stat::Number(param.value.ul),
            sys::VIR_TYPED_PARAM_UINT => Stat::Number(param.value.ui.into()),
            sys::VIR_TYPED_PARAM_STRING if !param.value.s.is_null() => {
                Stat::Text(CStr::from_ptr(param.value.s).to_string_lossy().into_owned())
            }
            _ => return None,
        };
        Some((name.to_string_lossy().into_owned(), value))
    }
}

/// The disks of a machine that QEMU could not write to because there was no room, by their target names.
pub(in crate::hypervisor) fn disks_without_room(domain: &Domain) -> Result<Vec<String>, Error> {
    // SAFETY: the domain is a live handle; without room libvirt only says how many there may be.
    let most =
        check(unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), ptr::null_mut(), 0, 0) })?;
    let mut errors = Vec::with_capacity(usize::try_from(most).unwrap_or_default());
    // SAFETY: there is room for so many, of which libvirt fills in as many as it says.
    unsafe {
        let (domain, room) = (domain.as_ptr(), errors.as_mut_ptr());
        let found = check(sys::virDomainGetDiskErrors(domain, room, most as c_uint, 0))?;
        errors.set_len(usize::try_from(found).unwrap_or_default());
    }
    let no_space = sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE as c_int;
    let mut disks = Vec::new();
    for found in errors {
        // SAFETY: libvirt ends each name in NUL; its caller owns it, it came from `malloc`, and it is
        // used no more.
        let disk = unsafe {
            let disk = CStr::from_ptr(found.disk).to_string_lossy().into_owned();
            free(found.disk.cast());
            disk
        };
        if found.error == no_space {
            disks.push(disk);
        }
    }
    Ok(disks)
}

unsafe extern "C" {
    fn free(memory: *mut c_void);
}

/// What libvirt calls when a layer is written beyond its threshold.
pub(super) type ThresholdCallback = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virDomainPtr,
    *const c_char,
    *const c_char,
    u64,
    u64,
    *mut c_void,
);
