//! The libvirt domain of a guest: direct kernel boot, virtio disks, a serial console in a file.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use livemerge_storage::{NbdAddress, NbdServer};
use quick_xml::escape::escape;
use uuid::Uuid;

use super::image::GuestImage;

/// The work of a guest that is to be saved.
const HOLD: &str = "hold";

/// Who runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// QEMU's emulation: slow, and runs everywhere.
    Tcg,
    /// The processor: needs a /dev/kvm on which a guest really boots.
    Kvm,
}

/// The format of a disk's active image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU's format, which knows overlays.
    Qcow2,
    /// The disk's bytes alone.
    Raw,
}

impl Format {
    /// The name that QEMU and libvirt use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// One disk of a guest.
#[derive(Debug, Clone)]
pub struct DiskSpec {
    /// The guest's name of the disk: `vda`, `vdb`, ...
    pub target: String,
    /// The active image: a file, or the URI of an NBD export.
    pub path: PathBuf,
    /// The active image's format.
    pub format: Format,
}

/// What the guest does with each of its disks.
///
/// Records go to the first `slots` blocks of 4 KiB. The fill and the background go behind them,
/// without acknowledgement: they only give the overlays weight.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Blocks that the records go round in.
    pub slots: u64,
    /// Written once after the boot, in MiB.
    pub fill_mib: u64,
    /// Written from then on, in KiB a second; 0 for nothing.
    pub background_kib: u64,
    /// The most records in a second; 0 for as many as the disk takes.
    pub rate: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            slots: 1024,
            fill_mib: 0,
            background_kib: 0,
            rate: 0,
        }
    }
}

impl Workload {
    fn words(&self) -> String {
        format!(
            "slots={} fill={} background={} rate={}",
            self.slots, self.fill_mib, self.background_kib, self.rate
        )
    }
}

/// The agent in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// What it is like.
    pub manner: Manner,
    /// The disk that has a file system, which it can freeze.
    pub files: String,
    /// The Unix socket by which libvirt talks to it.
    pub socket: PathBuf,
}

/// What an agent is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It does what it is asked.
    Answers,
    /// It is there and says nothing.
    Silent,
}

impl Agent {
    fn words(&self) -> String {
        let manner = match self.manner {
            Manner::Answers => "answers",
            Manner::Silent => "silent",
        };
        format!(" files={} agent={manner}", self.files)
    }
}

/// A guest, as far as libvirt has to know it.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// The domain's name.
    pub name: String,
    /// The domain's id.
    pub uuid: Uuid,
    /// The disks, in the guest's order.
    pub disks: Vec<DiskSpec>,
    /// The file that receives the serial console. It is appended to, so that the acknowledgements
    /// of several boots follow each other.
    pub serial_log: PathBuf,
    /// What the guest boots.
    pub image: GuestImage,
    /// What the guest does.
    pub workload: Workload,
    /// The guest's memory in MiB.
    pub memory_mib: u64,
    /// Who runs it.
    pub driver: Driver,
    /// A second monitor, on this Unix socket, beside libvirt's own.
    pub monitor: Option<PathBuf>,
    /// The agent in it. It must boot an image that has one.
    pub agent: Option<Agent>,
    /// Whether it writes numbers on its first two disks in turn, too: see [`super::pairs`].
    pub pairs: bool,
    /// How each start of it begins.
    pub begins: Begins,
}

/// How a guest's start begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begins {
    /// It boots, which takes an emulated one seconds.
    Booting,
    /// It boots, and then holds, to be saved.
    Holding,
    /// It is in the memory that one like it was saved with: see [`crate::saved`].
    Saved(PathBuf),
}

impl GuestSpec {
    /// The domain XML. QEMU runs as the user that runs libvirt; a guest that crashes, reboots or
    /// goes off is gone.
    pub fn xml(&self) -> String {
        let kind = match self.driver {
            Driver::Tcg => "qemu",
            Driver::Kvm => "kvm",
        };
        // Emulated, whatever guards against other guests of the processor is time alone.
        let command_line = "console=ttyS0 quiet loglevel=1 panic=-1 tsc=reliable no_timer_check \
             mitigations=off nokaslr";
        format!(
            "<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>{command_line}</cmdline>
  </os>
  <sysinfo type='fwcfg'>
    <entry name='opt/livemerge.work'>{work}</entry>
  </sysinfo>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <seclabel type='none'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
{disks}    <serial type='file'>
      <source path='{serial}' append='on'/>
    </serial>
{agent}    <memballoon model='none'/>
  </devices>
{arguments}</domain>
",
            name = escape(&self.name),
            uuid = self.uuid,
            memory = self.memory_mib,
            kernel = text(&self.image.kernel),
            initrd = text(&self.image.initrd),
            disks = self.disks.iter().map(disk_xml).collect::<String>(),
            serial = text(&self.serial_log),
            agent = self.agent.as_ref().map(agent_xml).unwrap_or_default(),
            work = self.work(),
            arguments = self.arguments(),
        )
    }
}

