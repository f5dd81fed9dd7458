//! The chains of a machine's disks, as the hypervisor has them now and storage knows their layers.

use crate::hypervisor::{DiskView, Hypervisor, HypervisorError, Layer};
use crate::volumes::{Children, Volumes, unanswered};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{Format, Identity, Locator, VolumeRef};

/// One disk's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// Base first, active layer last.
    pub layers: Vec<ChainLayer>,
    /// Whether a block job runs on the disk.
    pub job_running: bool,
}

/// One layer, with what storage knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainLayer {
    /// What QEMU has open.
    pub locator: Locator,
    /// Its format, as the definition or the header says.
    pub format: Option<Format>,
    /// The volume, when it lies in a storage domain of this host and could be read there.
    pub volume: Option<KnownVolume>,
    /// What outside this chain is built on it.
    pub shared_with: Vec<String>,
}

/// A layer's volume in its storage domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownVolume {
    /// Storage domain and name.
    pub volume: VolumeRef,
    /// Tells it from another volume of that name.
    pub identity: Identity,
    /// Size that the guest sees, in bytes.
    pub virtual_bytes: u64,
    /// Space taken in storage, in bytes.
    pub allocated_bytes: u64,
}

/// Reads the chains of a machine's disks, or of one of them.
///
/// # Errors
/// `VM_NOT_FOUND`, `DISK_NOT_FOUND`, `HYPERVISOR_UNREACHABLE`; a storage that cannot tell what is
/// built on what is an error too.
pub async fn read(
    vm: VmId,
    disk: Option<&DiskTarget>,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<Vec<Chain>, Problem> {
    let view = hypervisor
        .vm(vm)
        .await
        .map_err(|error| vm_error(vm, &error))?;
    let disks: Vec<&DiskView> = view
        .disks
        .iter()
        .filter(|view| disk.is_none_or(|wanted| view.target == *wanted))
        .collect();
    if let (Some(wanted), true) = (disk, disks.is_empty()) {
        let text = format!("virtual machine {} has no disk {wanted}", view.name);
        return Err(Problem::new(Reason::DiskNotFound, text).with("disk", wanted));
    }
    let children = volumes.children().await?;
    let mut chains = Vec::with_capacity(disks.len());
    for disk in disks {
        chains.push(describe(disk, &children, volumes).await?);
    }
    Ok(chains)
}

/// An error of the hypervisor about a machine that a caller named.
pub fn vm_error(vm: VmId, error: &HypervisorError) -> Problem {
    match error {
        HypervisorError::NotFound(_) => {
            let text = format!("virtual machine {vm} is not on this host");
            Problem::new(Reason::VmNotFound, text).with("vm", vm)
        }
        other => unanswered(other),
    }
}

async fn describe(
    disk: &DiskView,
    children: &Children,
    volumes: &Volumes,
) -> Result<Chain, Problem> {
    let mut layers = Vec::with_capacity(disk.chain.len());
    for layer in &disk.chain {
        let shared_with = children.sharers(&layer.locator, &disk.chain);
        layers.push(describe_layer(layer, shared_with, volumes).await?);
    }
    Ok(Chain {
        disk: disk.target.clone(),
        layers,
        job_running: disk.mirror.is_some(),
    })
}

async fn describe_layer(
    layer: &Layer,
    shared_with: Vec<String>,
    volumes: &Volumes,
) -> Result<ChainLayer, Problem> {
    let mut described = ChainLayer {
        locator: layer.locator.clone(),
        format: layer.format,
        volume: None,
        shared_with,
    };
    let Some(volume) = volumes.volume_of(&layer.locator) else {
        return Ok(described);
    };
    match volumes.stat(&volume).await {
        Ok(info) => {
            described.format = described.format.or(Some(info.format));
            described.volume = Some(KnownVolume {
                volume,
                identity: info.identity,
                virtual_bytes: info.virtual_bytes,
                allocated_bytes: info.allocated_bytes,
            });
            Ok(described)
        }
        // QEMU has it open, but its name is gone: the layer is shown, and nothing can be done to it.
        Err(problem) if problem.reason == Reason::VolumeNotFound => Ok(described),
        Err(problem) => Err(problem),
    }
}
