//! What a machine that is shut off would open: its definition says where a chain begins, and the
//! images' headers how it goes on.
//!
//! - What the definition writes down overrules the headers; only below that they are read. Where
//!   they say otherwise, that is told.
//! - An image that cannot be read is no end of a chain. Nor is one that is missing, but to who asks
//!   what is needed: what a missing image needed before it went, nobody can open through it.
//! - Storage that hangs takes a few threads at most.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use livemerge_storage::{Format, ImageHead, Locator, NbdAddress, StorageError};

use super::identity::Identity;
use crate::hypervisor::HypervisorError;
use crate::hypervisor::xml::{Definition, Device, Disk, DiskLayer, Source};

/// How long the headers of one chain may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How many chains may be read at once, those that hang included.
const AT_ONCE: usize = 64;
/// libvirt itself opens no longer chains.
const LONGEST: usize = 200;

/// What becomes of a chain one of whose images is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It cannot be told.
    Unknown,
    /// It ends there.
    Ends,
}

/// Completes a disk's chain. Blocks, for a limited time.
///
/// # Errors
/// Says why it cannot be told what the disk would open.
fn complete(disk: &mut Disk, missing: Missing) -> Result<(), String> {
    if disk.ends || !is_readable(disk) {
        return Ok(());
    }
    let chain = disk.chain.clone();
    let limited = limited(move || completed(chain, missing));
    disk.chain = limited.map_err(|why| format!("disk {}: {why}", disk.target))?;
    disk.ends = true;
    Ok(())
}

fn is_readable(disk: &Disk) -> bool {
    let lowest = disk.chain.first().map(|layer| &layer.source);
    disk.device == Device::Disk && matches!(lowest, Some(Source::Volume(_)))
}

/// An image with all that lies below it, as the headers alone say. Blocks, for a limited time.
pub(super) fn chain_of(image: &Locator, format: Format) -> Result<Vec<DiskLayer>, HypervisorError> {
    let youngest = DiskLayer {
        source: Source::Volume(image.clone()),
        ..layer(image.clone(), Some(format))
    };
    let chain = limited(move || completed(vec![youngest], Missing::Unknown));
    chain.map_err(HypervisorError::Unknown)
}

/// Looks which headers of a machine that is off say otherwise than its definition. Blocks, for a
/// limited time a disk.
pub(super) fn find_astray(machine: &mut Definition) -> Result<(), HypervisorError> {
    for disk in machine.disks.iter_mut().filter(|disk| is_readable(disk)) {
        let chain = disk.chain.clone();
        let found = limited(move || astray(&chain));
        let found = found.map_err(|why| format!("disk {}: {why}", disk.target));
        disk.astray = found.map_err(HypervisorError::Unknown)?;
    }
    Ok(())
}

/// Of the layers of a chain, those whose headers name other images than lie below them there.
/// What is raw has no header, and one that is missing says nothing.
fn astray(chain: &[DiskLayer]) -> Result<Vec<Locator>, String> {
    let mut astray = Vec::new();
    for pair in chain.windows(2) {
        let (Some(below), Some(layer)) = (pair[0].source.locator(), pair[1].source.locator())
        else {
            continue;
        };
        let head = match read(layer, pair[1].format) {
            Ok(Some(head)) => head,
            Ok(None) => continue,
            Err(StorageError::NotFound { .. }) => continue,
            Err(error) => return Err(said(&error)),
        };
        let identity = |of: &Locator| Identity::of(of).map_err(|error| format!("{of}: {error}"));
        let same = match &head.parent {
            Some(parent) => identity(&parent.locator)? == identity(below)?,
            None => false,
        };
        if !same {
            astray.push(layer.clone());
        }
    }
    Ok(astray)
}

/// Completes the chains of all disks of a machine that is shut off.
pub(super) fn complete_all(
    machine: &mut Definition,
    missing: Missing,
) -> Result<(), HypervisorError> {
    for disk in &mut machine.disks {
        complete(disk, missing).map_err(HypervisorError::Unknown)?;
    }
    Ok(())
}

