//! The rigs that LiveMerge is tested on, and the suites that run on them (`tests/`).
//!
//! - [`guest`]: a real guest on QEMU that writes and says which writes were acknowledged.
//! - [`virsh`]: starts and ends it under libvirt without a daemon.
//! - [`saved`]: spares it the boot, which one like it has had.
//! - [`rig`]: owns all that a test starts, and leaves nothing behind.
//! - [`filesystem`], [`disk`], [`protection`]: what is full, goes bad, or may not be written.
//! - [`services`]: the two real services as processes; [`api`]: calls to them.
//! - [`groups`], [`objects`]: images that are logical volumes, or objects on an S3 server.
//! - [`proxy`]: a proxy of HTTP/2 before a service.
//! - [`relay`]: a line between the services that can be cut; [`answers`]: one that loses an answer.
//! - [`journal`]: the agent's journal, read from outside.
//! - [`scene`]: a guest, both services and their clients, together.
//! - [`kills`]: processes killed at many moments of a merge.
//! - [`power`]: the host's power cut at many moments, with what its disks had not flushed.
//! - [`cluster`]: both services in one process, with a scripted hypervisor.
//! - [`scripted`]: a host with a scripted hypervisor, for the API server's process.
//! - [`simulation`]: both state machines in a simulated world, by seeds.
//! - [`sweep`]: every fault at every step of it.
//! - [`demo`]: what `make demo` shows.
//! - [`bench`]: what `make bench` measures; [`qmp`]: QEMU without libvirt.

pub mod answers;
pub mod api;
pub mod bench;
pub mod clock;
pub mod cluster;
pub mod daemon;
pub mod demo;
pub mod disk;
pub mod filesystem;
pub mod groups;
pub mod guest;
pub mod journal;
pub mod kills;
pub mod objects;
pub mod power;
pub mod process;
pub mod protection;
pub mod proxy;
pub mod qmp;
pub mod relay;
pub mod rig;
pub mod saved;
pub mod scene;
pub mod scripted;
pub mod services;
pub mod simulation;
pub mod sweep;
pub mod virsh;
