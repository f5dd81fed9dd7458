//! See [`crate::fuzzing`].

use super::Overlay;
use super::libvirt::which_is_written;
use super::xml::{
    Definition, Source, kept_snapshot, with_layers_below, with_overlays, without_layers,
};
use livemerge_storage::{Format, Locator};

fn locator(name: &str) -> Locator {
    Locator::File(format!("/images/{name}").into())
}

/// A definition: it is read, and its disks are changed.
///
/// # Panics
/// When what was read breaks a promise of the reader, or what was written is not what was meant.
pub fn definition(xml: &[u8]) {
    let Ok(xml) = std::str::from_utf8(xml) else {
        return;
    };
    let _is_a_snapshot = kept_snapshot(xml);
    let now = Definition::parse(xml);
    let Ok(next) = Definition::parse_starting(xml) else {
        assert!(now.is_err());
        return;
    };
    for disk in &next.disks {
        assert!(!disk.chain.is_empty(), "a disk has a source");
        let overlay = Overlay {
            disk: disk.target.clone(),
            locator: locator("fuzz<&>\"'.qcow2"),
        };
        // Of two disks with one name nobody knows which is meant.
        let named = next.disks.iter().filter(|it| it.target == disk.target);
        if named.count() > 1 || !next.unreadable.is_empty() {
            continue;
        }
        if let Ok(changed) = with_overlays(xml, &[&overlay]) {
            assert_eq!(active(&changed, disk), Some(overlay.locator), "{changed}");
        }
        // With a layer that is nothing of ours no merge is about the disk.
        let layers = disk.chain.iter().map(|it| it.source.locator().cloned());
        let Some(chain) = layers.collect::<Option<Vec<Locator>>>() else {
            continue;
        };
        if let [kept, removed @ ..] = chain.as_slice()
            && !removed.is_empty()
        {
            let changed = without_layers(xml, &disk.target, removed, (kept, Format::Qcow2));
            if let Ok(Some(changed)) = changed {
                assert_eq!(active(&changed, disk).as_ref(), Some(kept), "{changed}");
            }
        }
        let lost = [(locator("lost"), Format::Raw)];
        let _maybe = chain
            .iter()
            .try_for_each(|image| with_layers_below(xml, &disk.target, image, &lost).map(drop));
    }
}

/// What a disk would start from.
fn active(xml: &str, of: &super::xml::Disk) -> Option<Locator> {
    let read = Definition::parse_starting(xml).expect("what was written is read");
    let disk = read.disks.into_iter().find(|it| it.target == of.target)?;
    match disk.chain.into_iter().next_back()?.source {
        Source::Volume(locator) => Some(locator),
        Source::Elsewhere(_) | Source::Unresolved(_) => None,
    }
}

/// An answer of QEMU's monitor about its devices.
///
/// # Panics
/// When both images are said to be the one that is written.
pub fn qmp_answer(answer: &[u8]) {
    let Ok(answer) = std::str::from_utf8(answer) else {
        return;
    };
    let [one, other] = ["/bin/sh", "/bin/ls"].map(|path| Locator::File(path.into()));
    let switched = which_is_written(answer, &one, &other);
    let back = which_is_written(answer, &other, &one);
    assert_eq!(switched, back.map(|back| !back));
}
