//! One disk of a definition, and its chain.

use livemerge_proto::ids::DiskTarget;
use livemerge_storage::{Format, Locator, NbdAddress, NbdServer};

use super::{Element, Unreadable};
use crate::hypervisor::{BlockJobKind, MirrorState};

/// A disk, CD-ROM or floppy with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hypervisor) struct Disk {
    pub(in crate::hypervisor) target: DiskTarget,
    /// What it is.
    pub(in crate::hypervisor) device: Device,
    /// The chain, base first.
    pub(in crate::hypervisor) chain: Vec<DiskLayer>,
    /// Whether the definition says that nothing lies below the base.
    pub(in crate::hypervisor) ends: bool,
    pub(in crate::hypervisor) mirror: Option<Mirror>,
    /// Layers whose headers say otherwise, where that was looked for.
    pub(in crate::hypervisor) astray: Vec<Locator>,
    /// Whether the guest's discards reach the images.
    pub(in crate::hypervisor) discards: bool,
}

/// What the guest takes a disk for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::hypervisor) enum Device {
    /// A disk, of which QEMU makes the content.
    Disk,
    /// A device of the host, which the guest speaks to itself.
    PassedThrough,
    /// A CD-ROM or a floppy.
    Removable,
}

/// One layer of a disk's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hypervisor) struct DiskLayer {
    pub(in crate::hypervisor) source: Source,
    pub(in crate::hypervisor) format: Option<Format>,
    /// libvirt's number of the layer while this QEMU lives.
    pub(in crate::hypervisor) index: Option<u32>,
    /// Where the data are, if not in the source itself.
    pub(in crate::hypervisor) data_store: Option<Source>,
    /// Whether nobody reads its data without a key.
    pub(in crate::hypervisor) encrypted: bool,
}

/// The mark of a running copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hypervisor) struct Mirror {
    pub(in crate::hypervisor) kind: BlockJobKind,
    pub(in crate::hypervisor) target: Source,
    pub(in crate::hypervisor) state: MirrorState,
}

/// What QEMU opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::hypervisor) enum Source {
    /// May be one of our volumes.
    Volume(Locator),
    /// Certainly not one of our volumes, but something of this kind.
    Elsewhere(String),
    /// It cannot be told what is opened, because of a source of this type.
    Unresolved(String),
}

impl Source {
    pub(in crate::hypervisor) fn locator(&self) -> Option<&Locator> {
        match self {
            Self::Volume(locator) => Some(locator),
            Self::Elsewhere(_) | Self::Unresolved(_) => None,
        }
    }
}

impl Disk {
    /// Everything that the disk has open.
    pub(in crate::hypervisor) fn sources(&self) -> impl Iterator<Item = &Source> {
        let layers = self
            .chain
            .iter()
            .flat_map(|layer| [Some(&layer.source), layer.data_store.as_ref()]);
        layers
            .flatten()
            .chain(self.mirror.as_ref().map(|mirror| &mirror.target))
    }

    /// Why no merge and no overlay can be about it; `None` when nothing speaks against it.
    pub(in crate::hypervisor) fn unsupported(&self) -> Option<String> {
        if self.device == Device::PassedThrough {
            return Some("is a device of the host that is passed through".to_owned());
        }
        self.chain.iter().find_map(DiskLayer::unsupported)
    }

    /// `None` for an empty drive.
    pub(super) fn parse(disk: &Element, live: bool) -> Result<Option<Self>, Unreadable> {
        let Some(source) = source(disk)? else {
            return Ok(None);
        };
        let target = disk
            .child("target")
            .and_then(|target| target.attribute("dev"));
        let target: DiskTarget = target
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| Unreadable::lacks("the target name of a disk"))?;
        let driver = |name| disk.child("driver")?.attribute(name);
        let active = DiskLayer {
            index: index(disk.child("source"))?,
            data_store: data_store(disk)?,
            format: driver("type").and_then(format_named),
            encrypted: encrypted(disk),
            source,
        };
        let device = match disk.attribute("device") {
            None | Some("disk") => Device::Disk,
            Some("lun") => Device::PassedThrough,
            Some(_) => Device::Removable,
        };
        let (chain, ends) = chain(disk, active, live)
            .map_err(|Unreadable(why)| Unreadable(format!("has a disk {target} that {why}")))?;
        let mirror = disk.child("mirror").map(Mirror::parse).transpose()?;
        Ok(Some(Self {
            target,
            device,
            chain,
            ends,
            mirror,
            astray: Vec::new(),
            discards: driver("discard") == Some("unmap"),
        }))
    }
}

impl DiskLayer {
    pub(in crate::hypervisor) fn unsupported(&self) -> Option<String> {
        match (&self.source, &self.data_store) {
            (Source::Elsewhere(kind), _) => Some(format!(
                "has a layer of the kind {kind}, which is neither file nor block device nor NBD export"
            )),
            (Source::Unresolved(kind), _) => Some(format!(
                "has a layer of the kind {kind}, of which libvirt does not say what is opened"
            )),
            (Source::Volume(layer), Some(_)) => Some(format!(
                "has the layer {layer}, whose data are kept in a second file"
            )),
            (Source::Volume(layer), None) if self.encrypted => {
                Some(format!("has the layer {layer}, which is encrypted"))
            }
            (Source::Volume(_), None) => None,
        }
    }
}

