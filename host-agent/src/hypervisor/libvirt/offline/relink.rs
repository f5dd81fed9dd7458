//! Takes the removed layers out of everything that names them, once their data are below.
//!
//! The overlay above names one in its header, the machine's definition names one as its source, or
//! both do when the definition writes the chain down. The order does not matter: until the last one
//! is changed, both ways read the same.
//!
//! libvirt may have begun a start with the definition as it was. Its QEMU is refused by the locks,
//! and they are held until libvirt has seen that: it would run on a layer that is not the next
//! start's.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use livemerge_proto::ids::DiskTarget;
use livemerge_storage::{Format, ImageHead, ImageLock, Locator};
use virt::domain::Domain;
use virt_sys::{VIR_DOMAIN_XML_INACTIVE, VIR_DOMAIN_XML_SECURE};

use super::Answer;
use super::commit::{self, Image};
use super::plan::Plan;
use crate::hypervisor::HypervisorError;
use crate::hypervisor::ffi::{self, Held};
use crate::hypervisor::libvirt::calls::{disk_of, position, refused, told};
use crate::hypervisor::libvirt::connection::{Connection, Link};
use crate::hypervisor::libvirt::headers::{self, Missing};
use crate::hypervisor::libvirt::identity::Identity;
use crate::hypervisor::xml::{Definition, Disk, Unchangeable, format_name, without_layers};

/// How long a start that was begun may take to be refused.
const START_LIMIT: Duration = Duration::from_secs(8);
/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Takes the removed layers out. Done already is done.
pub(super) fn relink(link: &Link, plan: &Plan) -> Answer<()> {
    let libvirt = link.connection();
    let libvirt = libvirt.ok_or_else(|| HypervisorError::Unknown("not connected".to_owned()))?;
    let domain = libvirt.domain(plan.vm)?;
    let (_, next) = next_start(&domain)?;
    let disk = disk_of(&next, &plan.disk)?;
    let (kept, removed) = (plan.kept(), plan.removed());
    if let Some(top) = place(disk, kept, &removed)? {
        plan.locks[0].sync().map_err(unknown)?;
        if let Some(overlay) = disk.chain.get(top + 1) {
            let overlay = overlay.source.locator();
            let overlay = overlay.ok_or_else(|| refused(&plan.disk, "has an overlay elsewhere"))?;
            let written = head(overlay)?.backing.unwrap_or_default();
            rebase(overlay, kept, &written, &plan.locks)?;
        }
        // A rebase may take long, and others may have changed the rest of it meanwhile.
        let xml = written_down(&domain)?;
        let changed = without_layers(&xml, &plan.disk, &removed, (&kept.locator, kept.format));
        if let Some(xml) = changed.map_err(|error| unchangeable(&error))? {
            define(&libvirt, &xml)?;
        }
    }
    libvirt.written_out()?;
    no_start_begun(&domain, |now| {
        let disk = now.disks.iter().find(|disk| disk.target == plan.disk);
        let named = |disk: &Disk| removed.iter().any(|layer| position(disk, layer).is_some());
        disk.is_some_and(named)
    })
}

/// The definition that the machine starts with, as it is written, and its disks' whole chains.
pub(super) fn next_start(domain: &Domain) -> Answer<(String, Definition)> {
    let xml = written_down(domain)?;
    let mut next = Definition::parse(&xml).map_err(unknown)?;
    if let Some(error) = next.unreadable.first() {
        return Err(unknown(error));
    }
    headers::complete_all(&mut next, Missing::Unknown)?;
    Ok((xml, next))
}

fn written_down(domain: &Domain) -> Answer<String> {
    told(domain.xml_desc(VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE))
}