/// Completes those that can be; the other disks are left out.
pub(super) fn complete_listed(machine: &mut Definition) {
    let (id, name) = (machine.id, &machine.name);
    machine.disks.retain_mut(|disk| {
        let read = complete(disk, Missing::Unknown);
        if let Err(error) = &read {
            tracing::warn!(vm = %id, %name, %error, "a disk is not listed");
        }
        read.is_ok()
    });
}

fn completed(mut chain: Vec<DiskLayer>, missing: Missing) -> Result<Vec<DiskLayer>, String> {
    let mut seen = Vec::new();
    loop {
        let lowest = chain.first_mut().ok_or("the chain is empty")?;
        let Source::Volume(locator) = &lowest.source else {
            return Ok(chain);
        };
        let identity = Identity::of(locator).map_err(|error| format!("{locator}: {error}"))?;
        if seen.len() >= LONGEST || seen.contains(&identity) {
            return Err(format!("{locator}: the chain has no end"));
        }
        let head = match read(locator, lowest.format) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(chain),
            Err(StorageError::NotFound { .. }) if missing == Missing::Ends => return Ok(chain),
            Err(error) => return Err(said(&error)),
        };
        seen.push(identity);
        lowest.encrypted |= head.encrypted;
        lowest.data_store = lowest.data_store.take().or(head
            .data_file
            .map(|path| Source::Volume(Locator::File(path))));
        let Some(parent) = head.parent else {
            return Ok(chain);
        };
        chain.insert(0, layer(parent.locator, parent.format));
    }
}

/// `None` when nothing lies below, whatever the image holds.
fn read(locator: &Locator, format: Option<Format>) -> Result<Option<ImageHead>, StorageError> {
    match locator {
        Locator::File(path) | Locator::Block(path) => ImageHead::read(path, format).map(Some),
        Locator::Nbd(_) if format == Some(Format::Raw) => Ok(None),
        Locator::Nbd(uri) => ImageHead::read_export(uri, format).map(Some),
    }
}

fn layer(locator: Locator, format: Option<Format>) -> DiskLayer {
    DiskLayer {
        source: named(locator),
        format,
        index: None,
        data_store: None,
        encrypted: false,
    }
}

/// Of a backing name that is no file's.
fn protocol(backing: &str) -> String {
    let (protocol, _) = backing.split_once(':').unwrap_or(("unknown", ""));
    protocol.to_owned()
}

/// As libvirt tells it once the machine runs.
fn named(locator: Locator) -> Source {
    match locator {
        Locator::File(path) => match Identity::of(&Locator::File(path.clone())) {
            Ok(Identity::Device(_)) => Source::Volume(Locator::Block(path)),
            _ => Source::Volume(Locator::File(path)),
        },
        Locator::Nbd(uri) => match uri.parse::<NbdAddress>() {
            Ok(address) => Source::Volume(Locator::Nbd(address.to_string())),
            // Some other protocol, or a description of several files.
            Err(_) => Source::Elsewhere(protocol(&uri)),
        },
        Locator::Block(path) => Source::Volume(Locator::Block(path)),
    }
}

/// Does the work on a thread of its own, which goes on when it takes too long.
fn limited<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    static BUSY: AtomicUsize = AtomicUsize::new(0);
    struct Busy;
    impl Drop for Busy {
        fn drop(&mut self) {
            BUSY.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let busy = Busy;
    if BUSY.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
        return Err("too many images do not answer".to_owned());
    }
    let (sender, receiver) = sync_channel(1);
    let started = thread::Builder::new()
        .name("image-headers".to_owned())
        .spawn(move || {
            // Nobody may wait any more.
            let _ = sender.send(work());
            drop(busy);
        });
    started.map_err(|error| error.to_string())?;
    match receiver.recv_timeout(LIMIT) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout) => Err("its images do not answer".to_owned()),
        Err(RecvTimeoutError::Disconnected) => Err("reading its images broke off".to_owned()),
    }
}

