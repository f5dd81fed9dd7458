//! Names the image below again, in the header of an image whose QEMU has died.
//!
//! QEMU writes that header at the end of a pull or an intermediate commit, and what it has copied later. Both images are
//! locked meanwhile, and until no start is under way that was begun with the header as it was.

use std::sync::Arc;

use livemerge_proto::ids::DiskTarget;
use livemerge_storage::{Format, ImageHead, ImageLock, Locator};
use virt::domain::Domain;

use super::Answer;
use super::commit::Image;
use super::plan::{lock, shut_off};
use super::relink::{next_start, no_start_begun, rebase_locked, synced};
use crate::hypervisor::libvirt::calls::{disk_of, position, refused};
use crate::hypervisor::libvirt::identity::Identity;
use crate::hypervisor::{HypervisorError, Layer};

/// Makes the image name the backing. Done already is done.
pub(in crate::hypervisor::libvirt) fn restore(
    domain: &Domain,
    disk: &DiskTarget,
    image: &Locator,
    backing: &Layer,
) -> Answer<()> {
    let format = backing.format;
    let format = format.ok_or_else(|| refused(disk, "has lost an image of unknown format"))?;
    let backing = Image {
        locator: backing.locator.clone(),
        format,
    };
    shut_off(domain)?;
    let locks = [path_of(image), backing.path()].map(|path| lock(disk, path));
    let locks: Arc<[ImageLock]> = locks.into_iter().collect::<Answer<_>>()?;
    let (_, next) = next_start(domain)?;
    if position(disk_of(&next, disk)?, image).is_none() {
        return Err(refused(disk, "no longer has the image"));
    }
    name_again(image, &backing, &locks)?;
    no_start_begun(domain, |now| {
        let disk = now.disks.iter().find(|found| found.target == *disk);
        // What libvirt has not looked at yet may be taken for stale: then it is waited for.
        disk.is_some_and(|disk| position(disk, &backing.locator).is_none())
    })
}

fn name_again(image: &Locator, backing: &Image, locks: &Arc<[ImageLock]>) -> Answer<()> {
    match written(image, backing)? {
        Written::Done => synced(image),
        Written::Name(name) => rebase_locked(image, backing, &name, locks),
    }
}

/// What the image's header says.
enum Written {
    /// What it shall say.
    Done,
    /// How names are written there, or in the other image's header.
    Name(String),
}

fn written(image: &Locator, backing: &Image) -> Answer<Written> {
    let head = |locator: &Locator, format| {
        let path = path_of(locator);
        let path = path.ok_or_else(|| unknown(&format!("{locator} has no path")))?;
        ImageHead::read(path, Some(format)).map_err(|error| unknown(&error))
    };
    let identity =
        |locator: &Locator| Identity::of(locator).map_err(|error| unknown(&error.to_string()));
    let head_of_image = head(image, Format::Qcow2)?;
    if let Some(parent) = &head_of_image.parent
        && identity(&parent.locator)? == identity(&backing.locator)?
    {
        return Ok(Written::Done);
    }
    let below = head(&backing.locator, backing.format)?.backing;
    // A name that begins with `/` is answered by one that does.
    let name = head_of_image.backing.or(below);
    Ok(Written::Name(name.unwrap_or_else(|| "/".to_owned())))
}

fn path_of(locator: &Locator) -> Option<&std::path::Path> {
    match locator {
        Locator::File(path) | Locator::Block(path) => Some(path),
        Locator::Nbd(_) => None,
    }
}

fn unknown(error: &dyn std::fmt::Display) -> HypervisorError {
    HypervisorError::Unknown(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn create(dir: &Path, name: &str, backing: Option<&str>) -> Locator {
        let mut command = Command::new("qemu-img");
        command
            .current_dir(dir)
            .args(["create", "-q", "-f", "qcow2"]);
        if let Some(backing) = backing {
            command.args(["-F", "qcow2", "-b", backing]);
        }
        let made = command.args([name, "1M"]).status();
        assert!(made.expect("qemu-img is needed here").success());
        Locator::File(dir.join(name))
    }

    fn names(image: &Locator) -> Option<String> {
        ImageHead::read(path_of(image).unwrap(), None)
            .unwrap()
            .backing
    }

    #[test]
    fn a_name_is_restored_in_the_way_that_names_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let absolute = dir.join("base").to_str().unwrap().to_owned();
        create(&dir, "base", None);
        let lost = |name: &str, backing| create(&dir, name, backing);
        let middle = |name: &str, backing| create(&dir, name, Some(backing));
        let full = |name: &str| Some(dir.join(name).to_str().unwrap().to_owned());
        for (image, backing, wanted) in [
            // The image has still a name, or the backing has one, or there is none.
            (
                lost("a", Some("base")),
                middle("b", &absolute),
                Some("b".to_owned()),
            ),
            (lost("c", Some(&absolute)), middle("d", "base"), full("d")),
            (lost("e", None), middle("f", "base"), Some("f".to_owned())),
            (lost("g", None), middle("h", &absolute), full("h")),
            (lost("i", None), create(&dir, "j", None), full("j")),
        ] {
            let backing = Image {
                locator: backing,
                format: Format::Qcow2,
            };
            let locks = [path_of(&image), backing.path()];
            let locks = locks.map(|path| lock(&"vda".parse().unwrap(), path).unwrap());
            let locks: Arc<[ImageLock]> = locks.into();
            for _ in 0..2 {
                name_again(&image, &backing, &locks).unwrap();
                assert_eq!(names(&image), wanted);
            }
        }
    }
}