/// Lets a running machine start from the kept layer, where its definition names a removed one.
pub(in crate::hypervisor::libvirt) fn set_next_start(
    libvirt: &Connection,
    domain: &Domain,
    disk: &DiskTarget,
    removed: &[Locator],
    (kept, format): (&Locator, Option<Format>),
) -> Answer<()> {
    let xml = written_down(domain)?;
    let format = match (format, kept) {
        (Some(format), _) => format,
        (None, Locator::File(path) | Locator::Block(path)) => {
            ImageHead::read(path, None).map_err(unknown)?.format
        }
        (None, _) => return Err(refused(disk, "has a layer of no known format")),
    };
    let changed = without_layers(&xml, disk, removed, (kept, format));
    match changed.map_err(|error| unchangeable(&error))? {
        Some(xml) => define(libvirt, &xml),
        None => libvirt.written_out(),
    }
}

/// Gives the machine another definition, which outlives a power cut.
pub(in crate::hypervisor::libvirt) fn define(libvirt: &Connection, xml: &str) -> Answer<()> {
    told(libvirt.connect().define_domain_xml(xml).map(Held::new)).map(drop)?;
    libvirt.written_out()
}

/// Waits until no start is under way that was begun with a definition that is stale now. The caller
/// holds the locks that such a start runs into.
pub(super) fn no_start_begun(domain: &Domain, stale: impl Fn(&Definition) -> bool) -> Answer<()> {
    let began = Instant::now();
    loop {
        // What is not written down libvirt has not looked at yet: it will find what is there now.
        let now = Definition::parse_starting(&told(domain.xml_desc(0))?).map_err(unknown)?;
        if !now.live || !stale(&now) {
            return Ok(());
        }
        if began.elapsed() > START_LIMIT {
            let text = "the machine is being started with the removed layers";
            return Err(HypervisorError::Unknown(text.to_owned()));
        }
        thread::sleep(LOOK_EVERY);
    }
}

pub(super) fn unchangeable(error: &Unchangeable) -> HypervisorError {
    HypervisorError::Refused(error.to_string())
}

fn unknown(error: impl std::fmt::Display) -> HypervisorError {
    HypervisorError::Unknown(error.to_string())
}

/// Where the youngest removed layer is; `None` when they all are gone from above the kept one.
fn place(disk: &Disk, kept: &Image, removed: &[Locator]) -> Answer<Option<usize>> {
    let diverged = || refused(&disk.target, "no longer has the chain that is merged");
    let base = position(disk, &kept.locator).ok_or_else(diverged)?;
    let places = removed.iter().map(|layer| position(disk, layer));
    let places: Vec<_> = places.collect();
    if places.iter().all(Option::is_none) {
        return Ok(None);
    }
    let expected = (base + 1..).map(Some).take(removed.len());
    if !places.iter().copied().eq(expected) {
        return Err(diverged());
    }
    Ok(Some(base + removed.len()))
}

fn head(overlay: &Locator) -> Answer<ImageHead> {
    ImageHead::read(path_of(overlay)?, Some(Format::Qcow2)).map_err(unknown)
}

fn path_of(overlay: &Locator) -> Answer<&Path> {
    match overlay {
        Locator::File(path) | Locator::Block(path) => Ok(path),
        Locator::Nbd(_) => {
            let text = format!("{overlay}: its header cannot be changed");
            Err(HypervisorError::Refused(text))
        }
    }
}

/// Names another backing in an overlay's header, in the way that one is named which is written there.
pub(super) fn rebase(
    overlay: &Locator,
    base: &Image,
    written: &str,
    locks: &Arc<[ImageLock]>,
) -> Answer<()> {
    let path = path_of(overlay)?;
    let opened: [OsString; 3] = ["-f".into(), "qcow2".into(), path.into()];
    rename(path, &opened, base, written, locks)
}

/// The same of an overlay that the locks are on, too.
pub(super) fn rebase_locked(
    overlay: &Locator,
    base: &Image,
    written: &str,
    locks: &Arc<[ImageLock]>,
) -> Answer<()> {
    let image = Image {
        locator: overlay.clone(),
        format: Format::Qcow2,
    };
    let opened = commit::unlocked(&image).ok_or_else(|| unknown("an image's path is no text"))?;
    rename(path_of(overlay)?, &[opened], base, written, locks)
}

