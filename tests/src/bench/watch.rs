//! What a merge costs: its time, what the guest waits, and what QEMU writes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{DISK, LIMIT};
use crate::guest::acks::Mark;
use crate::rig::{Guest, Rig};

/// One merge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    took: Duration,
    stall: Duration,
    written: u64,
}

impl Round {
    pub(super) fn ms(&self) -> f64 {
        self.took.as_secs_f64() * 1000.0
    }

    /// The longest time between two acknowledgements of the guest.
    pub(super) fn stall_ms(&self) -> f64 {
        self.stall.as_secs_f64() * 1000.0
    }

    /// What QEMU has sent to storage meanwhile: the copy, the images' metadata, and the little that
    /// the guest writes.
    pub(super) fn written_mib(&self) -> f64 {
        self.written as f64 / f64::from(1 << 20)
    }
}

/// A merge under way.
pub(super) struct Watch<'a> {
    guest: &'a Guest,
    /// The kernel's account of QEMU's input and output.
    account: PathBuf,
    written: u64,
    mark: Mark,
    begun: Instant,
}

impl<'a> Watch<'a> {
    pub(super) fn begin(rig: &Rig, guest: &'a Guest) -> Result<Self> {
        let pid = rig.virsh().qemu_pid(&guest.spec.name)?;
        let account = PathBuf::from(format!("/proc/{}/io", pid.as_raw_nonzero()));
        Ok(Self {
            guest,
            written: written(&account)?,
            account,
            mark: guest.acks.mark(),
            begun: Instant::now(),
        })
    }

    /// Takes the time, and then waits for some acknowledgements after the end.
    pub(super) async fn end(self) -> Result<Round> {
        let took = self.begun.elapsed();
        let written = written(&self.account)? - self.written;
        let acks = &self.guest.acks;
        acks.wait_for_more(DISK, 3, LIMIT).await?;
        Ok(Round {
            took,
            stall: acks.longest_gap_since(DISK, self.mark),
            written,
        })
    }
}

/// The bytes that a process has sent to storage, all its threads together.
fn written(account: &PathBuf) -> Result<u64> {
    let text =
        std::fs::read_to_string(account).with_context(|| format!("no {}", account.display()))?;
    let bytes = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    let bytes = bytes.context("the kernel keeps no account of what processes write")?;
    Ok(bytes.parse()?)
}
