//! The calls of libvirt that the `virt` crate has no safe form of.
//!
//! And what a child process does to itself before it becomes another program, which `std` cannot
//! know to be safe.

#![allow(
    unsafe_code,
    reason = "block jobs and domain events exist only in virt-sys, and a child is tied to us before \
              it is another program; this is the one place"
)]

mod events;
mod fill;
mod guest;
mod job;

pub(super) use events::{Signal, Subscription};
pub(super) use fill::{Stat, block_stats, disks_without_room};
pub(super) use guest::{freeze, set_agent_limit, thaw};
pub(super) use job::domain_job;

use std::ffi::{CStr, CString, c_int};
use std::io::{self, ErrorKind};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::Arc;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal as Kill, getpid, getppid, set_parent_process_death_signal};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::domain_snapshot::DomainSnapshot;
use virt::error::Error;
use virt_sys as sys;

/// A handle whose release cannot fail: `virt` panics when libvirt refuses one, as it may after a
/// connection broke, and there is nothing to do about it.
pub(super) struct Held<T: Handle>(ManuallyDrop<T>);

impl<T: Handle> Held<T> {
    pub(super) fn new(handle: T) -> Self {
        Self(ManuallyDrop::new(handle))
    }
}

impl<T: Handle> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Handle> Drop for Held<T> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Something that libvirt counts the references of.
pub(super) trait Handle {
    /// Gives the reference back. Called once, when the handle is not used any more.
    fn release(&self);
}

impl Handle for Connect {
    fn release(&self) {
        // SAFETY: `Held` owns one reference, and `ManuallyDrop` keeps `virt` from giving it back.
        unsafe { sys::virConnectClose(self.as_ptr()) };
    }
}

impl Handle for Domain {
    fn release(&self) {
        // SAFETY: as above.
        unsafe { sys::virDomainFree(self.as_ptr()) };
    }
}

impl Handle for DomainSnapshot {
    fn release(&self) {
        // SAFETY: as above.
        unsafe { sys::virDomainSnapshotFree(self.as_ptr()) };
    }
}

/// Makes the child end with the thread that starts it, and hold these files until it ends.
pub(super) fn tie<F: AsFd + Send + Sync + 'static>(command: &mut Command, files: Arc<[F]>) {
    let us = getpid();
    let before_exec = move || {
        set_parent_process_death_signal(Some(Kill::KILL))?;
        // Too late for the signal when we have ended meanwhile.
        if getppid() != Some(us) {
            return Err(io::Error::from(ErrorKind::NotConnected));
        }
        for file in &*files {
            fcntl_setfd(file, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec, where only what is safe in a signal handler
    // may be done: it makes system calls, allocates nothing, takes no lock and cannot panic.
    unsafe { command.pre_exec(before_exec) };
}

/// How layers are committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// The top is the active layer.
    pub(super) active: bool,
    /// The header above the top names the base by a relative name.
    pub(super) relative: bool,
}

/// Commits the layer `top` of a disk, both named as `vda[3]`, into the layer `base`, at so many bytes
/// a second at most (0: no limit).
pub(super) fn block_commit(
    domain: &Domain,
    disk: &str,
    base: &str,
    top: &str,
    ways: Ways,
    speed: u64,
) -> Result<(), Error> {
    let (disk, base, top) = (CString::new(disk)?, CString::new(base)?, CString::new(top)?);
    let mut flags = sys::VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES;
    if ways.active {
        flags |= sys::VIR_DOMAIN_BLOCK_COMMIT_ACTIVE;
    }
    if ways.relative {
        flags |= sys::VIR_DOMAIN_BLOCK_COMMIT_RELATIVE;
    }
    // SAFETY: the domain is a live handle, the strings end in NUL and outlive the call.
    check(unsafe {
        let domain = domain.as_ptr();
        let (base, top) = (base.as_ptr(), top.as_ptr());
        sys::virDomainBlockCommit(domain, disk.as_ptr(), base, top, speed, flags)
    })?;
    Ok(())
}

/// Pulls everything above the layer `base`, named as `vda[3]`, into the active layer of a disk;
/// without a base everything there is. At so many bytes a second at most (0: no limit). `relative`:
/// the active layer's header names the base by a relative name.
pub(super) fn block_pull(
    domain: &Domain,
    disk: &str,
    base: Option<&str>,
    relative: bool,
    speed: u64,
) -> Result<(), Error> {
    let disk = CString::new(disk)?;
    let base = base.map(CString::new).transpose()?;
    let base = base.as_deref().map_or(ptr::null(), CStr::as_ptr);
    let mut flags = sys::VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES;
    if relative {
        flags |= sys::VIR_DOMAIN_BLOCK_REBASE_RELATIVE;
    }
    // SAFETY: the domain is a live handle, the strings end in NUL and outlive the call; libvirt
    // takes a null base for "no backing left".
    check(unsafe {
        sys::virDomainBlockRebase(domain.as_ptr(), disk.as_ptr(), base, speed, flags)
    })?;
    Ok(())
}

/// Lets the block job of a disk copy so many bytes a second (0: no limit).
pub(super) fn block_job_speed(domain: &Domain, disk: &str, speed: u64) -> Result<(), Error> {
    let disk = CString::new(disk)?;
    let flags = sys::VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES;
    // SAFETY: the domain is a live handle, the string ends in NUL and outlives the call.
    check(unsafe { sys::virDomainBlockJobSetSpeed(domain.as_ptr(), disk.as_ptr(), speed, flags) })?;
    Ok(())
}

/// What libvirt says of a block job.
pub(super) struct RawBlockJob {
    pub(super) kind: sys::virDomainBlockJobType,
    pub(super) cur: u64,
    pub(super) end: u64,
}

/// The block job of a disk, if one runs.
pub(super) fn block_job(domain: &Domain, disk: &str) -> Result<Option<RawBlockJob>, Error> {
    let disk = CString::new(disk)?;
    let mut info = sys::virDomainBlockJobInfo {
        type_: 0,
        bandwidth: 0,
        cur: 0,
        end: 0,
    };
    let flags = sys::VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES;
    // SAFETY: the domain is a live handle, the string ends in NUL, and `info` is a writable record
    // of the right type; all outlive the call.
    let found = check(unsafe {
        sys::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), &mut info, flags)
    })?;
    let kind = info.type_.unsigned_abs();
    Ok((found > 0).then_some(RawBlockJob {
        kind,
        cur: info.cur,
        end: info.end,
    }))
}

