//! What the port asks, as libvirt calls. All of it blocks.

use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use livemerge_storage::Locator;
use virt::domain::Domain;
use virt::error::Error;

use super::connection::Connection;
use super::definitions;
use super::error::meaning;
use super::headers::{self, Missing};
use super::identity::{Identity, mapped};
use super::offline;
use super::overlay;
use super::reading::{
    Reading, definition, next_start, nobody_writes, present, read, running, state,
};
use super::relative::stays_relative;
use super::suspended::Suspended;
use super::switched;
use crate::hypervisor::ffi::{self, Held, IoLimits, Ways};
use crate::hypervisor::xml::{Definition, Disk, JobMark, Source, kept_snapshot};
use crate::hypervisor::{
    BlockJobKind, HypervisorError, JobOrder, JobProgress, KeptSnapshot, Layer, Overlay, Reference,
    VmState, VmView,
};

pub(super) type Answer<T> = Result<T, HypervisorError>;

impl Connection {
    pub(super) fn vms(&self) -> Answer<Vec<VmView>> {
        self.each(|domain| read(domain, Reading::Listed))
    }

    /// `own`: its images are written by this process.
    pub(super) fn vm(&self, vm: VmId, own: bool, suspended: &Suspended) -> Answer<VmView> {
        let domain = self.domain(vm)?;
        let mut seen = read(&domain, Reading::Whole)?;
        match seen.state {
            VmState::ShutOff => suspended.ended(vm),
            VmState::Running => suspended.ran(vm),
            VmState::Paused => {}
        }
        seen.lacks_room &= !suspended.is(vm, domain.id());
        if seen.state != VmState::ShutOff {
            let disks = seen.disks.iter_mut();
            disks.for_each(|disk| switched::settle(&domain, disk));
        } else if !own {
            nobody_writes(&seen)?;
        }
        Ok(seen)
    }

    pub(super) fn set_next_start(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        removed: &[Locator],
        kept: &Locator,
    ) -> Answer<()> {
        let domain = self.domain(vm)?;
        let now = running(&domain)?;
        let place = position(disk_of(&now, disk)?, kept);
        let format = place.and_then(|place| disk_of(&now, disk).ok()?.chain[place].format);
        offline::set_next_start(self, &domain, disk, removed, (kept, format))
    }

