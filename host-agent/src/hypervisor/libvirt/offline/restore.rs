//! Names the image below again, for an image whose QEMU has died.
//!
//! QEMU writes the image's header at the end of a pull or an intermediate commit, and what it has copied
//! later. libvirt takes the same layers out of the machine's definition, where that writes the chain
//! down and so overrules the header: it has to follow. When only one of them is done, all of it is
//! done again. Both images are locked meanwhile, and until no start is under way that was begun with
//! either as it was.

use std::sync::Arc;

use livemerge_proto::ids::DiskTarget;
use livemerge_storage::{Format, ImageHead, ImageLock, Locator};
use virt::domain::Domain;

use super::Answer;
use super::commit::Image;
use super::plan::{lock, shut_off};
use super::relink::{define, next_start, no_start_begun, rebase_locked, synced, unchangeable};
use crate::hypervisor::libvirt::calls::{disk_of, position, refused};
use crate::hypervisor::libvirt::connection::Connection;
use crate::hypervisor::libvirt::headers;
use crate::hypervisor::libvirt::identity::Identity;
use crate::hypervisor::xml::{Definition, DiskLayer, Source, with_layers_below};
use crate::hypervisor::{HypervisorError, Layer};

const UNKNOWN_FORMAT: &str = "has lost an image of unknown format";

/// Makes the image name the backing. Done already is done.
pub(in crate::hypervisor::libvirt) fn restore(
    libvirt: &Connection,
    domain: &Domain,
    disk: &DiskTarget,
    image: &Locator,
    backing: &Layer,
) -> Answer<()> {
    let format = backing.format;
    let format = format.ok_or_else(|| refused(disk, UNKNOWN_FORMAT))?;
    let backing = Image {
        locator: backing.locator.clone(),
        format,
    };
    shut_off(domain)?;
    let locks = [path_of(image), backing.path()].map(|path| lock(disk, path));
    let locks: Arc<[ImageLock]> = locks.into_iter().collect::<Answer<_>>()?;
    let (xml, next) = next_start(domain)?;
    if position(disk_of(&next, disk)?, image).is_none() {
        return Err(refused(disk, "no longer has the image"));
    }
    // Nothing is written when the definition could not follow.
    following(&xml, disk, image, &backing)?;
    name_again(image, &backing, &locks)?;
    // That may have taken long, and others may have changed the rest of it meanwhile.
    let (xml, _) = next_start(domain)?;
    if let Some(xml) = following(&xml, disk, image, &backing)? {
        define(libvirt, &xml)?;
    }
    no_start_begun(domain, |now| {
        let disk = now.disks.iter().find(|found| found.target == *disk);
        // What libvirt has not looked at yet may be taken for stale: then it is waited for.
        disk.is_some_and(|disk| position(disk, &backing.locator).is_none())
    })
}

/// The definition with what lies below the image as the backing's headers say; `None` when it says so,
/// or leaves it to the headers.
fn following(
    xml: &str,
    disk: &DiskTarget,
    image: &Locator,
    backing: &Image,
) -> Answer<Option<String>> {
    let definition = Definition::parse(xml).map_err(|error| unknown(&error))?;
    let written = disk_of(&definition, disk)?;
    let below = match position(written, image) {
        None => return Ok(None),
        Some(0) if !written.ends => return Ok(None),
        Some(0) => None,
        Some(place) => Some(&written.chain[place - 1].source),
    };
    let chain = headers::chain_of(&backing.locator, backing.format)?;
    let still_there = match below {
        None => 0,
        Some(below) => place_in(&chain, below)?
            .map(|place| place + 1)
            .ok_or_else(|| refused(disk, "has another chain than the one that was merged"))?,
    };
    let lost = chain[still_there..]
        .iter()
        .map(|layer| describable(disk, layer));
    let lost = lost.collect::<Answer<Vec<_>>>()?;
    if lost.is_empty() {
        return Ok(None);
    }
    let followed = with_layers_below(xml, disk, image, &lost);
    followed.map(Some).map_err(|error| unchangeable(&error))
}