/// Asks for the pivot of a disk, and does not wait for it.
pub(super) fn block_job_pivot(domain: &Domain, disk: &str) -> Result<(), Error> {
    end_block_job(domain, disk, sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
}

/// Asks for the end of a disk's block job without its work, and does not wait for it.
pub(super) fn block_job_abort(domain: &Domain, disk: &str) -> Result<(), Error> {
    end_block_job(domain, disk, 0)
}

fn end_block_job(
    domain: &Domain,
    disk: &str,
    flags: sys::virDomainBlockJobAbortFlags,
) -> Result<(), Error> {
    let disk = CString::new(disk)?;
    let flags = flags | sys::VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC;
    // SAFETY: the domain is a live handle, the string ends in NUL and outlives the call.
    check(unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), disk.as_ptr(), flags) })?;
    Ok(())
}

/// What a guest may read and write of a disk in a second; 0 for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct IoLimits {
    pub(super) total: u64,
    pub(super) read: u64,
    pub(super) write: u64,
}

/// The limits of a running guest's disk.
pub(super) fn io_limits(domain: &Domain, disk: &str) -> Result<IoLimits, Error> {
    let disk = CString::new(disk)?;
    let flags = sys::VIR_DOMAIN_AFFECT_LIVE;
    let mut count = 0;
    // SAFETY: the domain is a live handle, the string ends in NUL; without room libvirt only says
    // how many parameters there are.
    check(unsafe {
        let domain = domain.as_ptr();
        sys::virDomainGetBlockIoTune(domain, disk.as_ptr(), ptr::null_mut(), &mut count, flags)
    })?;
    let mut found: Vec<sys::virTypedParameter> = Vec::with_capacity(count.max(0) as usize);
    // SAFETY: there is room for `count` parameters, of which libvirt fills in as many as it says;
    // they are plain numbers, but for the group's name, which is given back below.
    unsafe {
        let (domain, room) = (domain.as_ptr(), found.as_mut_ptr());
        check(sys::virDomainGetBlockIoTune(
            domain,
            disk.as_ptr(),
            room,
            &mut count,
            flags,
        ))?;
        found.set_len(count.max(0) as usize);
    }
    let number = |name: &CStr| {
        let mut value = 0;
        // SAFETY: the parameters were filled in by libvirt, and the name ends in NUL.
        unsafe {
            let count = found.len() as c_int;
            let all = found.as_ptr().cast_mut();
            sys::virTypedParamsGetULLong(all, count, name.as_ptr(), &mut value);
        }
        value
    };
    let limits = IoLimits {
        total: number(c"total_bytes_sec"),
        read: number(c"read_bytes_sec"),
        write: number(c"write_bytes_sec"),
    };
    // SAFETY: as above; it frees what the parameters point to, not the parameters.
    unsafe { sys::virTypedParamsClear(found.as_mut_ptr(), found.len() as c_int) };
    Ok(limits)
}

/// Sets what a running guest may read and write of a disk in a second, apart from each other.
pub(super) fn set_io_limits(domain: &Domain, disk: &str, limits: IoLimits) -> Result<(), Error> {
    let disk = CString::new(disk)?;
    let (mut params, mut count, mut room) = (ptr::null_mut(), 0, 0);
    // SAFETY: libvirt makes the list and lets it grow; the names end in NUL; the list is given back
    // below whatever happens.
    let set = unsafe {
        let mut add = |name: &CStr, value| {
            let (params, count, room) = (&mut params, &mut count, &mut room);
            sys::virTypedParamsAddULLong(params, count, room, name.as_ptr(), value)
        };
        check(add(c"read_bytes_sec", limits.read))
            .and_then(|_| check(add(c"write_bytes_sec", limits.write)))
            .and_then(|_| {
                let flags = sys::VIR_DOMAIN_AFFECT_LIVE;
                let (domain, disk) = (domain.as_ptr(), disk.as_ptr());
                check(sys::virDomainSetBlockIoTune(
                    domain, disk, params, count, flags,
                ))
            })
    };
    // SAFETY: made by libvirt above, and used no more.
    unsafe { sys::virTypedParamsFree(params, count) };
    set.map(drop)
}

/// libvirt's usual answer: below zero, the reason is this thread's last error.
fn check(answer: c_int) -> Result<c_int, Error> {
    if answer < 0 {
        Err(Error::last_error())
    } else {
        Ok(answer)
    }
}
