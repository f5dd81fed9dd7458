//! How a machine is read: its definitions and what it does. All of it blocks.

use livemerge_storage::{Locator, is_written};
use virt::domain::{Domain, DomainPausedReason, DomainState, DomainStateReason};
use virt::enumutil::Enum;

use super::calls::{Answer, told};
use super::fill::lacks_room;
use super::headers::{self, Missing};
use super::view::view;
use crate::hypervisor::xml::Definition;
use crate::hypervisor::{HypervisorError, VmState, VmView};

/// How often a machine that starts or ends between two questions is asked again.
const TRIES: usize = 3;

/// How much of a machine must be readable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// All of its disks, to the ends of their chains.
    Whole,
    /// What can be read is enough to list it, too little to act on it.
    Listed,
}

/// A machine that is off, as libvirt says, and whose disk a process writes, is one that libvirt has
/// lost: it cannot be told what it does.
pub(super) fn nobody_writes(vm: &VmView) -> Answer<()> {
    for disk in &vm.disks {
        let written = disk.chain.iter().any(|layer| match &layer.locator {
            Locator::File(path) => is_written(path).unwrap_or(false),
            _ => false,
        });
        if written {
            let (name, target) = (&vm.name, &disk.target);
            let text = format!(
                "libvirt says that {name} is off, but a process writes its disk {target}: end that \
                 process, or let libvirt know of it"
            );
            return Err(HypervisorError::Unknown(text));
        }
    }
    Ok(())
}

pub(super) fn read(domain: &Domain, reading: Reading) -> Answer<VmView> {
    let define = match reading {
        Reading::Whole => definition,
        Reading::Listed => listed,
    };
    for _ in 0..TRIES {
        let mut now = define(domain, 0)?;
        if !now.live {
            match reading {
                Reading::Whole => {
                    headers::complete_all(&mut now, Missing::Unknown)?;
                    headers::find_astray(&mut now)?;
                }
                Reading::Listed => headers::complete_listed(&mut now),
            }
            return Ok(view(&now, Some(&now), VmState::ShutOff));
        }
        let next = next_start(domain, define)?;
        let (state, by_error) = state_and_error(domain)?;
        let by_error = by_error && reading == Reading::Whole;
        let lacks_room = by_error && lacks_room(domain)?;
        match state {
            // It ended in between.
            VmState::ShutOff => {}
            // It was let run in between, and forgot its errors with that.
            _ if by_error && !stopped_by_error(domain)? => {}
            state => {
                let view = view(&now, next.as_ref(), state);
                return Ok(VmView { lacks_room, ..view });
            }
        }
    }
    Err(HypervisorError::Unknown(
        "the machine starts and ends while it is looked at".to_owned(),
    ))
}

/// The definition of the running QEMU, or else what the next one starts with.
pub(super) fn present(domain: &Domain) -> Answer<Definition> {
    definition(domain, 0)
}

pub(super) fn running(domain: &Domain) -> Answer<Definition> {
    let now = present(domain)?;
    if now.live {
        Ok(now)
    } else {
        Err(HypervisorError::Refused("the machine does not run".into()))
    }
}

/// `None` for a machine that is defined only while it runs.
pub(super) fn next_start(
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
pub(super) fn definition(domain: &Domain, flags: u32) -> Answer<Definition> {
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

pub(super) fn state(domain: &Domain) -> Answer<VmState> {
    Ok(state_and_error(domain)?.0)
}

/// Whether it stands still because of an error, and not because somebody wished it.
pub(super) fn stopped_by_error(domain: &Domain) -> Answer<bool> {
    Ok(state_and_error(domain)?.1)
}

/// Both as of the same moment.
fn state_and_error(domain: &Domain) -> Answer<(VmState, bool)> {
    // `virt` drops an error of this question, and an impossible state comes out.
    let (state, reason) = told(domain.state())?;
    let error = Enum::Known(DomainPausedReason::IOError);
    let by_error = reason == Enum::Known(DomainStateReason::Paused(error));
    let state = match state.known() {
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
    };
    Ok((state?, by_error))
}
