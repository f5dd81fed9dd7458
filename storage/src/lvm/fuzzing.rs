//! See [`crate::fuzzing`].

use super::name::Role;
use super::report;
use super::tag;

/// An answer of `lvm fullreport`, and what the tags in it say.
///
/// # Panics
/// When what was read breaks a promise of the reader.
pub fn lvm_report(answer: &[u8]) {
    let Ok(mut group) = std::str::from_utf8(answer).map_or(Err(String::new()), report::parse)
    else {
        return;
    };
    assert!(group.extent_bytes > 0);
    for volume in &group.volumes {
        let mut end = 0_u64;
        for piece in volume.pieces.iter().flatten() {
            assert_eq!(piece.start, end, "{:?}", volume.pieces);
            end = end.checked_add(piece.bytes).expect("an end");
        }
        assert!(!volume.open || volume.device.is_some());
        let _formats = (tag::format(&volume.tags), tag::parent(&volume.tags));
        if let Ok(condemned) = tag::removal(&volume.tags) {
            let written = tag::of_removal(&condemned);
            let again = tag::removal(&written).expect("what was written is read");
            assert_eq!(tag::of_removal(&again), written);
        }
        match volume.role() {
            Role::Volume(name) if volume.is_ours() => assert!(group.volume(&name).is_some()),
            Role::Removed(id) if volume.is_ours() => assert!(group.removed(id).is_some()),
            _ => {}
        }
    }
    let names: Vec<String> = group.volumes.iter().map(|it| it.name.clone()).collect();
    group.looked_at(&names);
    let mut condemned = group
        .ours()
        .filter(|it| matches!(it.role(), Role::Removed(_)));
    assert!(condemned.all(|volume| !volume.open));
}