impl GuestSpec {
    /// What it reads when it has booted.
    fn work(&self) -> String {
        if matches!(self.begins, Begins::Holding) {
            return HOLD.to_owned();
        }
        let agent = self.agent.as_ref().map(Agent::words).unwrap_or_default();
        let pairs = if self.pairs { " pairs=yes" } else { "" };
        format!("{}{agent}{pairs} end", self.workload.words())
    }

    /// What libvirt does not know of.
    fn arguments(&self) -> String {
        let mut arguments = Vec::new();
        if let Some(socket) = &self.monitor {
            let socket = socket.display();
            arguments.push("-chardev".to_owned());
            arguments.push(format!("socket,id=second,path={socket},server=on,wait=off"));
            arguments.push("-mon".to_owned());
            arguments.push("chardev=second,mode=control".to_owned());
        }
        if let Begins::Saved(file) = &self.begins {
            arguments.push("-incoming".to_owned());
            arguments.push(format!("exec:exec cat '{}'", file.display()));
        }
        if arguments.is_empty() {
            return String::new();
        }
        let argument = |value: &String| format!("    <qemu:arg value='{}'/>\n", escape(value));
        let arguments: String = arguments.iter().map(argument).collect();
        format!("  <qemu:commandline>\n{arguments}  </qemu:commandline>\n")
    }
}

fn disk_xml(disk: &DiskSpec) -> String {
    if let Ok(address) = disk.path.to_string_lossy().parse::<NbdAddress>() {
        return export_xml(disk, &address);
    }
    let (kind, source) = match disk.path.starts_with("/dev") {
        true => ("block", "dev"),
        false => ("file", "file"),
    };
    format!(
        "    <disk type='{kind}' device='disk'>
      <driver name='qemu' type='{format}' cache='{cache}' discard='ignore'/>
      <source {source}='{path}'/>
      <target dev='{target}' bus='virtio'/>
    </disk>
",
        format = disk.format.name(),
        cache = if takes_direct_io(&disk.path) {
            "none"
        } else {
            "writeback"
        },
        path = text(&disk.path),
        target = escape(&disk.target),
    )
}

/// libvirt does not look into an export, so it is told that nothing lies below.
fn export_xml(disk: &DiskSpec, address: &NbdAddress) -> String {
    let NbdServer::Unix(socket) = &address.server else {
        unreachable!("exports of a rig are on Unix sockets");
    };
    format!(
        "    <disk type='network' device='disk'>
      <driver name='qemu' type='{format}' cache='none' discard='ignore'/>
      <source protocol='nbd' name='{export}'>
        <host transport='unix' socket='{socket}'/>
        <reconnect delay='300'/>
      </source>
      <backingStore/>
      <target dev='{target}' bus='virtio'/>
    </disk>
",
        format = disk.format.name(),
        export = escape(&address.export),
        socket = escape(socket),
        target = escape(&disk.target),
    )
}

fn agent_xml(agent: &Agent) -> String {
    format!(
        "    <channel type='unix'>
      <source mode='bind' path='{}'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
",
        text(&agent.socket)
    )
}

fn text(path: &Path) -> String {
    escape(path.to_string_lossy()).into_owned()
}

/// Whether the file system of an image takes O_DIRECT; tmpfs of older kernels does not.
fn takes_direct_io(path: &Path) -> bool {
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    OpenOptions::new()
        .read(true)
        .custom_flags(direct)
        .open(path)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> GuestSpec {
        GuestSpec {
            name: "a & b".into(),
            uuid: Uuid::nil(),
            disks: vec![DiskSpec {
                target: "vda".into(),
                path: "/missing/'a'.qcow2".into(),
                format: Format::Qcow2,
            }],
            serial_log: "/missing/serial".into(),
            image: GuestImage {
                kernel: "/k".into(),
                initrd: "/i".into(),
            },
            workload: Workload::default(),
            memory_mib: 96,
            driver: Driver::Tcg,
            monitor: None,
            agent: None,
            pairs: false,
            begins: Begins::Booting,
        }
    }

    #[test]
    fn names_and_paths_are_escaped() {
        let xml = spec().xml();
        assert!(xml.contains("<name>a &amp; b</name>"));
        assert!(xml.contains("<source file='/missing/&apos;a&apos;.qcow2'/>"));
    }

    #[test]
    fn a_device_is_a_block_source() {
        let mut spec = spec();
        spec.disks[0].path = "/dev/vg/a".into();
        assert!(spec.xml().contains("<disk type='block' device='disk'>"));
        assert!(spec.xml().contains("<source dev='/dev/vg/a'/>"));
    }

    #[test]
    fn an_image_that_cannot_be_opened_directly_is_cached() {
        assert!(spec().xml().contains("cache='writeback'"));
    }

    #[test]
    fn the_driver_is_the_domain_type() {
        let kvm = GuestSpec {
            driver: Driver::Kvm,
            ..spec()
        };
        assert!(spec().xml().starts_with("<domain type='qemu' "));
        assert!(kvm.xml().starts_with("<domain type='kvm' "));
    }
}