/// Where a layer is in a chain, however the two spell it.
fn place_in(chain: &[DiskLayer], wanted: &Source) -> Answer<Option<usize>> {
    let Some(wanted) = wanted.locator() else {
        return Ok(None);
    };
    let wanted = identity(wanted)?;
    for (place, layer) in chain.iter().enumerate() {
        if let Some(locator) = layer.source.locator()
            && identity(locator)? == wanted
        {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn describable(disk: &DiskTarget, layer: &DiskLayer) -> Answer<(Locator, Format)> {
    if let Some(why) = layer.unsupported() {
        return Err(refused(disk, &why));
    }
    let described = layer.source.locator().cloned().zip(layer.format);
    described.ok_or_else(|| refused(disk, UNKNOWN_FORMAT))
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

fn identity(locator: &Locator) -> Answer<Identity> {
    Identity::of(locator).map_err(|error| unknown(&format!("{locator}: {error}")))
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

    /// A definition whose disk has this for a source and below it.
    fn definition(dir: &Path, chain: &str) -> String {
        let chain = chain.replace("DIR", dir.to_str().unwrap());
        format!(
            "<domain><name>vm</name><uuid>11111111-2222-3333-4444-555555555555</uuid><devices>\
             <disk type='file'><driver type='qcow2'/>{chain}<target dev='vda'/></disk>\
             </devices></domain>"
        )
    }

    const KEPT: &str = "<backingStore type='file'><format type='qcow2'/><source file='DIR/link/b'/>\
        <backingStore type='file'><format type='qcow2'/><source file='DIR/a'/></backingStore>\
        </backingStore>";

    /// The definition spells what it kept in another way than the headers.
    #[test]
    fn the_definition_follows_where_it_has_written_the_chain_down() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&dir, dir.join("link")).unwrap();
        let images = [
            ("a", None),
            ("b", Some("a")),
            ("x", Some("b")),
            ("c", Some("x")),
            ("d", Some("b")),
            ("e", None),
        ];
        let image = images.map(|(name, backing)| create(&dir, name, backing));
        let [a, b, x, c, d, e] = &image;
        let backing = |locator: &Locator| Image {
            locator: locator.clone(),
            format: Format::Qcow2,
        };
        let disk = "vda".parse().unwrap();
        let follow =
            |chain: &str, to: &Locator| following(&definition(&dir, chain), &disk, d, &backing(to));
        let names = |xml: &str| -> Vec<Locator> {
            let disks = Definition::parse(xml).unwrap().disks;
            let chain = disks[0].chain.iter();
            chain
                .filter_map(|layer| layer.source.locator().cloned())
                .collect()
        };
        let source = "<source file='DIR/d'/>";
        let young = "<source file='DIR/y'/><backingStore type='file'><format type='qcow2'/>\
            <source file='DIR/d'/>";
        let kept = Locator::File(dir.join("link/b"));
        for (chain, wanted) in [
            (format!("{source}{KEPT}"), vec![a, &kept, x, c, d]),
            (
                format!("{young}{KEPT}</backingStore>"),
                vec![a, &kept, x, c, d],
            ),
            (format!("{source}<backingStore/>"), vec![a, b, x, c, d]),
        ] {
            let followed = follow(&chain, c).unwrap().unwrap();
            let found = names(&followed);
            assert_eq!(found[..wanted.len()].iter().collect::<Vec<_>>(), wanted);
            let again = following(&followed, &disk, d, &backing(c));
            assert_eq!(again.unwrap(), None);
        }
        // What is not written there the headers say.
        let apart = format!("{young}</backingStore>");
        for chain in [source, &apart, "<source file='DIR/y'/>"] {
            assert_eq!(follow(chain, c).unwrap(), None, "{chain}");
        }
        let other = follow(&format!("{source}{KEPT}"), e);
        assert!(
            matches!(other, Err(HypervisorError::Refused(_))),
            "{other:?}"
        );
        std::fs::remove_file(dir.join("x")).unwrap();
        let unread = follow(&format!("{source}{KEPT}"), c);
        assert!(
            matches!(unread, Err(HypervisorError::Unknown(_))),
            "{unread:?}"
        );
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