fn said(error: &StorageError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn image(dir: &Path, name: &str, below: Option<(&str, &str)>) {
        let mut create = Command::new("qemu-img");
        create
            .current_dir(dir)
            .args(["create", "-q", "-u", "-f", "qcow2"]);
        if let Some((below, format)) = below {
            create.args(["-F", format, "-b", below]);
        }
        let made = create.args([name, "1M"]).status();
        assert!(made.expect("qemu-img is needed here").success());
    }

    fn disk(dir: &Path, top: &str) -> Disk {
        let mut top = layer(Locator::File(dir.join(top)), Some(Format::Qcow2));
        top.index = None;
        Disk {
            target: "vda".parse().unwrap(),
            device: Device::Disk,
            chain: vec![top],
            ends: false,
            mirror: None,
            astray: Vec::new(),
            discards: false,
        }
    }

    fn chain(
        dir: &Path,
        top: &str,
        missing: Missing,
    ) -> Result<Vec<(String, Option<Format>)>, String> {
        let mut disk = disk(dir, top);
        complete(&mut disk, missing)?;
        assert!(disk.ends);
        let name = |layer: &DiskLayer| match &layer.source {
            Source::Volume(locator) => {
                let spelled = locator.to_string();
                let inside = spelled.strip_prefix(&format!("{}/", dir.display()));
                inside.unwrap_or(&spelled).to_owned()
            }
            other => format!("{other:?}"),
        };
        let layers = disk.chain.iter();
        Ok(layers.map(|layer| (name(layer), layer.format)).collect())
    }

    #[test]
    fn a_chain_goes_on_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::write(dir.join("raw"), [0; 512]).unwrap();
        image(dir, "b", Some(("raw", "raw")));
        image(dir, "c", Some(("b", "qcow2")));
        let (qcow2, raw) = (Some(Format::Qcow2), Some(Format::Raw));
        let expected = [("raw", raw), ("b", qcow2), ("c", qcow2)];
        let expected = expected.map(|(name, format)| (name.to_owned(), format));
        assert_eq!(chain(dir, "c", Missing::Unknown).unwrap(), expected);
        image(dir, "n", Some(("nbd://host/x", "raw")));
        let over_nbd = chain(dir, "n", Missing::Unknown).unwrap();
        assert_eq!(over_nbd[0], ("nbd://host:10809/x".to_owned(), raw));
        image(dir, "r", Some(("rbd:pool/x", "raw")));
        let elsewhere = chain(dir, "r", Missing::Unknown).unwrap();
        assert_eq!(elsewhere[0].0, "Elsewhere(\"rbd\")");
    }

    #[test]
    fn what_cannot_be_read_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        image(dir, "b", Some(("a", "qcow2")));
        assert!(chain(dir, "b", Missing::Unknown).is_err());
        let ends = chain(dir, "b", Missing::Ends).unwrap();
        assert_eq!(ends[0].0, "a");
        std::fs::write(dir.join("a"), "no qcow2").unwrap();
        for missing in [Missing::Unknown, Missing::Ends] {
            assert!(chain(dir, "b", missing).unwrap_err().contains("qcow2"));
        }
        image(dir, "n", Some(("nbd://host/x", "qcow2")));
        assert!(chain(dir, "n", Missing::Unknown).is_err());
    }

    #[test]
    fn a_circle_ends_in_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        image(dir, "a", Some(("./c", "qcow2")));
        image(dir, "b", Some(("a", "qcow2")));
        image(dir, "c", Some(("b", "qcow2")));
        let error = chain(dir, "c", Missing::Ends).unwrap_err();
        assert!(error.contains("no end"), "{error}");
    }

    #[test]
    fn what_the_definition_says_is_not_asked_of_the_headers() {
        let dir = tempfile::tempdir().unwrap();
        let mut ends = disk(dir.path(), "missing");
        ends.ends = true;
        complete(&mut ends, Missing::Unknown).unwrap();
        assert_eq!(ends.chain.len(), 1);
        let mut cdrom = disk(dir.path(), "missing");
        cdrom.device = Device::Removable;
        complete(&mut cdrom, Missing::Unknown).unwrap();
    }
}
