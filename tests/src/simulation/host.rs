//! What happens on the host: to the guest, its machine, its jobs and its storage.

use livemerge_proto::ids::DiskTarget;
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use super::event::Did;
use super::guest::BLOCKS;
use super::schedule::Seen;
use super::world::World;

impl World {
    pub(super) fn guest_writes(&mut self) -> Did {
        let disk = self.disks[self.rng.random_range(0..self.disks.len())].clone();
        let block = self.rng.random_range(0..BLOCKS);
        let value = self.guest.next_value();
        let done = self.hypervisor.guest_write(self.vm, &disk, block, value);
        if done {
            self.guest.acknowledge(&disk, block, value);
        }
        Did::something((disk, block, value, done))
    }

    pub(super) fn a_job_copies(&mut self) -> Did {
        let blocks = self.rng.random_range(1..=3);
        self.of_a_job(|world, disk| world.hypervisor.advance(world.vm, disk, blocks))
    }

    pub(super) fn qemu_switches(&mut self) -> Did {
        self.of_a_job(|world, disk| {
            world.hypervisor.switch(world.vm, disk);
        })
    }

    pub(super) fn libvirt_notices(&mut self) -> Did {
        self.of_a_job(|world, disk| world.hypervisor.notice(world.vm, disk))
    }

    pub(super) fn a_job_fails(&mut self) -> Did {
        self.of_a_job(|world, disk| world.hypervisor.fail_job(world.vm, disk))
    }

    pub(super) fn a_job_is_cancelled(&mut self) -> Did {
        self.of_a_job(|world, disk| world.hypervisor.cancel_job(world.vm, disk))
    }

    /// Something happens to one of the jobs.
    fn of_a_job(&mut self, happens: impl FnOnce(&Self, &DiskTarget)) -> Did {
        let Some((disk, before)) = self.jobs.choose(&mut self.rng).cloned() else {
            return Did::nothing("no job runs");
        };
        happens(self, &disk);
        let after = self.hypervisor.running_job(self.vm, &disk);
        Did::something((disk, before, after))
    }

    pub(super) fn qemu_dies(&mut self, seen: &mut Seen) -> Did {
        for (_, job) in &self.jobs {
            seen.count(match (job.switched, job.asked) {
                (true, _) => "QEMU dies after its switch, before anybody knows",
                (_, true) => "QEMU dies with a pivot on its way",
                _ => "QEMU dies in a copy",
            });
        }
        if self.pull_has_ended() {
            seen.count("QEMU dies with what it has pulled in its memory alone");
        }
        self.hypervisor.kill_vm(self.vm);
        Did::something("")
    }

    /// For the rest of the run.
    pub(super) fn machine_is_shut_off(&mut self) -> Did {
        self.stays_off = true;
        self.hypervisor.kill_vm(self.vm);
        Did::something("")
    }

    pub(super) fn operator(&mut self, pauses: bool) -> Did {
        self.paused_by_operator |= pauses;
        self.hypervisor.set_paused(self.vm, pauses);
        Did::something("")
    }

    pub(super) fn libvirt_goes(&mut self) -> Did {
        self.hypervisor.disconnect();
        Did::something("")
    }

    pub(super) fn libvirt_comes(&mut self) -> Did {
        self.hypervisor.connect();
        Did::something("")
    }

    /// A condemned volume is a step nearer to its end.
    pub(super) fn storage_frees(&mut self) -> Did {
        if let Some(mut entry) = self.purging.first_entry() {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        Did::nothing(&self.purging)
    }
}
