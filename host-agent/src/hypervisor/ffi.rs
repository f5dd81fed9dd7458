//! The calls of libvirt that the `virt` crate has no safe form of.
//!
//! Callbacks run on the event loop's thread. They copy what they are given into a [`Signal`], send
//! it away and return: they never ask the hypervisor, never block and never panic.

#![allow(
    unsafe_code,
    reason = "block jobs and domain events exist only in virt-sys; this is the one place"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::mem::{self, ManuallyDrop};
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;
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

/// Commits the layer `top` of a disk, both named as `vda[3]`, into the layer `base`.
pub(super) fn block_commit(
    domain: &Domain,
    disk: &str,
    base: &str,
    top: &str,
    active: bool,
) -> Result<(), Error> {
    let (disk, base, top) = (CString::new(disk)?, CString::new(base)?, CString::new(top)?);
    let flags = if active {
        sys::VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
    } else {
        0
    };
    // SAFETY: the domain is a live handle, the strings end in NUL and outlive the call.
    check(unsafe {
        let domain = domain.as_ptr();
        sys::virDomainBlockCommit(domain, disk.as_ptr(), base.as_ptr(), top.as_ptr(), 0, flags)
    })?;
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
    let disk = CString::new(disk)?;
    let flags = sys::VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT | sys::VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC;
    // SAFETY: the domain is a live handle, the string ends in NUL and outlives the call.
    check(unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), disk.as_ptr(), flags) })?;
    Ok(())
}

/// What libvirt tells by itself.
#[derive(Debug)]
pub(super) enum Signal {
    /// The state of a disk's block job changed.
    BlockJob {
        vm: Uuid,
        disk: String,
        status: sys::virConnectDomainEventBlockJobStatus,
    },
    /// Something happened to a machine.
    Lifecycle { vm: Uuid },
    /// The connection broke.
    Closed,
}

/// Signals of one connection arrive while this lives.
pub(super) struct Subscription {
    connect: Arc<Held<Connect>>,
    events: Vec<c_int>,
}

impl Subscription {
    /// Begins to send the connection's signals.
    pub(super) fn new(
        connect: Arc<Held<Connect>>,
        signals: &UnboundedSender<Signal>,
    ) -> Result<Self, Error> {
        // From here on a failure takes back what was registered.
        let mut subscription = Self {
            connect,
            events: Vec::new(),
        };
        // SAFETY: libvirt calls back with the signature of the event id that it was registered
        // for, and these are the signatures of the two ids.
        let (lifecycle, block_job): (EventCallback, EventCallback) = unsafe {
            (
                mem::transmute::<LifecycleCallback, EventCallback>(on_lifecycle),
                mem::transmute::<BlockJobCallback, EventCallback>(on_block_job),
            )
        };
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, signals)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, block_job, signals)?;
        subscription.register_close(signals)?;
        Ok(subscription)
    }

    fn register(
        &mut self,
        event: sys::virDomainEventID,
        callback: EventCallback,
        signals: &UnboundedSender<Signal>,
    ) -> Result<(), Error> {
        let opaque = into_opaque(signals);
        // SAFETY: the connection is a live handle; `opaque` stays valid until `free_sender`, which
        // libvirt calls once, after the last callback.
        let registered = check(unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                ptr::null_mut(),
                event as c_int,
                Some(callback),
                opaque,
                Some(free_sender),
            )
        });
        match registered {
            Ok(id) => {
                self.events.push(id);
                Ok(())
            }
            Err(error) => {
                // SAFETY: libvirt did not take the sender, so nobody else frees it.
                unsafe { free_sender(opaque) };
                Err(error)
            }
        }
    }

    /// Of a connection within this process libvirt takes no such callback, and says nothing: the
    /// sender then lives as long as the process.
    fn register_close(&self, signals: &UnboundedSender<Signal>) -> Result<(), Error> {
        let opaque = into_opaque(signals);
        // SAFETY: as in `register`.
        let registered = check(unsafe {
            let connect = self.connect.as_ptr();
            sys::virConnectRegisterCloseCallback(connect, Some(on_close), opaque, Some(free_sender))
        });
        if registered.is_err() {
            // SAFETY: libvirt did not take the sender, so nobody else frees it.
            unsafe { free_sender(opaque) };
        }
        registered.map(drop)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for event in &self.events {
            // SAFETY: the connection is a live handle, the id is one of its own. A refusal means
            // that the connection is gone, and its callbacks with it.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *event) };
        }
        // SAFETY: as above.
        unsafe { sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close)) };
    }
}

/// What libvirt stores of a callback, whatever its signature.
type EventCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type BlockJobCallback = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virDomainPtr,
    *const c_char,
    c_int,
    c_int,
    *mut c_void,
);

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes a domain that is valid during the call, and our own sender.
    unsafe {
        if let Some(vm) = uuid(domain) {
            send(opaque, Signal::Lifecycle { vm });
        }
    }
    0
}

unsafe extern "C" fn on_block_job(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    disk: *const c_char,
    _: c_int,
    status: c_int,
    opaque: *mut c_void,
) {
    if disk.is_null() {
        return;
    }
    // SAFETY: libvirt passes a domain and a string that are valid during the call, and our sender.
    unsafe {
        let disk = CStr::from_ptr(disk).to_string_lossy().into_owned();
        if let Some(vm) = uuid(domain) {
            send(
                opaque,
                Signal::BlockJob {
                    vm,
                    disk,
                    status: status as c_uint,
                },
            );
        }
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, _: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt passes our own sender.
    unsafe { send(opaque, Signal::Closed) };
}

/// # Safety
/// The domain must be a valid handle.
unsafe fn uuid(domain: sys::virDomainPtr) -> Option<Uuid> {
    let mut bytes = [0; 16];
    // SAFETY: the caller vouches for the domain; the buffer has the 16 bytes that are written.
    // The UUID is read from the handle itself, nobody is asked.
    let found = unsafe { sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) };
    (found == 0).then(|| Uuid::from_bytes(bytes))
}

fn into_opaque(signals: &UnboundedSender<Signal>) -> *mut c_void {
    Box::into_raw(Box::new(signals.clone())).cast()
}

/// # Safety
/// `opaque` must come from [`into_opaque`] and not be freed yet.
unsafe fn send(opaque: *mut c_void, signal: Signal) {
    // SAFETY: the caller vouches for it.
    let signals = unsafe { &*opaque.cast::<UnboundedSender<Signal>>() };
    // Nobody listens any more when the subscription is about to end.
    let _ = signals.send(signal);
}

/// # Safety
/// `opaque` must come from [`into_opaque`], and nobody uses it afterwards.
unsafe extern "C" fn free_sender(opaque: *mut c_void) {
    // SAFETY: the caller vouches for it.
    drop(unsafe { Box::from_raw(opaque.cast::<UnboundedSender<Signal>>()) });
}

/// libvirt's usual answer: below zero, the reason is this thread's last error.
fn check(answer: c_int) -> Result<c_int, Error> {
    if answer < 0 {
        Err(Error::last_error())
    } else {
        Ok(answer)
    }
}
