//! Readers of what others have written, each with what holds whatever they find: for the fuzz targets
//! of `fuzz/`, and for the tests that replay what those have found. Nobody else's interface.

use crate::image::{ImageHead, backing, bitmaps, map, qcow2};
use crate::{Locator, NbdAddress};
use std::io;
use std::path::Path;

pub use crate::lvm::fuzzing::lvm_report;

/// The first bytes of an image, and of the directory of bitmaps in it.
///
/// # Panics
/// When what was read breaks a promise of the reader.
pub fn qcow2_head(image: &[u8]) {
    let head = &image[..image.len().min(qcow2::HEAD_BYTES)];
    let Ok(found) = qcow2::parse(head, "it") else {
        return;
    };
    assert_eq!(found.is_some(), head.starts_with(b"QFI\xfb"));
    let Some(header) = found else { return };
    assert!(header.cluster_bytes.is_power_of_two());
    for name in header.needs() {
        assert!(name.len() <= head.len());
        backing_name(name);
    }
    if let Some(listed) = header.bitmaps {
        let read_at = |into: &mut [u8], at: u64| {
            let at = usize::try_from(at).map_err(io::Error::other)?;
            let found = image.get(at..).and_then(|rest| rest.get(..into.len()));
            into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        let names = bitmaps::names(read_at, listed);
        assert!(listed.count == 0 || !names.is_empty(), "a bitmap was lost");
    }
    let whole = ImageHead::of(Path::new("/domain/image"), header);
    assert_eq!(whole.backing.is_some(), whole.parent.is_some());
}

/// What QEMU tells of images as JSON: the lines of `qemu-img map`, and the names of images.
///
/// # Panics
/// When what was read breaks a promise of the reader.
pub fn qemu_json(said: &[u8]) {
    let Ok(said) = std::str::from_utf8(said) else {
        return;
    };
    let mut end = 0_u64;
    for line in said.lines() {
        match map::parse(line, end) {
            Ok(Some(extent)) => {
                assert_eq!(extent.start, end);
                end = extent.start.checked_add(extent.length).expect("an end");
            }
            Ok(None) => {}
            Err(_strange) => break,
        }
    }
    backing_name(said);
    backing_name(&format!("json:{said}"));
}

fn backing_name(name: &str) {
    let root = Path::new("/domain");
    let named = backing::paths(root, name);
    match backing::locate(root, name) {
        (Locator::File(path), _) => {
            assert!(path.is_absolute());
            let named = named.expect("a file that is opened is named");
            assert!(named.iter().any(|named| backing::normal(named) == path));
        }
        (Locator::Block(path), _) => panic!("{} was not looked at", path.display()),
        (Locator::Nbd(_), _) => {}
    }
    if let Ok(address) = name.parse::<NbdAddress>() {
        // The usual port is spelled out, so that the text is compared and not the address.
        let spelled = address.to_string();
        let again = spelled.parse().map(|again: NbdAddress| again.to_string());
        assert_eq!(again, Ok(spelled));
    }
}