    pub(super) fn job(&self, vm: VmId, disk: &DiskTarget) -> Answer<Option<JobProgress>> {
        let domain = self.domain(vm)?;
        match told(ffi::block_job(&domain, disk.as_str())) {
            Ok(job) => Ok(job.map(|job| progress(&job))),
            // Without a QEMU there is no job; and of a disk that is not there libvirt only says
            // that the question was wrong.
            Err(HypervisorError::Refused(text)) => {
                let now = present(&domain)?;
                disk_of(&now, disk)?;
                if now.live {
                    Err(HypervisorError::Refused(text))
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn migrates(&self, vm: VmId) -> Answer<bool> {
        let domain = self.domain(vm)?;
        match told(ffi::domain_job(&domain)) {
            Ok(job) => Ok(job.is_some_and(|job| job.migrates())),
            // Without a QEMU nothing is under way.
            Err(HypervisorError::Refused(_)) if !present(&domain)?.live => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn add_overlays(&self, vm: VmId, overlays: &[Overlay]) -> Answer<()> {
        let domain = self.domain(vm)?;
        let now = present(&domain)?;
        if !now.live {
            return offline::add(self, &domain, overlays);
        }
        // What is on top already was put there before, and the reply was lost.
        let mut missing = Vec::new();
        for overlay in overlays {
            let disk = supported(disk_of(&now, &overlay.disk)?)?;
            match position(disk, &overlay.locator) {
                Some(place) if place + 1 == disk.chain.len() => {}
                Some(_) => return Err(refused(&overlay.disk, "has the overlay below its top")),
                None => missing.push(overlay),
            }
        }
        if missing.is_empty() {
            return self.written_out();
        }
        let order = overlay::order(&now, &missing)?;
        let before = definitions::name_first(self, &domain, &now, &missing)?;
        let put_on = domain.create_snapshot_xml(&order, overlay::FLAGS);
        match told(put_on.map(Held::new)) {
            Ok(_) => self.written_out(),
            Err(error) => {
                if error.says_that_nothing_was_done() {
                    definitions::name_again(self, &domain, before.as_deref());
                }
                Err(error)
            }
        }
    }

    pub(super) fn start_job(&self, vm: VmId, order: &JobOrder) -> Answer<()> {
        let domain = self.domain(vm)?;
        let now = running(&domain)?;
        let disk = supported(disk_of(&now, &order.disk)?)?;
        let gone = || refused(&order.disk, "no longer has the layers of the merge");
        let top = position(disk, &order.top).ok_or_else(gone)?;
        let base = match &order.base {
            Some(base) => Some(position(disk, base).ok_or_else(gone)?),
            None => None,
        };
        let at_the_end = top + 1 == disk.chain.len();
        let wanted_at_the_end = order.kind != BlockJobKind::Commit;
        if base.is_some_and(|base| base >= top) || at_the_end != wanted_at_the_end {
            return Err(refused(
                &order.disk,
                "has the layers of the merge in another order",
            ));
        }
        let (target, speed) = (disk.target.as_str(), order.bytes_per_second);
        // Of the layer whose header libvirt writes; after an active commit there is none.
        let above = match order.kind {
            BlockJobKind::Commit => Some(top + 1),
            BlockJobKind::Pull => Some(top),
            _ => None,
        };
        let relative = above.zip(base);
        let relative = relative.is_some_and(|(above, base)| stays_relative(disk, above, base));
        let base = base.map(|base| indexed(disk, base)).transpose()?;
        if let (Some(_), Some(merge)) = (above, order.merge) {
            mark_job(&domain, &disk.target, merge)?;
        }
        match (order.kind, base) {
            (BlockJobKind::Pull, base) => {
                let base = base.as_deref();
                named(relative, |relative| {
                    ffi::block_pull(&domain, target, base, relative, speed)
                })
            }
            (kind @ (BlockJobKind::ActiveCommit | BlockJobKind::Commit), Some(base)) => {
                let top = indexed(disk, top)?;
                let active = kind == BlockJobKind::ActiveCommit;
                named(relative, |relative| {
                    let ways = Ways { active, relative };
                    ffi::block_commit(&domain, target, &base, &top, ways, speed)
                })
            }
            _ => Err(refused(&order.disk, "cannot be merged like that")),
        }
    }

    pub(super) fn restore_backing(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        image: &Locator,
        backing: &Layer,
    ) -> Answer<()> {
        offline::restore(self, &*self.domain(vm)?, disk, image, backing)
    }

    pub(super) fn abort_job(&self, vm: VmId, disk: &DiskTarget) -> Answer<()> {
        told(ffi::block_job_abort(&*self.domain(vm)?, disk.as_str()))
    }

    pub(super) fn set_speed(&self, vm: VmId, disk: &DiskTarget, speed: u64) -> Answer<()> {
        told(ffi::block_job_speed(
            &*self.domain(vm)?,
            disk.as_str(),
            speed,
        ))
    }

    pub(super) fn pivot(&self, vm: VmId, disk: &DiskTarget) -> Answer<()> {
        let domain = self.domain(vm)?;
        told(ffi::block_job_pivot(&domain, disk.as_str()))
    }

    pub(super) fn write_limit(&self, vm: VmId, disk: &DiskTarget) -> Answer<u64> {
        let limits = told(ffi::io_limits(&*self.domain(vm)?, disk.as_str()))?;
        Ok(limits.write)
    }

    pub(super) fn limit_writes(&self, vm: VmId, disk: &DiskTarget, limit: u64) -> Answer<()> {
        let domain = self.domain(vm)?;
        let now = told(ffi::io_limits(&domain, disk.as_str()))?;
        if now.total > 0 {
            // libvirt takes either one limit for both, or one for each.
            return Err(refused(disk, "has one limit for reading and writing"));
        }
        let limits = IoLimits {
            write: limit,
            ..now
        };
        told(ffi::set_io_limits(&domain, disk.as_str(), limits))
    }

    pub(super) fn suspend(&self, vm: VmId, suspended: &Suspended) -> Answer<()> {
        let domain = self.domain(vm)?;
        // Before it is: a reply may be lost.
        suspended.begun(vm, domain.id());
        told(domain.suspend()).map(drop)
    }

    pub(super) fn resume(&self, vm: VmId, suspended: &Suspended) -> Answer<()> {
        let domain = self.domain(vm)?;
        // It may have been switched to another volume, which it is about to write.
        if let Err(error) = self.sync_definitions() {
            tracing::warn!(%vm, %error, "its definition may not outlive a power cut yet");
        }
        suspended.ended(vm);
        match told(domain.resume()) {
            Err(HypervisorError::Refused(_)) if state(&domain)? == VmState::Running => Ok(()),
            reply => reply.map(drop),
        }
    }

    pub(super) fn references(&self, locators: &[Locator]) -> Answer<Vec<Vec<Reference>>> {
        let wanted = locators
            .iter()
            .map(|locator| Ok((locator, identity(locator)?)));
        let wanted: Vec<_> = wanted.collect::<Answer<_>>()?;
        let machines = self.each(|domain| {
            let mut now = present(domain)?;
            let mut next = None;
            if now.live {
                next = next_start(domain, definition)?;
            } else {
                headers::complete_all(&mut now, Missing::Ends)?;
            }
            if let Some(next) = &mut next {
                headers::complete_all(next, Missing::Ends)?;
            }
            let name_it = |(locator, wanted): &(&Locator, _)| {
                let mut found = disks_with(&now, locator, wanted)?;
                if let Some(next) = &next {
                    found.extend(disks_with(next, locator, wanted)?);
                }
                found.sort();
                found.dedup();
                let reference = |disk| Reference {
                    vm: now.id,
                    name: now.name.clone(),
                    disk,
                };
                Ok(found.into_iter().map(reference).collect())
            };
            wanted.iter().map(name_it).collect::<Answer<Vec<Vec<_>>>>()
        })?;
        // What was seen to name one no more shall not name it again after a power cut.
        self.written_out()?;
        let mut named = vec![Vec::new(); locators.len()];
        for machine in machines {
            for (all, found) in named.iter_mut().zip(machine) {
                all.extend(found);
            }
        }
        Ok(named)
    }

    pub(super) fn kept_snapshots(&self, vm: VmId) -> Answer<Vec<KeptSnapshot>> {
        let snapshots = told(self.domain(vm)?.list_all_snapshots(0))?;
        let snapshots: Vec<_> = snapshots.into_iter().map(Held::new).collect();
        let read = snapshots.iter().map(|snapshot| {
            let kept = kept_snapshot(&told(snapshot.xml_desc(0))?);
            kept.map_err(|error| HypervisorError::Unknown(error.to_string()))
        });
        // One that is gone meanwhile names nothing.
        let there = read.filter(|kept| !matches!(kept, Err(HypervisorError::NotFound(_))));
        there.collect()
    }

    pub(super) fn domain(&self, vm: VmId) -> Answer<Held<Domain>> {
        told(
            self.connect()
                .lookup_domain_by_uuid(vm.into())
                .map(Held::new),
        )
    }

    /// Asks for each machine; one that is gone meanwhile is left out.
    fn each<T>(&self, ask: impl Fn(&Domain) -> Answer<T>) -> Answer<Vec<T>> {
        let domains = told(self.connect().list_all_domains(0))?;
        let domains: Vec<_> = domains.into_iter().map(Held::new).collect();
        let mut answers = Vec::with_capacity(domains.len());
        for domain in &domains {
            match ask(domain) {
                Ok(answer) => answers.push(answer),
                Err(HypervisorError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

/// Starts a job with a relative backing name, where that is wanted. libvirt must have seen the names
/// in the headers; where it has not, it says no, and the name is written as an absolute path.
fn named(relative: bool, start: impl Fn(bool) -> Result<(), Error>) -> Answer<()> {
    match told(start(relative)) {
        Err(HypervisorError::Refused(why)) if relative => {
            tracing::info!(why, "a backing name is written as an absolute path");
            told(start(false))
        }
        started => started,
    }
}

/// Writes into the running machine's definition which merge it works for. Another QEMU starts with
/// the inactive one, which does not say so.
fn mark_job(domain: &Domain, disk: &DiskTarget, merge: MergeId) -> Answer<()> {
    let mark = JobMark::new(disk, merge);
    told(domain.set_metadata(
        virt_sys::VIR_DOMAIN_METADATA_ELEMENT as i32,
        Some(&mark.element()),
        Some(JobMark::PREFIX),
        Some(&mark.namespace()),
        virt_sys::VIR_DOMAIN_AFFECT_LIVE,
    ))
}

pub(super) fn disk_of<'a>(machine: &'a Definition, target: &DiskTarget) -> Answer<&'a Disk> {
    machine
        .disks
        .iter()
        .find(|disk| disk.target == *target)
        .ok_or_else(|| HypervisorError::NotFound(format!("disk {target} of {}", machine.name)))
}

/// The disk, unless something speaks against a merge or an overlay.
pub(super) fn supported(disk: &Disk) -> Answer<&Disk> {
    match disk.unsupported() {
        None => Ok(disk),
        Some(why) => Err(refused(&disk.target, &why)),
    }
}

pub(super) fn position(disk: &Disk, locator: &Locator) -> Option<usize> {
    disk.chain
        .iter()
        .position(|layer| layer.source.locator() == Some(locator))
}

pub(super) fn indexed(disk: &Disk, place: usize) -> Answer<String> {
    match disk.chain[place].index {
        Some(index) => Ok(format!("{}[{index}]", disk.target)),
        None => Err(refused(&disk.target, "has a layer without an index")),
    }
}

fn progress(job: &ffi::RawBlockJob) -> JobProgress {
    let kind = match job.kind {
        virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT => BlockJobKind::ActiveCommit,
        virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT => BlockJobKind::Commit,
        virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_PULL => BlockJobKind::Pull,
        _ => BlockJobKind::Other,
    };
    JobProgress {
        kind,
        cur: job.cur,
        end: job.end,
    }
}

/// The disks, of whatever kind, that have the wanted volume open or would open it.
fn disks_with(
    machine: &Definition,
    locator: &Locator,
    wanted: &Identity,
) -> Answer<Vec<DiskTarget>> {
    let mut found = Vec::new();
    for disk in &machine.disks {
        for source in disk.sources() {
            let same = match source {
                Source::Elsewhere(_) => false,
                Source::Volume(other) => {
                    spells_same(other, locator) || same(&identity(other)?, wanted)
                }
                Source::Unresolved(kind) => {
                    let text = format!(
                        "disk {} of {} has a source of type {kind}",
                        disk.target, machine.name
                    );
                    return Err(HypervisorError::Unknown(text));
                }
            };
            if same {
                found.push(disk.target.clone());
            }
        }
    }
    Ok(found)
}

/// One of them may have been looked at while a device was there, and the other one not.
fn spells_same(one: &Locator, other: &Locator) -> bool {
    let mapped = mapped(one);
    one == other || (mapped.is_some() && mapped == self::mapped(other))
}

/// Two names without anything behind them are not the same thing.
fn same(one: &Identity, other: &Identity) -> bool {
    *one != Identity::Nothing && one == other
}

fn identity(locator: &Locator) -> Answer<Identity> {
    Identity::of(locator)
        .map_err(|error| HypervisorError::Unknown(format!("cannot look at {locator:?}: {error}")))
}

pub(super) fn refused(disk: &DiskTarget, why: &str) -> HypervisorError {
    HypervisorError::Refused(format!("disk {disk} {why}"))
}

pub(super) fn told<T>(reply: Result<T, Error>) -> Answer<T> {
    reply.map_err(|error| meaning(&error))
}
