//! What the agent is asked, stage by stage: it may end between two of them.
//!
//! The checks, the overlays and the removals are the agent's own, on the simulated host.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use livemerge_api_server::hosts::{self, HostError, Removed, is_a_no};
use livemerge_api_server::snapshot::step::{Answer, Ask};
use livemerge_api_server::snapshot::{self, Consistency, Mark};
use livemerge_host_agent::freeze::Quiesce;
use livemerge_host_agent::hypervisor::{self, fake::FakeHypervisor};
use livemerge_host_agent::merge::{Direction, MergeOrder, MergeRecord, Room, VolumeMark, check};
use livemerge_host_agent::volumes::Volumes;
use livemerge_host_agent::{chains, overlays};
use livemerge_proto::ids::{MergeId, VmId};
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{RemovalId, RemovalOrder};

use super::agent::{Agent, Process, answered};
use super::driver::Driver;
use super::event::Did;
use super::network::CallId;

/// An order that the agent works on.
#[derive(Debug)]
pub(super) struct Order {
    call: CallId,
    generation: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Arrived(Ask),
    /// A merge that passed the checks and is not in the journal yet.
    Checked(Box<MergeRecord>),
}

/// What storage still frees, and after how many steps it is gone. Outlives the agent.
pub(super) type Purging = BTreeMap<RemovalId, u32>;

impl Order {
    pub(super) fn new(call: CallId, generation: u64, ask: Ask) -> Self {
        Self {
            call,
            generation,
            stage: Stage::Arrived(ask),
        }
    }

    fn accepts(&self) -> bool {
        matches!(self.stage, Stage::Checked(_))
    }
}

/// How an order is gone on with.
pub(super) struct Around<'a> {
    pub(super) now: Duration,
    pub(super) purging: &'a mut Purging,
    /// Steps that a removal takes after its volume is condemned.
    pub(super) purge_steps: u32,
    /// The journal cannot be written just now.
    pub(super) journal_fails: bool,
}

impl Agent {
    /// The orders that can be gone on with. They are accepted one at a time.
    pub(super) fn ready_orders(&self) -> Vec<usize> {
        let Some(process) = &self.process else {
            return vec![];
        };
        let accepting = process.orders.iter().any(Order::accepts);
        let ready = |order: &Order| {
            let waits = matches!(&order.stage, Stage::Arrived(Ask::Merges(_))) && accepting;
            !waits
        };
        (0..process.orders.len())
            .filter(|order| ready(&process.orders[*order]))
            .collect()
    }

    /// Orders for overlays are taken once, and in the order in which they were asked for, as one
    /// connection and one lane a machine have it: true when this one is not taken. A late copy
    /// after a refusal would bring a layer that no record knows. All other orders may come late.
    pub(super) fn forget_late_overlays(&mut self, order: usize) -> bool {
        let Some(process) = self.process.as_mut() else {
            return false;
        };
        let Order { call, stage, .. } = &process.orders[order];
        if !matches!(stage, Stage::Arrived(Ask::Overlays(_))) {
            return false;
        }
        let late = *call <= self.overlays;
        self.overlays = self.overlays.max(*call);
        if late {
            process.orders.remove(order);
        }
        late
    }

    /// The next stage of an order, and its answer when there is one.
    pub(super) fn handle(
        &mut self,
        order: usize,
        around: Around<'_>,
    ) -> (Did, Option<(CallId, Answer)>) {
        let Some(process) = self.process.as_mut() else {
            return (Did::nothing("it does not run"), None);
        };
        let Order {
            call,
            generation,
            stage,
        } = process.orders.remove(order);
        let wall = self.clock.at(around.now);
        let answer = match stage {
            Stage::Arrived(ask) => {
                let desk = Desk {
                    process,
                    fence: &mut self.fence,
                    journal: &self.journal,
                    around,
                    wall,
                };
                match desk.take(generation, ask) {
                    Done::Answer(answer) => answer,
                    Done::Accept(record) => {
                        let did = Did::nothing(("checked", call, record.order.id));
                        process.orders.push(Order {
                            call,
                            generation,
                            stage: Stage::Checked(record),
                        });
                        return (did, None);
                    }
                }
            }
            Stage::Checked(_) if around.journal_fails => {
                let text = "the agent's journal cannot be written";
                no(Problem::new(Reason::StoreUnavailable, text))
            }
            Stage::Checked(record) => {
                let id = record.order.id;
                let driver = Driver::new(id, &process.hypervisor, around.now);
                self.journal.insert(id, *record);
                process.drivers.push(driver);
                Answer::MergesAccepted
            }
        };
        (Did::something((call, &answer)), Some((call, answer)))
    }
}

enum Done {
    Answer(Answer),
    Accept(Box<MergeRecord>),
}

/// What an order that has arrived is decided with.
struct Desk<'a> {
    process: &'a Process,
    fence: &'a mut u64,
    journal: &'a BTreeMap<MergeId, MergeRecord>,
    around: Around<'a>,
    wall: Timestamp,
}

