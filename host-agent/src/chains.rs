//! The chains of a machine's disks, as the hypervisor has them now and storage knows their layers.

use crate::hypervisor::{
    DiskView, Hypervisor, HypervisorError, Layer, UnsupportedDisk, VmState, VmView,
};
use crate::volumes::{Volumes, unanswered};
use livemerge_proto::ids::{DiskTarget, VmId};
use livemerge_proto::{problem::Problem, reason::Reason};
use livemerge_storage::{Format, Identity, Locator, VolumeInfo, VolumeRef};

/// The chains of a machine's disks, and what it did in the same look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmChains {
    /// What the machine did.
    pub state: VmState,
    /// One a disk that can be merged.
    pub chains: Vec<Chain>,
    /// The other disks that were asked for.
    pub unsupported: Vec<UnsupportedDisk>,
}

/// One disk's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The disk's target name.
    pub disk: DiskTarget,
    /// Base first, active layer last.
    pub layers: Vec<ChainLayer>,
    /// Whether a block job runs on the disk.
    pub job_running: bool,
    /// The hypervisor's own snapshots of the disk: their metadata name layers of the chain.
    pub kept_snapshots: Vec<String>,
    /// Whether what the guest discards is given back by the images.
    pub discards: bool,
}

impl Chain {
    fn locators(&self) -> impl Iterator<Item = Locator> {
        self.layers.iter().map(|layer| layer.locator.clone())
    }
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
    /// Whether nobody reads its data without a key.
    pub encrypted: bool,
    /// The names of the dirty bitmaps that it keeps.
    pub bitmaps: Vec<String>,
}

/// Reads the chains of a machine's disks, or of one of them, and what the machine does meanwhile.
///
/// # Errors
/// `VM_NOT_FOUND`, `DISK_NOT_FOUND`, `HYPERVISOR_UNREACHABLE`; a storage that cannot tell what is
/// built on what is an error too.
pub async fn read(
    vm: VmId,
    disk: Option<&DiskTarget>,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<VmChains, Problem> {
    let mut read = read_bare(vm, disk, hypervisor, volumes).await?;
    let layers: Vec<_> = read.chains.iter().flat_map(Chain::locators).collect();
    let built_on = volumes.built_on(&layers).await?;
    let kept = hypervisor.kept_snapshots(vm).await;
    let kept = kept.map_err(|error| vm_error(vm, &error))?;
    for chain in &mut read.chains {
        let of_disk = kept.iter().filter(|snapshot| snapshot.is_of(&chain.disk));
        chain.kept_snapshots = of_disk.map(|snapshot| snapshot.name.clone()).collect();
        let own: Vec<_> = chain.locators().collect();
        for layer in &mut chain.layers {
            layer.shared_with = built_on.sharers(&layer.locator, &own, volumes);
        }
    }
    Ok(read)
}

/// The same without what else is built on the layers, for who does not decide by it.
///
/// # Errors
/// As [`read`], but for storage that cannot tell what is built on what.
pub(crate) async fn read_bare(
    vm: VmId,
    disk: Option<&DiskTarget>,
    hypervisor: &dyn Hypervisor,
    volumes: &Volumes,
) -> Result<VmChains, Problem> {
    let view = hypervisor.vm(vm).await;
    let view = view.map_err(|error| vm_error(vm, &error))?;
    let wanted = |view: &&DiskView| disk.is_none_or(|wanted| view.target == *wanted);
    let mut chains = Vec::with_capacity(view.disks.len());
    for disk in view.disks.iter().filter(wanted) {
        let job_running = job_runs(&view, disk, hypervisor).await?;
        chains.push(describe(disk, job_running, volumes).await?);
    }
    let mut unsupported = view.unsupported;
    unsupported.retain(|other| disk.is_none_or(|wanted| other.target == *wanted));
    if let (Some(wanted), true) = (disk, chains.is_empty() && unsupported.is_empty()) {
        let text = format!("virtual machine {} has no disk {wanted}", view.name);
        return Err(Problem::new(Reason::DiskNotFound, text).with("disk", wanted));
    }
    Ok(VmChains {
        state: view.state,
        chains,
        unsupported,
    })
}

/// Whether a block job works on the disk. The definition shows only jobs that end in a pivot.
///
/// # Errors
/// As the hypervisor's, when that cannot be told.
pub(crate) async fn job_runs(
    vm: &VmView,
    disk: &DiskView,
    hypervisor: &dyn Hypervisor,
) -> Result<bool, Problem> {
    if disk.mirror.is_some() {
        return Ok(true);
    }
    let job = hypervisor.job(vm.id, &disk.target).await;
    job.map(|job| job.is_some())
        .map_err(|error| vm_error(vm.id, &error))
}

/// Nothing is begun on the disks of a machine that is on its way.
///
/// # Errors
/// `VM_MIGRATING`; as the hypervisor's, when it cannot be told.
pub(crate) async fn stays(vm: &VmView, hypervisor: &dyn Hypervisor) -> Result<(), Problem> {
    if vm.state == VmState::ShutOff {
        return Ok(());
    }
    let migrates = hypervisor.migrates(vm.id).await;
    if !migrates.map_err(|error| vm_error(vm.id, &error))? {
        return Ok(());
    }
    let text = format!("virtual machine {} is being migrated", vm.name);
    Err(Problem::new(Reason::VmMigrating, text).with("vm", vm.id))
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

/// The disk, with its chain.
///
/// # Errors
/// `STRATEGY_UNSUPPORTED` with the reason for one that can be neither merged nor given an overlay;
/// `DISK_NOT_FOUND`.
pub(crate) fn disk_of<'a>(vm: &'a VmView, disk: &DiskTarget) -> Result<&'a DiskView, Problem> {
    if let Some(found) = vm.disk(disk) {
        return Ok(found);
    }
    let unsupported = vm.unsupported.iter().find(|other| other.target == *disk);
    let (reason, text) = match unsupported {
        Some(found) => (
            Reason::StrategyUnsupported,
            format!("disk {disk} of virtual machine {} {}", vm.name, found.why),
        ),
        None => (
            Reason::DiskNotFound,
            format!("virtual machine {} has no disk {disk}", vm.name),
        ),
    };
    Err(Problem::new(reason, text).with("disk", disk))
}

