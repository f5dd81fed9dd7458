//! What tags say of a logical volume.
//!
//! ```text
//!   livemerge                        it is this program's
//!   livemerge.format=qcow2           its format; without one its first bytes say
//!   livemerge.parent=NAME            what it is to be built on, while it is being made
//!   livemerge.removal.volume=NAME    a removal, as it was ordered: its volume, identity,
//!   livemerge.removal.…              condemned_at, keep_until, purging, wipe, discard, and that it
//!                                    was overwritten, or activated by the host itself before
//! ```
//!
//! LVM allows letters, digits and `_ + . - / = ! : & #` in a tag: names, UUIDs and times all fit.

use crate::condemned::Condemned;
use crate::{Format, VolumeName};

/// What marks a logical volume as this program's.
pub(super) const OURS: &str = "livemerge";
const FORMAT: &str = "livemerge.format=";
const PARENT: &str = "livemerge.parent=";
const REMOVAL: &str = "livemerge.removal.";
/// A condemned volume that was overwritten.
pub(super) const WIPED: &str = "livemerge.removal.wiped";
/// A condemned volume that the host activated by itself before.
pub(super) const AUTOACTIVATES: &str = "livemerge.removal.autoactivates";

/// The tags of a volume that is being made.
pub(super) fn of_new(parent: Option<&VolumeName>) -> Vec<String> {
    let parent = parent.map(|parent| format!("{PARENT}{parent}"));
    [OURS.to_owned(), format!("{FORMAT}qcow2")]
        .into_iter()
        .chain(parent)
        .collect()
}

/// The format that a volume is said to have.
pub(super) fn format(tags: &[String]) -> Option<Format> {
    match value(tags, FORMAT)? {
        "raw" => Some(Format::Raw),
        "qcow2" => Some(Format::Qcow2),
        _ => None,
    }
}

/// What a volume that is being made will be built on.
pub(super) fn parent(tags: &[String]) -> Option<&str> {
    value(tags, PARENT)
}

/// A removal as tags.
pub(super) fn of_removal(order: &Condemned) -> Vec<String> {
    let mut tags = vec![
        format!("{REMOVAL}volume={}", order.volume),
        format!("{REMOVAL}identity={}", order.identity),
        format!("{REMOVAL}condemned_at={}", order.condemned_at),
    ];
    tags.extend(
        order
            .keep_until
            .map(|until| format!("{REMOVAL}keep_until={until}")),
    );
    let marks = [
        (order.purging, "purging"),
        (order.wipe, "wipe"),
        (order.discard, "discard"),
    ];
    let set = marks.iter().filter(|(set, _)| *set);
    tags.extend(set.map(|(_, mark)| format!("{REMOVAL}{mark}")));
    tags
}

/// The removal that tags say.
pub(super) fn removal(tags: &[String]) -> Result<Condemned, String> {
    let own: Vec<_> = of_removals(tags).collect();
    let field = |name: &str| {
        own.iter().find_map(|tag| {
            tag.strip_prefix(REMOVAL)?
                .strip_prefix(name)?
                .strip_prefix('=')
        })
    };
    let needed = |name| field(name).ok_or_else(|| format!("its {name} is missing"));
    let is_set = |mark| {
        own.iter()
            .any(|tag| tag.strip_prefix(REMOVAL) == Some(mark))
    };
    let why = |error: &dyn std::fmt::Display| error.to_string();
    Ok(Condemned {
        volume: needed("volume")?.parse().map_err(|e| why(&e))?,
        identity: needed("identity")?.parse().map_err(|e| why(&e))?,
        condemned_at: needed("condemned_at")?.parse().map_err(|e| why(&e))?,
        keep_until: field("keep_until")
            .map(|until| until.parse().map_err(|e| why(&e)))
            .transpose()?,
        purging: is_set("purging"),
        wipe: is_set("wipe"),
        discard: is_set("discard"),
    })
}

/// Whether a condemned volume was overwritten.
pub(super) fn is_wiped(tags: &[String]) -> bool {
    tags.iter().any(|tag| tag == WIPED)
}

/// Those tags that are of a removal.
pub(super) fn of_removals(tags: &[String]) -> impl Iterator<Item = &String> {
    tags.iter().filter(|tag| tag.starts_with(REMOVAL))
}

fn value<'a>(tags: &'a [String], key: &str) -> Option<&'a str> {
    tags.iter().find_map(|tag| tag.strip_prefix(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RemovalOrder;
    use jiff::Timestamp;
    use proptest::prelude::*;
    use std::time::Duration;
    use uuid::Uuid;

    fn condemned(keep_for: Duration, purging: bool) -> Condemned {
        let order = RemovalOrder {
            keep_for,
            wipe: true,
            ..RemovalOrder::new(
                Uuid::from_u128(1).into(),
                "a_b.+c-1".parse().unwrap(),
                "QXmD1g-naBe-VPvu-N26X-k2b6-eKm0-NPvbL2".parse().unwrap(),
            )
        };
        let now = Timestamp::new(1_700_000_000, 123_456_789).unwrap();
        Condemned {
            purging,
            ..Condemned::new(&order, now)
        }
    }

    #[test]
    fn a_removal_is_read_as_it_was_written_in_the_letters_of_a_tag() {
        for keep_for in [Duration::ZERO, Duration::from_secs(60), Duration::MAX] {
            for purging in [false, true] {
                let written = condemned(keep_for, purging);
                let tags = of_removal(&written);
                for tag in &tags {
                    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_+.-/=!:&#".contains(&b);
                    assert!(tag.bytes().all(allowed) && tag.len() < 1024, "{tag}");
                }
                let read = removal(&tags).unwrap();
                assert_eq!(format!("{read:?}"), format!("{written:?}"));
            }
        }
    }

    #[test]
    fn a_removal_that_lacks_something_is_none() {
        let tags = of_removal(&condemned(Duration::from_secs(1), false));
        for missing in 0..3 {
            let mut tags = tags.clone();
            tags.remove(missing);
            removal(&tags).unwrap_err();
        }
        removal(&["livemerge".to_owned()]).unwrap_err();
    }

    #[test]
    fn a_new_volume_says_what_it_is() {
        let tags = of_new(Some(&"base".parse().unwrap()));
        assert_eq!(parent(&tags), Some("base"));
        assert_eq!(format(&tags), Some(Format::Qcow2));
        assert_eq!(parent(&of_new(None)), None);
        assert_eq!(
            format(&["livemerge.format=raw".to_owned()]),
            Some(Format::Raw)
        );
        assert_eq!(format(&[]), None);
    }

    proptest! {
        #[test]
        fn no_tags_make_it_panic(tags in proptest::collection::vec(".{0,60}", 0..6)) {
            let mut tags = tags;
            tags.extend(of_removal(&condemned(Duration::ZERO, false)).into_iter().skip(1));
            let _ = removal(&tags);
            let _ = format(&tags);
        }
    }
}
