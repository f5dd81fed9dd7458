//! One job's copy: the child that does it, and what is wished of it meanwhile.

use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use livemerge_storage::ImageLock;

use super::Answer;
use super::commit::{self, Image};
use crate::hypervisor::{BlockJobKind, HypervisorError, JobProgress};

pub(super) struct Job {
    control: Mutex<Control>,
    /// Of a per cent, as the child said last.
    hundredths: AtomicU32,
    virtual_bytes: u64,
}

struct Control {
    child: Option<Child>,
    bytes_per_second: u64,
    aborted: bool,
    /// The child was ended so that another one takes its place.
    again: bool,
}

impl Control {
    fn end_child(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails only for a child that has ended.
            let _ = child.kill();
        }
    }
}

/// Why a copy is not complete.
pub(super) enum Stop {
    Aborted,
    Failed(String),
}

impl Job {
    pub(super) fn new(virtual_bytes: u64, bytes_per_second: u64) -> Self {
        let control = Control {
            child: None,
            bytes_per_second,
            aborted: false,
            again: false,
        };
        Self {
            control: Mutex::new(control),
            hundredths: AtomicU32::new(0),
            virtual_bytes,
        }
    }

    pub(super) fn progress(&self) -> JobProgress {
        let hundredths = u128::from(self.hundredths.load(Ordering::Relaxed));
        let cur = u128::from(self.virtual_bytes) * hundredths / 10_000;
        JobProgress {
            kind: BlockJobKind::Offline,
            cur: u64::try_from(cur).unwrap_or(self.virtual_bytes),
            end: self.virtual_bytes,
        }
    }

    pub(super) fn abort(&self) {
        let mut control = self.control();
        control.aborted = true;
        control.end_child();
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.control().aborted
    }

    pub(super) fn set_speed(&self, bytes_per_second: u64) {
        let mut control = self.control();
        if control.bytes_per_second != bytes_per_second {
            control.bytes_per_second = bytes_per_second;
            control.again = true;
            control.end_child();
        }
    }

    /// Copies to the end, on the thread that calls. Says once whether it has begun.
    pub(super) fn copy(
        &self,
        images: &[Image],
        locks: &Arc<[ImageLock]>,
        started: &SyncSender<Answer<()>>,
    ) -> Result<(), Stop> {
        loop {
            let output = {
                let mut control = self.control();
                if control.aborted {
                    return Err(Stop::Aborted);
                }
                control.again = false;
                match commit::spawn(images, control.bytes_per_second, locks) {
                    Ok((child, output)) => {
                        control.child = Some(child);
                        output
                    }
                    Err(error) => {
                        let why = format!("qemu-img cannot be started: {error}");
                        let _ = started.try_send(Err(HypervisorError::Refused(why.clone())));
                        return Err(Stop::Failed(why));
                    }
                }
            };
            // Told once; nobody listens to later ones.
            let _ = started.try_send(Ok(()));
            let text = commit::follow(output, |done| {
                self.hundredths.store(done, Ordering::Relaxed);
            });
            let mut control = self.control();
            let ended = control.child.take().map(|mut child| child.wait());
            match ended {
                _ if control.aborted => return Err(Stop::Aborted),
                Some(Ok(status)) if status.success() => return Ok(()),
                _ if control.again => {}
                Some(Ok(status)) => return Err(Stop::Failed(format!("{status}: {text}"))),
                Some(Err(error)) => return Err(Stop::Failed(error.to_string())),
                None => return Err(Stop::Failed("the child is gone".to_owned())),
            }
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
