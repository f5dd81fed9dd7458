//! One job's copy: the child that does it, and what is wished of it meanwhile.

use std::io::{self, PipeReader};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use livemerge_storage::{Format, ImageLock};

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
    /// All was copied, and the kept image's tables are not whole.
    Damaged(String),
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

    /// Copies to the end, and looks at what was written, on the thread that calls. Says once whether it
    /// has begun.
    pub(super) fn copy(
        &self,
        images: &[Image],
        locks: &Arc<[ImageLock]>,
        started: &SyncSender<Answer<()>>,
    ) -> Result<(), Stop> {
        let commit = |bytes_per_second| commit::spawn(images, bytes_per_second, locks);
        let (status, text) = self.child(commit, started)?;
        if !status.success() {
            return Err(Stop::Failed(format!("{status}: {text}")));
        }
        match images.first() {
            Some(kept) if kept.format == Format::Qcow2 => self.check(kept, locks, started),
            _ => Ok(()),
        }
    }

    /// Nobody else has the image open, so its tables can be looked at as a whole: what they have lost
    /// shows before anything is taken out of the chain.
    fn check(
        &self,
        kept: &Image,
        locks: &Arc<[ImageLock]>,
        started: &SyncSender<Answer<()>>,
    ) -> Result<(), Stop> {
        let (status, text) = self.child(|_| commit::spawn_check(kept, locks), started)?;
        match status.code() {
            Some(0 | 3) => Ok(()),
            Some(2) => Err(Stop::Damaged(text)),
            _ => Err(Stop::Failed(format!("the check: {status}: {text}"))),
        }
    }

    /// Runs a child to its end, and another one in its place when that is wished.
    fn child(
        &self,
        spawn: impl Fn(u64) -> io::Result<(Child, PipeReader)>,
        started: &SyncSender<Answer<()>>,
    ) -> Result<(ExitStatus, String), Stop> {
        loop {
            let output = {
                let mut control = self.control();
                if control.aborted {
                    return Err(Stop::Aborted);
                }
                control.again = false;
                match spawn(control.bytes_per_second) {
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
                Some(Ok(status)) if status.success() || !control.again => {
                    return Ok((status, text));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Stop::Failed(error.to_string())),
                None => return Err(Stop::Failed("the child is gone".to_owned())),
            }
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
