//! What the port asks, as libvirt calls. All of it blocks.

use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use virt::domain::{Domain, DomainState};
use virt::error::Error;

use super::connection::Connection;
use super::error::meaning;
use super::identity::Identity;
use super::overlay;
use super::view::view;
use crate::hypervisor::ffi::{self, Held};
use crate::hypervisor::xml::{Definition, Disk, Source};
use crate::hypervisor::{
    BlockJobKind, CommitOrder, HypervisorError, JobProgress, Overlay, Reference, VmState, VmView,
};

type Answer<T> = Result<T, HypervisorError>;

/// How often a machine that starts or ends between two questions is asked again.
const TRIES: usize = 3;

impl Connection {
    pub(super) fn vms(&self) -> Answer<Vec<VmView>> {
        self.each(|domain| read(domain, listed))
    }

    pub(super) fn vm(&self, vm: VmId) -> Answer<VmView> {
        let domain = self.domain(vm)?;
        read(&domain, definition)
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

    pub(super) fn add_overlays(&self, vm: VmId, overlays: &[Overlay]) -> Answer<()> {
        let domain = self.domain(vm)?;
        let now = running(&domain)?;
        // What is on top already was put there before, and the reply was lost.
        let mut missing = Vec::new();
        for overlay in overlays {
            let disk = disk_of(&now, &overlay.disk)?;
            match position(disk, &overlay.locator) {
                Some(place) if place + 1 == disk.chain.len() => {}
                Some(_) => return Err(refused(&overlay.disk, "has the overlay below its top")),
                None => missing.push(overlay),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let order = overlay::order(&now, &missing)?;
        told(
            domain
                .create_snapshot_xml(&order, overlay::FLAGS)
                .map(Held::new),
        )
        .map(drop)
    }

    pub(super) fn start_commit(&self, vm: VmId, order: &CommitOrder) -> Answer<()> {
        let domain = self.domain(vm)?;
        let now = running(&domain)?;
        let disk = disk_of(&now, &order.disk)?;
        let (base, top) = (position(disk, &order.base), position(disk, &order.top));
        let (Some(base), Some(top)) = (base, top) else {
            return Err(refused(
                &order.disk,
                "no longer has both layers of the commit",
            ));
        };
        if base >= top || order.active != (top + 1 == disk.chain.len()) {
            return Err(refused(
                &order.disk,
                "has the layers of the commit in another order",
            ));
        }
        let (base, top) = (indexed(disk, base)?, indexed(disk, top)?);
        told(ffi::block_commit(
            &domain,
            disk.target.as_str(),
            &base,
            &top,
            order.active,
        ))
    }

    pub(super) fn pivot(&self, vm: VmId, disk: &DiskTarget) -> Answer<()> {
        let domain = self.domain(vm)?;
        told(ffi::block_job_pivot(&domain, disk.as_str()))
    }

    pub(super) fn suspend(&self, vm: VmId) -> Answer<()> {
        told(self.domain(vm)?.suspend()).map(drop)
    }

    pub(super) fn resume(&self, vm: VmId) -> Answer<()> {
        let domain = self.domain(vm)?;
        match told(domain.resume()) {
            Err(HypervisorError::Refused(_)) if state(&domain)? == VmState::Running => Ok(()),
            reply => reply.map(drop),
        }
    }

    pub(super) fn references(&self, locator: &Locator) -> Answer<Vec<Reference>> {
        let wanted = identity(locator)?;
        let machines = self.each(|domain| {
            let now = present(domain)?;
            let next = if now.live {
                next_start(domain, definition)?
            } else {
                None
            };
            let mut found = disks_with(&now, locator, &wanted)?;
            if let Some(next) = &next {
                found.extend(disks_with(next, locator, &wanted)?);
            }
            found.sort();
            found.dedup();
            let name = &now.name;
            let found = found.into_iter();
            Ok(found
                .map(|disk| Reference {
                    vm: now.id,
                    name: name.clone(),
                    disk,
                })
                .collect())
        })?;
        Ok(machines
            .into_iter()
            .flat_map(|found: Vec<Reference>| found)
            .collect())
    }

    fn domain(&self, vm: VmId) -> Answer<Held<Domain>> {
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

fn read(domain: &Domain, define: fn(&Domain, u32) -> Answer<Definition>) -> Answer<VmView> {
    for _ in 0..TRIES {
        let now = define(domain, 0)?;
        if !now.live {
            return Ok(view(&now, Some(&now), VmState::ShutOff));
        }
        let next = next_start(domain, define)?;
        match state(domain)? {
            // It ended in between.
            VmState::ShutOff => {}
            state => return Ok(view(&now, next.as_ref(), state)),
        }
    }
    Err(HypervisorError::Unknown(
        "the machine starts and ends while it is looked at".to_owned(),
    ))
}

/// The definition of the running QEMU, or else what the next one starts with.
fn present(domain: &Domain) -> Answer<Definition> {
    definition(domain, 0)
}

fn running(domain: &Domain) -> Answer<Definition> {
    let now = present(domain)?;
    if now.live {
        Ok(now)
    } else {
        Err(HypervisorError::Refused("the machine does not run".into()))
    }
}

/// `None` for a machine that is defined only while it runs.
fn next_start(
    domain: &Domain,
    define: fn(&Domain, u32) -> Answer<Definition>,
) -> Answer<Option<Definition>> {
    if told(domain.is_persistent())? {
        define(domain, virt_sys::VIR_DOMAIN_XML_INACTIVE).map(Some)
    } else {
        Ok(None)
    }
}

/// A definition with all of its disks.
fn definition(domain: &Domain, flags: u32) -> Answer<Definition> {
    let definition = outline(domain, flags)?;
    match definition.unreadable.first() {
        None => Ok(definition),
        Some(error) => Err(HypervisorError::Unknown(error.to_string())),
    }
}

/// A definition with the disks that can be read: enough to list it, too little to act on it.
fn listed(domain: &Domain, flags: u32) -> Answer<Definition> {
    let definition = outline(domain, flags)?;
    for error in &definition.unreadable {
        tracing::warn!(vm = %definition.id, name = %definition.name, %error, "a disk is not listed");
    }
    Ok(definition)
}

fn outline(domain: &Domain, flags: u32) -> Answer<Definition> {
    let xml = told(domain.xml_desc(flags))?;
    Definition::parse(&xml).map_err(|error| HypervisorError::Unknown(error.to_string()))
}

fn state(domain: &Domain) -> Answer<VmState> {
    // `virt` drops an error of this question, and an impossible state comes out.
    let (state, _) = told(domain.state())?;
    match state.known() {
        Some(DomainState::Running | DomainState::Blocked) => Ok(VmState::Running),
        Some(
            DomainState::Paused
            | DomainState::PMSuspended
            | DomainState::Shutdown
            | DomainState::Crashed,
        ) => Ok(VmState::Paused),
        Some(DomainState::Shutoff) => Ok(VmState::ShutOff),
        Some(DomainState::NoState) | None => Err(HypervisorError::Unknown(
            "the machine's state cannot be read".to_owned(),
        )),
    }
}

fn disk_of<'a>(machine: &'a Definition, target: &DiskTarget) -> Answer<&'a Disk> {
    machine
        .disks
        .iter()
        .find(|disk| disk.target == *target)
        .ok_or_else(|| HypervisorError::NotFound(format!("disk {target} of {}", machine.name)))
}

fn position(disk: &Disk, locator: &Locator) -> Option<usize> {
    disk.chain
        .iter()
        .position(|layer| layer.source.locator() == Some(locator))
}

fn indexed(disk: &Disk, place: usize) -> Answer<String> {
    match disk.chain[place].index {
        Some(index) => Ok(format!("{}[{index}]", disk.target)),
        None => Err(refused(&disk.target, "has a layer without an index")),
    }
}

fn progress(job: &ffi::RawBlockJob) -> JobProgress {
    let kind = match job.kind {
        virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT => BlockJobKind::ActiveCommit,
        virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT => BlockJobKind::Commit,
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
                Source::Elsewhere => false,
                Source::Volume(other) => other == locator || same(&identity(other)?, wanted),
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

/// Two names without anything behind them are not the same thing.
fn same(one: &Identity, other: &Identity) -> bool {
    *one != Identity::Nothing && one == other
}

fn identity(locator: &Locator) -> Answer<Identity> {
    Identity::of(locator)
        .map_err(|error| HypervisorError::Unknown(format!("cannot look at {locator:?}: {error}")))
}

fn refused(disk: &DiskTarget, why: &str) -> HypervisorError {
    HypervisorError::Refused(format!("disk {disk} {why}"))
}

fn told<T>(reply: Result<T, Error>) -> Answer<T> {
    reply.map_err(|error| meaning(&error))
}
