//! What can happen, and what came of it.

use std::fmt;
use std::time::Duration;

use livemerge_host_agent::hypervisor::VmState;
use rand::RngExt as _;

use super::schedule::Seen;
use super::trace::tells;
use super::world::World;

/// One event. Where something has to be chosen, the step's number chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    GuestWrites,
    JobCopies,
    QemuSwitches,
    LibvirtNotices,
    JobFails,
    JobIsCancelled,
    QemuDies,
    HostDies,
    MachineStarts,
    MachineIsShutOff,
    OperatorPauses,
    OperatorResumes,
    LibvirtGoes,
    LibvirtComes,
    MessageArrives,
    MessageIsLost,
    MessageComesTwice,
    LateMessageComes,
    LineBreaks,
    LineHeals,
    ServerNoticesTheBreak,
    StreamOpens,
    HostReports,
    ReportArrives,
    ServerGoesOn,
    ServerDies,
    ServerStarts,
    AgentGoesOn,
    AgentHandlesAnOrder,
    AgentDies,
    AgentStarts,
    JournalForgets,
    StorageFrees,
    ClockJumps,
    TimePasses,
    ClientCreates,
    ClientDeletes,
    ClientRepeats,
    ClientCancels,
    ClientLimits,
    LeftoverIsDeleted,
}

impl Event {
    const ALL: [Self; 41] = [
        Self::GuestWrites,
        Self::JobCopies,
        Self::QemuSwitches,
        Self::LibvirtNotices,
        Self::JobFails,
        Self::JobIsCancelled,
        Self::QemuDies,
        Self::HostDies,
        Self::MachineStarts,
        Self::MachineIsShutOff,
        Self::OperatorPauses,
        Self::OperatorResumes,
        Self::LibvirtGoes,
        Self::LibvirtComes,
        Self::MessageArrives,
        Self::MessageIsLost,
        Self::MessageComesTwice,
        Self::LateMessageComes,
        Self::LineBreaks,
        Self::LineHeals,
        Self::ServerNoticesTheBreak,
        Self::StreamOpens,
        Self::HostReports,
        Self::ReportArrives,
        Self::ServerGoesOn,
        Self::ServerDies,
        Self::ServerStarts,
        Self::AgentGoesOn,
        Self::AgentHandlesAnOrder,
        Self::AgentDies,
        Self::AgentStarts,
        Self::JournalForgets,
        Self::StorageFrees,
        Self::ClockJumps,
        Self::TimePasses,
        Self::ClientCreates,
        Self::ClientDeletes,
        Self::ClientRepeats,
        Self::ClientCancels,
        Self::ClientLimits,
        Self::LeftoverIsDeleted,
    ];

    /// The event of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|event| format!("{event:?}") == name)
    }
}

/// What came of an event.
#[derive(Debug, Default)]
pub(super) struct Did {
    /// Whether a machine, an image, the journal or the record may be another now.
    changed: bool,
    said: String,
}

impl Did {
    /// Nothing that lasts, or that a guest could see.
    pub(super) fn nothing(what: impl fmt::Debug) -> Self {
        Self {
            changed: false,
            said: if tells() {
                format!("{what:?}")
            } else {
                String::new()
            },
        }
    }

    /// Something that may.
    pub(super) fn something(what: impl fmt::Debug) -> Self {
        Self {
            changed: true,
            ..Self::nothing(what)
        }
    }
}

impl World {
    /// Lets it happen. With `faults`, calls and writes go wrong now and then. True when something
    /// has changed that an invariant is about.
    pub(super) fn happen(&mut self, event: Event, faults: bool, seen: &mut Seen) -> bool {
        let did = match event {
            Event::GuestWrites => self.guest_writes(),
            Event::JobCopies => self.a_job_copies(),
            Event::QemuSwitches => self.qemu_switches(),
            Event::LibvirtNotices => self.libvirt_notices(),
            Event::JobFails => self.a_job_fails(),
            Event::JobIsCancelled => self.a_job_is_cancelled(),
            Event::QemuDies => self.qemu_dies(seen),
            Event::HostDies => self.host_dies(seen),
            Event::MachineIsShutOff => self.machine_is_shut_off(),
            Event::MachineStarts => Did::something(self.hypervisor.start_vm(self.vm)),
            Event::OperatorPauses => self.operator(true),
            Event::OperatorResumes => self.operator(false),
            Event::LibvirtGoes => self.libvirt_goes(),
            Event::LibvirtComes => self.libvirt_comes(),
            Event::MessageArrives => self.message_arrives(seen),
            Event::MessageIsLost => self.message_is_lost(seen),
            Event::MessageComesTwice => self.message_comes_twice(seen),
            Event::LateMessageComes => self.late_message_comes(seen),
            Event::LineBreaks => self.line(false),
            Event::LineHeals => self.line(true),
            Event::ServerNoticesTheBreak => self.server_notices_the_break(),
            Event::StreamOpens => self.stream_opens(),
            Event::HostReports => self.host_reports(),
            Event::ReportArrives => self.report_arrives(),
            Event::ServerGoesOn => self.server_goes_on(faults),
            Event::ServerDies => self.server_dies(seen),
            Event::ServerStarts => self.server_starts(),
            Event::AgentGoesOn => self.agent_goes_on(faults, seen),
            Event::AgentHandlesAnOrder => self.agent_handles_an_order(faults, seen),
            Event::AgentDies => self.agent_dies(seen),
            Event::AgentStarts => self.agent_starts(),
            Event::JournalForgets => self.journal_forgets(seen),
            Event::StorageFrees => self.storage_frees(),
            Event::ClockJumps => self.clock_jumps(seen),
            Event::TimePasses => self.time_passes(faults),
            Event::ClientCreates => self.client_creates(),
            Event::ClientDeletes => self.client_deletes(),
            Event::ClientRepeats => self.client_repeats(),
            Event::ClientCancels => self.client_cancels(seen),
            Event::ClientLimits => self.client_limits(seen),
            Event::LeftoverIsDeleted => self.leftover_is_deleted(),
        };
        let takes = self.rng.random_range(0..=if faults { 12 } else { 2 });
        self.now += Duration::from_millis(takes);
        let now = self.now;
        if let Some(server) = self.server.process.as_mut() {
            server.check_silence(now);
        }
        self.trace.note(now, || format!("{event:?} {}", did.said));
        if did.changed {
            self.refresh();
            self.paused_by_operator &= self.machine.state == VmState::Paused;
        }
        did.changed
    }
}
