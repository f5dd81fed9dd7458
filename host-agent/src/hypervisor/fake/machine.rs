//! A machine with its disks: plain state, changed by one event at a time.

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;

use super::disk::Disk;
use super::fill::Filling;
use super::guest::Guest;
use super::images::FakeImages;
use crate::hypervisor::{HypervisorError, VmState, VmView};

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: VmId,
    pub(super) name: String,
    pub(super) state: VmState,
    /// It was told to stand still, and not yet to run again.
    pub(super) suspended: bool,
    pub(super) disks: Vec<Disk>,
    pub(super) guest: Guest,
    pub(super) filling: Filling,
}

impl Machine {
    /// As it is seen, with the disks whose chains can be read.
    pub(super) fn view(&self, images: &FakeImages) -> VmView {
        let readable = |disk: &&Disk| self.chain(disk, images).is_some();
        let disks = self.disks.iter().filter(readable);
        let view = |disk: &Disk| disk.view(self.chain(disk, images).unwrap_or_default(), images);
        let disks = disks.map(view).collect();
        VmView {
            id: self.id,
            name: self.name.clone(),
            state: self.state,
            lacks_room: self.lacks_room(),
            disks,
            unsupported: Vec::new(),
        }
    }

    pub(super) fn disk(&mut self, target: &DiskTarget) -> Result<&mut Disk, HypervisorError> {
        let missing = || HypervisorError::NotFound(format!("disk {target}"));
        self.disks
            .iter_mut()
            .find(|disk| disk.target == *target)
            .ok_or_else(missing)
    }

    /// The same, or that one of its chains cannot be read.
    pub(super) fn whole_view(&self, images: &FakeImages) -> Result<VmView, HypervisorError> {
        let view = self.view(images);
        if view.disks.len() == self.disks.len() {
            return Ok(view);
        }
        let text = format!("a chain of {} cannot be read", self.name);
        Err(HypervisorError::Unknown(text))
    }

    /// What QEMU has open; without one, what the headers say that it would.
    pub(super) fn chain(&self, disk: &Disk, images: &FakeImages) -> Option<Vec<Locator>> {
        match self.state {
            VmState::ShutOff => images.chain(&disk.next_start),
            _ => Some(disk.chain.clone()),
        }
    }

    /// The guest's processors run or stand still. When they stop, QEMU writes everything out.
    pub(super) fn set_state(&mut self, state: VmState) {
        self.state = state;
        if state == VmState::Running {
            self.filling.forget_errors();
        }
        if state == VmState::Paused {
            self.disks
                .iter_mut()
                .for_each(|disk| disk.unflushed.clear());
        }
    }

    /// QEMU is gone, and with it its jobs and what it had in its memory alone.
    pub(super) fn stop(&mut self, images: &FakeImages) {
        if self.state != VmState::ShutOff {
            self.state = VmState::ShutOff;
            self.suspended = false;
            self.guest.frozen = 0;
            self.end_jobs();
            for disk in &mut self.disks {
                disk.works_for = None;
                let active = disk.active().clone();
                let read = |block| Some(images.read_chain(&images.chain(&active)?, block));
                for block in std::mem::take(&mut disk.unflushed) {
                    let before = read(block);
                    images.lose(&active, block);
                    // Until the pull has ended, the image names where the block came from.
                    disk.lacks_data |= read(block) != before;
                }
            }
        }
    }

    pub(super) fn end_jobs(&mut self) {
        for disk in &mut self.disks {
            disk.job = None;
            disk.write_limit = 0;
        }
    }

    /// Brings what is known of the chains up to the headers, when there is no QEMU.
    pub(super) fn refresh(&mut self, images: &FakeImages) -> Result<(), HypervisorError> {
        if self.state == VmState::ShutOff {
            self.open(images)?;
        }
        Ok(())
    }

    /// Opens the chains as the headers have them.
    pub(super) fn start(&mut self, images: &FakeImages) -> Result<(), HypervisorError> {
        if let Some(disk) = self.disks.iter().find(|disk| disk.job.is_some()) {
            let text = format!("disk {}: its images are locked", disk.target);
            return Err(HypervisorError::Refused(text));
        }
        self.open(images)?;
        self.set_state(VmState::Running);
        Ok(())
    }

    fn open(&mut self, images: &FakeImages) -> Result<(), HypervisorError> {
        for disk in &mut self.disks {
            let broken =
                || HypervisorError::Refused(format!("disk {} cannot be opened", disk.target));
            disk.chain = images.chain(&disk.next_start).ok_or_else(broken)?;
        }
        Ok(())
    }
}