fn rename(
    path: &Path,
    opened: &[OsString],
    base: &Image,
    written: &str,
    locks: &Arc<[ImageLock]>,
) -> Answer<()> {
    let (kind, name) = (format_name(base.format), name_of(base, path, written)?);
    let mut arguments: Vec<OsString> = ["rebase", "-q", "-u", "-F", kind, "-b"]
        .map(Into::into)
        .into();
    arguments.push(name);
    arguments.extend_from_slice(opened);
    let mut command = Command::new("qemu-img");
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    ffi::tie(&mut command, Arc::clone(locks));
    let output = command.output().map_err(unknown)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(HypervisorError::Refused(text));
    }
    file_synced(path)
}

/// An image's header is where it outlives the host.
pub(super) fn synced(image: &Locator) -> Answer<()> {
    file_synced(path_of(image)?)
}

fn file_synced(path: &Path) -> Answer<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(unknown)
}

/// Relative where the present name is, if the base can be reached like that.
fn name_of(base: &Image, overlay: &Path, written: &str) -> Answer<OsString> {
    let path = base
        .path()
        .ok_or_else(|| unknown("the kept image has no path"))?;
    let plain = !written.starts_with('/') && !written.contains(':');
    let dir = overlay.parent().unwrap_or(Path::new("/"));
    if plain
        && let Some(relative) = relative(&normal(path), &normal(dir))
        && same(&dir.join(&relative), path)?
    {
        return Ok(relative.into());
    }
    Ok(path.into())
}

fn same(one: &Path, other: &Path) -> Answer<bool> {
    let [one, other] = [one, other].map(|path| Identity::of(&Locator::File(path.to_owned())));
    let (one, other) = (one.map_err(unknown)?, other.map_err(unknown)?);
    Ok(one != Identity::Nothing && one == other)
}

/// Both without `.` and `..`. `None` for a name that QEMU would take for a protocol's.
fn relative(path: &Path, dir: &Path) -> Option<PathBuf> {
    let (path, dir): (Vec<_>, Vec<_>) = (path.components().collect(), dir.components().collect());
    let common = path.iter().zip(&dir).take_while(|(a, b)| a == b).count();
    let up = dir[common..].iter().map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(path[common..].iter().copied()).collect();
    let protocol = relative.to_str().is_none_or(|text| text.contains(':'));
    (!protocol).then_some(relative)
}

/// Looks at no link.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(out.pop()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_relative_where_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        for sub in ["x", "y"] {
            std::fs::create_dir(dir.join(sub)).unwrap();
        }
        std::fs::write(dir.join("x/a"), "").unwrap();
        std::fs::write(dir.join("x/b:c"), "").unwrap();
        std::os::unix::fs::symlink(dir.join("y"), dir.join("x/link")).unwrap();
        let name = |base: &str, overlay: &str, written: &str| {
            let base = Image {
                locator: Locator::File(dir.join(base)),
                format: Format::Qcow2,
            };
            name_of(&base, &dir.join(overlay), written).unwrap()
        };
        assert_eq!(name("x/a", "x/o", "b"), "a");
        assert_eq!(name("x/../x/a", "x/o", "../x/b"), "a");
        assert_eq!(name("x/a", "y/o", "../x/b"), "../x/a");
        let whole = |name: &str| dir.join(name).into_os_string();
        assert_eq!(name("x/a", "x/o", "/x/b"), whole("x/a"));
        assert_eq!(name("x/a", "x/o", "json:{}"), whole("x/a"));
        assert_eq!(name("x/b:c", "x/o", "b"), whole("x/b:c"));
        // Where `..` does not lead back.
        assert_eq!(name("x/a", "x/link/o", "../b"), whole("x/a"));
    }
}