impl Mirror {
    fn parse(mirror: &Element) -> Result<Self, Unreadable> {
        let kind = match mirror.attribute("job") {
            Some("active-commit") => BlockJobKind::ActiveCommit,
            _ => BlockJobKind::Other,
        };
        let target = source(mirror)?.ok_or_else(|| Unreadable::lacks("the target of a copy"))?;
        Ok(Self {
            kind,
            target,
            state: match mirror.attribute("ready") {
                Some("yes") => MirrorState::Ready,
                Some("pivot") => MirrorState::Pivoting,
                _ => MirrorState::Copying,
            },
        })
    }
}

/// Walks down from the active layer; the base comes out first, and whether nothing is below it.
fn chain(
    disk: &Element,
    active: DiskLayer,
    live: bool,
) -> Result<(Vec<DiskLayer>, bool), Unreadable> {
    let mut layers = vec![active];
    let mut upper = disk;
    while let Some(backing) = upper.child("backingStore") {
        if backing.is_empty() {
            layers.reverse();
            return Ok((layers, true));
        }
        layers.push(layer(backing)?);
        upper = backing;
    }
    // A raw image has nothing below it. Of any other, a running machine's definition says where
    // the chain ends, so the chain was not read to its end.
    let ends = layers
        .last()
        .is_some_and(|lowest| lowest.format == Some(Format::Raw));
    if live && !ends {
        return Err(Unreadable::new("does not say where its chain ends"));
    }
    layers.reverse();
    Ok((layers, ends))
}

fn layer(backing: &Element) -> Result<DiskLayer, Unreadable> {
    let format = backing
        .child("format")
        .and_then(|format| format.attribute("type"));
    Ok(DiskLayer {
        source: source(backing)?.ok_or_else(|| Unreadable::lacks("the source of a layer"))?,
        format: format.and_then(format_named),
        index: index(Some(backing))?,
        data_store: data_store(backing)?,
        encrypted: encrypted(backing),
    })
}

/// What an element of the given `type` names in its `<source>`; `None` if it names nothing.
pub(super) fn source(element: &Element) -> Result<Option<Source>, Unreadable> {
    let Some(source) = element.child("source") else {
        return Ok(None);
    };
    let attribute = |name| source.attribute(name).filter(|value| !value.is_empty());
    let found = match element.attribute("type").unwrap_or("file") {
        "file" => attribute("file").map(|path| Source::Volume(Locator::File(path.into()))),
        "block" => attribute("dev").map(|path| Source::Volume(Locator::Block(path.into()))),
        "network" => Some(network(source)?),
        kind @ ("dir" | "nvme" | "vhostuser" | "vhostvdpa") => {
            Some(Source::Elsewhere(kind.to_owned()))
        }
        // Such as `volume`, of a libvirt pool: a file or device that is not named here.
        kind => Some(Source::Unresolved(kind.to_owned())),
    };
    Ok(found)
}

fn network(source: &Element) -> Result<Source, Unreadable> {
    match source.attribute("protocol") {
        Some("nbd") => {}
        Some(protocol) => return Ok(Source::Elsewhere(protocol.to_owned())),
        None => return Err(Unreadable::lacks("the protocol of a network disk")),
    }
    let host = source
        .child("host")
        .ok_or_else(|| Unreadable::lacks("the server of an NBD disk"))?;
    let server = match host.attribute("transport").unwrap_or("tcp") {
        "unix" => host
            .attribute("socket")
            .map(|path| NbdServer::Unix(path.to_owned())),
        "tcp" => host.attribute("name").map(|name| NbdServer::Tcp {
            host: name.to_owned(),
            port: host.attribute("port").map(str::to_owned),
        }),
        _ => None,
    };
    let address = NbdAddress {
        server: server.ok_or_else(|| Unreadable::lacks("the address of an NBD server"))?,
        export: source.attribute("name").unwrap_or_default().to_owned(),
        tls: source.attribute("tls") == Some("yes"),
    };
    Ok(Source::Volume(Locator::Nbd(address.to_string())))
}

/// A qcow2 layer can keep its data in a second image.
fn data_store(layer: &Element) -> Result<Option<Source>, Unreadable> {
    let Some(store) = layer.child("dataStore") else {
        return Ok(None);
    };
    source(store)?
        .map(Some)
        .ok_or_else(|| Unreadable::lacks("the source of a data store"))
}

/// Older definitions say it beside the source.
fn encrypted(layer: &Element) -> bool {
    let source = layer.child("source");
    let mut said = source.into_iter().chain([layer]);
    said.any(|element| element.child("encryption").is_some())
}

fn format_named(name: &str) -> Option<Format> {
    match name {
        "qcow2" => Some(Format::Qcow2),
        "raw" => Some(Format::Raw),
        _ => None,
    }
}

fn index(element: Option<&Element>) -> Result<Option<u32>, Unreadable> {
    let Some(text) = element.and_then(|element| element.attribute("index")) else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|_| Unreadable::new("has a layer whose index is not a number"))
}