impl Desk<'_> {
    fn take(self, generation: u64, ask: Ask) -> Done {
        if !matches!(ask, Ask::Chains(_)) {
            if generation < *self.fence {
                let text = "a newer server has given orders";
                return Done::Answer(no(Problem::new(Reason::StaleGeneration, text)));
            }
            *self.fence = generation;
        }
        let hypervisor = self.process.hypervisor.as_ref();
        let volumes = self.process.volumes.as_ref();
        let answer = match ask {
            Ask::Chains(vm) => read_chains(vm, hypervisor, volumes).map(Answer::Chains),
            Ask::Overlays(order) => {
                let done = answered(self.process.overlays.create(&overlay_order(order)));
                done.map(|_overlaid| Answer::OverlaysOn(Consistency::Crash))
            }
            Ask::Survey(vm) => {
                read_chains(vm, hypervisor, volumes).map(|chains| Answer::Survey(chains, vec![]))
            }
            // The simulated machine has one disk.
            Ask::Merges(orders) => {
                let order = orders.into_iter().next().expect("an order has a merge");
                match self.accept(&merge_order(order, generation)) {
                    Ok(Some(record)) => return Done::Accept(record),
                    Ok(None) => Ok(Answer::MergesAccepted),
                    Err(problem) => Err(problem),
                }
            }
            Ask::Cancel(_) | Ask::Limit(..) => Ok(Answer::Heard),
            Ask::Removal(order) => remove(&order, volumes, self.around).map(Answer::Removal),
        };
        Done::Answer(answer.unwrap_or_else(no))
    }

    /// A new merge, or `None` for one that is known.
    fn accept(&self, order: &MergeOrder) -> Result<Option<Box<MergeRecord>>, Problem> {
        if self.journal.contains_key(&order.id) {
            return Ok(None);
        }
        let same_disk =
            |other: &&MergeRecord| !other.phase.ended() && other.order.disk == order.disk;
        if let Some(open) = self.journal.values().find(same_disk) {
            let text = format!("merge {} works on disk {}", open.order.id, order.disk);
            return Err(Problem::new(Reason::ConcurrentChange, text));
        }
        let (hypervisor, volumes) = (&self.process.hypervisor, &self.process.volumes);
        let fit = answered(check(
            order,
            hypervisor.as_ref(),
            volumes,
            &mut Room::default(),
        ))?;
        let record = MergeRecord::new(order.clone(), fit, self.wall);
        Ok(Some(Box::new(record)))
    }
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "it holds a loan of the purges, which ends with the call"
)]
fn remove(
    order: &hosts::RemovalOrder,
    volumes: &Volumes,
    around: Around<'_>,
) -> Result<Removed, Problem> {
    if !around.purging.contains_key(&order.id) {
        let volume = &order.volume.volume;
        let removal = RemovalOrder {
            id: order.id,
            volume: volume.name.clone(),
            identity: order.volume.identity.clone(),
            keep_for: Duration::ZERO,
        };
        let removed = answered(volumes.remove(&volume.storage, &removal))?;
        if removed.freed_bytes > 0 && around.purge_steps > 0 {
            around.purging.insert(order.id, around.purge_steps);
        }
    }
    Ok(Removed {
        gone: !around.purging.contains_key(&order.id),
        freed_bytes: 0,
    })
}

fn read_chains(
    vm: VmId,
    hypervisor: &FakeHypervisor,
    volumes: &Volumes,
) -> Result<hosts::VmChains, Problem> {
    let read = answered(chains::read(vm, None, hypervisor, volumes))?;
    let state = match read.state {
        hypervisor::VmState::Running => hosts::VmState::Running,
        hypervisor::VmState::Paused => hosts::VmState::Paused,
        hypervisor::VmState::ShutOff => hosts::VmState::ShutOff,
    };
    Ok(hosts::VmChains {
        state: Some(state),
        chains: read.chains.into_iter().map(chain).collect(),
        unsupported: vec![],
    })
}

fn chain(chain: chains::Chain) -> hosts::Chain {
    let layer = |layer: chains::ChainLayer| hosts::Layer {
        mark: layer.volume.map(|known| Mark {
            volume: known.volume,
            identity: known.identity,
        }),
        locator: layer.locator.to_string(),
        format: hosts::LayerFormat::Qcow2,
        virtual_bytes: 0,
        allocated_bytes: 0,
        shared_with: layer.shared_with,
    };
    hosts::Chain {
        disk: chain.disk,
        layers: chain.layers.into_iter().map(layer).collect(),
        job_running: chain.job_running,
        libvirt_snapshots: chain.kept_snapshots,
    }
}

fn overlay_order(order: hosts::OverlayOrder) -> overlays::OverlayOrder {
    let overlays = order.overlays.into_iter().map(|new| overlays::NewOverlay {
        disk: new.disk,
        below: new.below,
        overlay: new.overlay,
    });
    overlays::OverlayOrder {
        request: order.request,
        vm: order.vm,
        overlays: overlays.collect(),
        // No guest of this host has an agent.
        quiesce: Quiesce::Never,
    }
}

fn merge_order(order: hosts::MergeOrder, generation: u64) -> MergeOrder {
    let mark = |mark: Mark| VolumeMark {
        volume: mark.volume,
        identity: mark.identity,
    };
    MergeOrder {
        id: order.id,
        generation,
        vm: order.vm,
        disk: order.disk,
        direction: match order.direction {
            snapshot::Direction::Commit => Direction::Commit,
            snapshot::Direction::Pull => Direction::Pull,
        },
        kept: mark(order.kept),
        removed: order.removed.into_iter().map(mark).collect(),
        together: vec![order.id],
        bytes_per_second: order.bytes_per_second,
        // Nobody here writes so much that a merge could not end without one.
        spare: None,
    }
}

/// As the server takes a problem that its agent answers with.
fn no(problem: Problem) -> Answer {
    Answer::Error(if is_a_no(problem.reason) {
        HostError::Refused(problem)
    } else {
        HostError::Unknown(problem)
    })
}
