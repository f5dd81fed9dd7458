//! The fake's side of the port: note the call, go wrong as planned, or act.

use async_trait::async_trait;
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_storage::Locator;
use std::time::Duration;
use tokio::sync::broadcast;

use super::machine::Machine;
use super::script::{Call, Fault};
use super::{FakeHypervisor, Host, Pace};
use crate::hypervisor::{
    BlockJobKind, BlockJobOutcome, Fill, Hypervisor, HypervisorError, HypervisorEvent, JobOrder,
    JobProgress, KeptSnapshot, Layer, Overlay, Reference, VmState, VmView,
};

type Answer<T> = Result<T, HypervisorError>;

impl FakeHypervisor {
    fn answer<T>(&self, call: Call, act: impl FnOnce(&mut Host) -> Answer<T>) -> Answer<T> {
        let unknown = |why: &str| HypervisorError::Unknown(why.to_owned());
        let mut host = self.host();
        let fault = host.script.begin(call);
        if !host.connected {
            return Err(unknown("not connected"));
        }
        match fault {
            None => act(&mut host),
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::LoseReply) => {
                let _ = act(&mut host);
                Err(unknown("the reply was lost"))
            }
        }
    }

    /// Moves a disk's job on by itself, until it ends or its QEMU does.
    fn keep_pace(&self, vm: VmId, disk: &DiskTarget) {
        let Pace::Every(time) = self.pace else { return };
        let (host, disk) = (self.clone(), disk.clone());
        tokio::spawn(async move {
            while host.with_disk(vm, &disk, |disk, _| disk.job.is_some()) == Some(true) {
                tokio::time::sleep(time).await;
                host.advance(vm, &disk, usize::MAX);
                if host.switch(vm, &disk) {
                    host.notice(vm, &disk);
                }
            }
        });
    }

    fn set_state(&self, vm: VmId, call: Call, state: VmState) -> Answer<()> {
        let done = self.answer(call, |host| {
            let machine = running(host.machine(vm)?)?;
            machine.suspended = state == VmState::Paused;
            machine.set_state(state);
            Ok(())
        });
        self.tell(HypervisorEvent::Lifecycle { vm });
        done
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn vms(&self) -> Answer<Vec<VmView>> {
        self.answer(Call::Vms, |host| {
            let machines = host.machines.values();
            let views = machines.map(|machine| machine.view(&self.images));
            Ok(views.map(|view| host.with_unsupported(view)).collect())
        })
    }

    async fn vm(&self, vm: VmId) -> Answer<VmView> {
        self.answer(Call::Vm(vm), |host| {
            let view = host.machine(vm)?.whole_view(&self.images)?;
            Ok(host.with_unsupported(view))
        })
    }

    async fn job(&self, vm: VmId, disk: &DiskTarget) -> Answer<Option<JobProgress>> {
        self.answer(Call::Job(vm, disk.clone()), |host| {
            Ok(host.machine(vm)?.disk(disk)?.progress())
        })
    }

    async fn migrates(&self, vm: VmId) -> Answer<bool> {
        self.answer(Call::Migrates(vm), |host| Ok(host.migrating.contains(&vm)))
    }

    async fn add_overlays(&self, vm: VmId, overlays: &[Overlay]) -> Answer<()> {
        let put_on = self.answer(Call::AddOverlays(vm, overlays.to_vec()), |host| {
            host.stays(vm)?;
            let machine = host.machine(vm)?;
            machine.refresh(&self.images)?;
            // All or none.
            for overlay in overlays {
                let disk = machine.disk(&overlay.disk)?;
                if disk.job.is_some() {
                    let text = format!("disk {}: a block job runs", overlay.disk);
                    return Err(HypervisorError::Refused(text));
                }
                let below = self.images.backing(&overlay.locator);
                let on_top = disk.active() == &overlay.locator;
                if !on_top && below.as_ref() != Some(disk.active()) {
                    let text = format!("disk {}: no overlay of the active layer", overlay.disk);
                    return Err(HypervisorError::Refused(text));
                }
            }
            for overlay in overlays {
                let disk = machine.disk(&overlay.disk)?;
                if disk.active() != &overlay.locator {
                    disk.push(&overlay.locator);
                }
            }
            Ok(())
        });
        self.tell(HypervisorEvent::Filling { vm });
        put_on
    }

    async fn start_job(&self, vm: VmId, order: &JobOrder) -> Answer<()> {
        self.answer(Call::StartJob(vm, order.clone()), |host| {
            host.stays(vm)?;
            let machine = host.machine(vm)?;
            if order.kind == BlockJobKind::Offline {
                off(machine)?.refresh(&self.images)?;
            } else {
                running(machine)?;
            }
            machine.disk(&order.disk)?.start_job(order, &self.images)?;
            self.keep_pace(vm, &order.disk);
            Ok(())
        })
    }

    async fn pivot(&self, vm: VmId, disk: &DiskTarget) -> Answer<()> {
        self.answer(Call::Pivot(vm, disk.clone()), |host| {
            running(host.machine(vm)?)?.disk(disk)?.ask_pivot()
        })
    }

    async fn abort_job(&self, vm: VmId, disk: &DiskTarget) -> Answer<()> {
        let call = Call::AbortJob(vm, disk.clone());
        let ended = self.answer(call, |host| host.machine(vm)?.disk(disk)?.abort_job());
        if ended.is_ok() {
            self.tell_job(vm, disk, Some(BlockJobOutcome::Cancelled));
        }
        ended
    }

    async fn set_speed(&self, vm: VmId, disk: &DiskTarget, bytes_per_second: u64) -> Answer<()> {
        let call = Call::SetSpeed(vm, disk.clone(), bytes_per_second);
        self.answer(call, |host| {
            host.machine(vm)?.disk(disk)?.set_speed(bytes_per_second)
        })
    }

    async fn write_limit(&self, vm: VmId, disk: &DiskTarget) -> Answer<u64> {
        let call = Call::WriteLimit(vm, disk.clone());
        self.answer(call, |host| {
            Ok(running(host.machine(vm)?)?.disk(disk)?.write_limit)
        })
    }

    async fn limit_writes(&self, vm: VmId, disk: &DiskTarget, bytes_per_second: u64) -> Answer<()> {
        let call = Call::LimitWrites(vm, disk.clone(), bytes_per_second);
        self.answer(call, |host| {
            running(host.machine(vm)?)?.disk(disk)?.write_limit = bytes_per_second;
            Ok(())
        })
    }

    async fn restore_backing(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        image: &Locator,
        backing: &Layer,
    ) -> Answer<()> {
        let (image, backing) = (image.clone(), backing.locator.clone());
        let call = Call::RestoreBacking(vm, disk.clone(), image.clone(), backing.clone());
        self.answer(call, |host| {
            let disk = off(host.machine(vm)?)?.disk(disk)?;
            for needed in [&image, &backing] {
                if !self.images.exists(needed) {
                    let text = format!("{needed} does not exist");
                    return Err(HypervisorError::Refused(text));
                }
            }
            self.images.rebase(&image, Some(&backing));
            disk.lacks_data = false;
            Ok(())
        })
    }

    async fn set_next_start(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        removed: &[Locator],
        kept: &Locator,
    ) -> Answer<()> {
        let call = Call::SetNextStart(vm, disk.clone(), kept.clone());
        self.answer(call, |host| {
            let disk = running(host.machine(vm)?)?.disk(disk)?;
            if removed.contains(&disk.next_start) {
                disk.next_start = kept.clone();
            }
            Ok(())
        })
    }

    async fn fill(&self, vm: VmId) -> Answer<Fill> {
        self.answer(
            Call::Fill(vm),
            |host| Ok(running(host.machine(vm)?)?.fill()),
        )
    }

    async fn watch_fill(
        &self,
        vm: VmId,
        disk: &DiskTarget,
        layer: &Locator,
        bytes: u64,
    ) -> Answer<()> {
        let call = Call::WatchFill(vm, disk.clone(), layer.clone(), bytes);
        self.answer(call, |host| {
            running(host.machine(vm)?)?.watch_fill(layer, bytes);
            Ok(())
        })
    }

    async fn suspend(&self, vm: VmId) -> Answer<()> {
        self.set_state(vm, Call::Suspend(vm), VmState::Paused)
    }

    fn keep_suspended(&self, vm: VmId) {
        if let Some(machine) = self.host().machines.get_mut(&vm) {
            machine.suspended = machine.state == VmState::Paused;
        }
    }

    async fn resume(&self, vm: VmId) -> Answer<()> {
        self.set_state(vm, Call::Resume(vm), VmState::Running)
    }

    async fn resume_if_lacks_room(&self, vm: VmId) -> Answer<()> {
        let resumed = self.answer(Call::ResumeIfLacksRoom(vm), |host| {
            let machine = running(host.machine(vm)?)?;
            if machine.lacks_room() {
                machine.set_state(VmState::Running);
            }
            Ok(())
        });
        self.tell(HypervisorEvent::Lifecycle { vm });
        resumed
    }

    async fn freeze_guest(&self, vm: VmId, _answer: Duration) -> Answer<usize> {
        self.answer(Call::FreezeGuest(vm), |host| {
            host.machine(vm)?.freeze_guest()
        })
    }

    async fn thaw_guest(&self, vm: VmId, _answer: Duration) -> Answer<usize> {
        self.answer(Call::ThawGuest(vm), |host| host.machine(vm)?.thaw_guest())
    }

    async fn references(&self, locators: &[Locator]) -> Answer<Vec<Vec<Reference>>> {
        self.answer(Call::References(locators.to_vec()), |host| {
            let naming = |locator: &Locator| {
                let named = host.machines.values().flat_map(|machine| {
                    let disks = machine.disks.iter();
                    let disks = disks.filter(|disk| {
                        let chain = machine.chain(disk, &self.images).unwrap_or_default();
                        chain.contains(locator) || disk.next_start == *locator
                    });
                    disks.map(|disk| Reference {
                        vm: machine.id,
                        name: machine.name.clone(),
                        disk: disk.target.clone(),
                    })
                });
                named.collect()
            };
            Ok(locators.iter().map(naming).collect())
        })
    }

    async fn kept_snapshots(&self, vm: VmId) -> Answer<Vec<KeptSnapshot>> {
        self.answer(Call::KeptSnapshots(vm), |host| {
            host.machine(vm)?;
            Ok(host.kept.get(&vm).cloned().unwrap_or_default())
        })
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }

    fn connected(&self) -> bool {
        self.host().connected
    }

    fn uri(&self) -> &str {
        "fake:///host"
    }
}

fn running(machine: &mut Machine) -> Answer<&mut Machine> {
    if machine.state == VmState::ShutOff {
        return Err(HypervisorError::Refused(
            "the machine does not run".to_owned(),
        ));
    }
    Ok(machine)
}

fn off(machine: &mut Machine) -> Answer<&mut Machine> {
    if machine.state == VmState::ShutOff {
        return Ok(machine);
    }
    Err(HypervisorError::Refused("the machine runs".to_owned()))
}