/// A merge would write the data of an encrypted volume into one that is not, or with another key; an
/// overlay would get the guest's data unencrypted.
///
/// # Errors
/// `STRATEGY_UNSUPPORTED` for an encrypted volume.
pub(crate) fn readable(volume: &VolumeInfo) -> Result<(), Problem> {
    if !volume.encrypted {
        return Ok(());
    }
    let volume = &volume.volume;
    let text = format!("{volume} is encrypted: LiveMerge has no keys");
    Err(Problem::new(Reason::StrategyUnsupported, text).with("volume", volume))
}

async fn describe(disk: &DiskView, job_running: bool, volumes: &Volumes) -> Result<Chain, Problem> {
    let mut layers = Vec::with_capacity(disk.chain.len());
    for layer in &disk.chain {
        layers.push(describe_layer(layer, volumes).await?);
    }
    Ok(Chain {
        disk: disk.target.clone(),
        layers,
        job_running,
        kept_snapshots: Vec::new(),
        discards: disk.discards,
    })
}

async fn describe_layer(layer: &Layer, volumes: &Volumes) -> Result<ChainLayer, Problem> {
    let mut described = ChainLayer {
        locator: layer.locator.clone(),
        format: layer.format,
        volume: None,
        shared_with: Vec::new(),
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
                encrypted: info.encrypted,
                bitmaps: info.bitmaps,
            });
            Ok(described)
        }
        // QEMU has it open, but its name is gone: the layer is shown, and nothing can be done to it.
        Err(problem) if problem.reason == Reason::VolumeNotFound => Ok(described),
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::{BlockJobKind, JobOrder};
    use crate::rig::{Rig, vda};

    async fn chain(rig: &Rig, vm: VmId) -> Result<Chain, Problem> {
        let read = read(vm, Some(&vda()), &rig.host, &rig.volumes).await?;
        Ok(read.chains.into_iter().next().unwrap())
    }

    #[tokio::test]
    async fn the_state_is_that_of_the_same_look() {
        let rig = Rig::new().await;
        rig.volume("base.qcow2", None).await;
        let vm = rig.machine(1, &[rig.locator("base.qcow2")]);
        let state = async || read(vm, None, &rig.host, &rig.volumes).await.unwrap().state;
        assert_eq!(state().await, VmState::Running);
        rig.host.kill_vm(vm);
        assert_eq!(state().await, VmState::ShutOff);
    }

    #[tokio::test]
    async fn a_layer_is_shared_however_a_header_outside_names_it() {
        let rig = Rig::new().await;
        rig.volume("base.qcow2", None).await;
        rig.volume("top.qcow2", Some("base.qcow2")).await;
        let json = serde_json::json!({
            "driver": "qcow2",
            "file": {"driver": "file", "filename": rig.path("base.qcow2")},
        });
        for layers in [
            ["base.qcow2", "top.qcow2"].map(|name| rig.locator(name)),
            ["base.qcow2", "top.qcow2"].map(|name| rig.alias(name)),
        ] {
            let vm = rig.machine(1, &layers);
            assert_eq!(
                chain(&rig, vm).await.unwrap().layers[0].shared_with,
                [""; 0]
            );
            for backing in [
                rig.locator("base.qcow2").to_string(),
                rig.alias("base.qcow2").to_string(),
                "base.qcow2".to_owned(),
                format!("json:{json}"),
            ] {
                rig.foreign("clone", &backing);
                let seen = chain(&rig, vm).await.unwrap();
                let clone = rig.locator("clone").to_string();
                assert_eq!(seen.layers[0].shared_with, [clone], "{backing}");
                assert_eq!(seen.layers[1].shared_with, [""; 0], "{backing}");
                std::fs::remove_file(rig.path("clone")).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_chain_comes_with_what_its_machine_does() {
        let rig = Rig::new().await;
        let base = rig.volume("base.qcow2", None).await;
        let vm = rig.machine(1, &[base.locator]);
        let state = async || read(vm, None, &rig.host, &rig.volumes).await.unwrap().state;
        assert_eq!(state().await, VmState::Running);
        rig.host.kill_vm(vm);
        assert_eq!(state().await, VmState::ShutOff);
    }

    /// The definition marks only jobs that end in a pivot.
    #[tokio::test]
    async fn an_intermediate_commit_is_a_running_job() {
        let rig = Rig::new().await;
        let layers = ["a.qcow2", "b.qcow2", "c.qcow2"].map(|name| rig.locator(name));
        let vm = rig.machine(1, &layers);
        assert!(!chain(&rig, vm).await.unwrap().job_running);
        let order = JobOrder {
            disk: vda(),
            kind: BlockJobKind::Commit,
            base: Some(layers[0].clone()),
            top: layers[1].clone(),
            bytes_per_second: 0,
            merge: None,
        };
        rig.host.start_job(vm, &order).await.unwrap();
        assert!(chain(&rig, vm).await.unwrap().job_running);
        let error = HypervisorError::Unknown("hangs".to_owned());
        rig.host.fail_next("job", error);
        let unknown = chain(&rig, vm).await.unwrap_err();
        assert_eq!(unknown.reason, Reason::HypervisorUnreachable);
    }

    /// Somebody copies an image into the domain: a moment later it can be read.
    #[tokio::test]
    async fn an_image_that_cannot_be_read_is_no_no() {
        let rig = Rig::new().await;
        rig.volume("base.qcow2", None).await;
        let vm = rig.machine(1, &[rig.locator("base.qcow2")]);
        std::fs::write(rig.path("half"), b"QFI\xfb\0\0\0\x03").unwrap();
        let waits = chain(&rig, vm).await.unwrap_err();
        assert_eq!(waits.reason, Reason::StorageUnreachable);
        let file = rig.locator("half").to_string();
        assert!(waits.message.contains(&file), "{}", waits.message);
        rig.foreign("half", "other.qcow2");
        chain(&rig, vm).await.unwrap();
        // A layer of the chain itself is another matter.
        std::fs::write(rig.path("base.qcow2"), b"QFI\xfb\0\0\0\x03").unwrap();
        let corrupt = chain(&rig, vm).await.unwrap_err();
        assert_eq!(corrupt.reason, Reason::ChainCorrupt);
    }
}
