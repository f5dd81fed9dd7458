//! What libvirt tells by itself.
//!
//! Callbacks run on the event loop's thread. They copy what they are given into a [`Signal`], send
//! it away and return: they never ask the hypervisor, never block and never panic.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;
use std::{mem, ptr};

use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

use super::fill::ThresholdCallback;
use super::{Held, check};

/// What libvirt tells by itself.
#[derive(Debug)]
pub(in crate::hypervisor) enum Signal {
    /// The state of a disk's block job changed.
    BlockJob {
        vm: Uuid,
        disk: String,
        status: sys::virConnectDomainEventBlockJobStatus,
    },
    /// Something happened to a machine.
    Lifecycle { vm: Uuid },
    /// A layer was written beyond its threshold.
    Filling { vm: Uuid },
    /// The connection broke.
    Closed,
}

/// Signals of one connection arrive while this lives.
pub(in crate::hypervisor) struct Subscription {
    connect: Arc<Held<Connect>>,
    events: Vec<c_int>,
}

impl Subscription {
    /// Begins to send the connection's signals.
    pub(in crate::hypervisor) fn new(
        connect: Arc<Held<Connect>>,
        signals: &UnboundedSender<Signal>,
    ) -> Result<Self, Error> {
        // From here on a failure takes back what was registered.
        let mut subscription = Self {
            connect,
            events: Vec::new(),
        };
        // SAFETY: libvirt calls back with the signature of the event id that it was registered
        // for, and these are the signatures of the three ids.
        let (lifecycle, block_job, threshold): (EventCallback, EventCallback, EventCallback) = unsafe {
            (
                mem::transmute::<LifecycleCallback, EventCallback>(on_lifecycle),
                mem::transmute::<BlockJobCallback, EventCallback>(on_block_job),
                mem::transmute::<ThresholdCallback, EventCallback>(on_threshold),
            )
        };
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, signals)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, block_job, signals)?;
        subscription.register(sys::VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD, threshold, signals)?;
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

unsafe extern "C" fn on_threshold(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    _: *const c_char,
    _: u64,
    _: u64,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt passes a domain that is valid during the call, and our own sender.
    unsafe {
        if let Some(vm) = uuid(domain) {
            send(opaque, Signal::Filling { vm });
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
