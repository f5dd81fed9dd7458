//! The dirty bitmaps that a qcow2 image keeps: which blocks have changed since a backup.
//!
//! After QEMU's `docs/interop/qcow2.txt`. Only their names are read. A machine that runs writes them
//! out when it ends: one that was made since its start is not listed yet.

use super::qcow2::{BitmapDirectory, size, slice, u32_at};
use std::io;

/// The name of a bitmap whose own cannot be read: it is there, and that is what counts.
pub(crate) const NAMELESS: &str = "?";
/// Far more than anybody keeps.
const MAX_DIRECTORY: u64 = 1 << 20;

/// The names of an image's bitmaps. What cannot be read, perhaps because QEMU writes it just now, is
/// a bitmap without a name, never none. The image is read through `read_at`, all that is asked for.
pub(crate) fn names(
    read_at: impl FnOnce(&mut [u8], u64) -> io::Result<()>,
    listed: BitmapDirectory,
) -> Vec<String> {
    read(read_at, listed).unwrap_or_else(|| vec![NAMELESS.to_owned()])
}

fn read(
    read_at: impl FnOnce(&mut [u8], u64) -> io::Result<()>,
    listed: BitmapDirectory,
) -> Option<Vec<String>> {
    let bytes = Some(listed.bytes).filter(|bytes| *bytes <= MAX_DIRECTORY)?;
    let mut directory = vec![0; size(bytes).ok()?];
    read_at(&mut directory, listed.start).ok()?;
    parse(&directory, listed.count).ok()
}

/// Each entry has its table's place, flags, kind and granularity, then how long its name is and what
/// else stands before the name.
pub(crate) fn parse(directory: &[u8], count: u32) -> Result<Vec<String>, &'static str> {
    const FIXED: usize = 24;
    let (mut at, mut names) = (0_usize, Vec::new());
    for _ in 0..count {
        let name_bytes = slice(directory, at + 18, 2)?;
        let name_bytes = usize::from(u16::from_be_bytes([name_bytes[0], name_bytes[1]]));
        let extra_bytes = size(u64::from(u32_at(directory, at + 20)?))?;
        let name_at = (at + FIXED)
            .checked_add(extra_bytes)
            .ok_or("an entry is too long")?;
        let name = slice(directory, name_at, name_bytes)?;
        names.push(String::from_utf8_lossy(name).into_owned());
        at = (name_at + name_bytes).next_multiple_of(8);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, extra: usize) -> Vec<u8> {
        let mut entry = vec![0; 18];
        entry.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        entry.extend(u32::try_from(extra).unwrap().to_be_bytes());
        entry.resize(24 + extra, 0);
        entry.extend(name.as_bytes());
        entry.resize(entry.len().next_multiple_of(8), 0);
        entry
    }

    #[test]
    fn each_entry_has_its_name() {
        let directory = [entry("nightly", 0), entry("a", 16), entry("weekly-1", 0)].concat();
        assert_eq!(parse(&directory, 3).unwrap(), ["nightly", "a", "weekly-1"]);
        parse(&directory, 4).unwrap_err();
    }

    #[test]
    fn what_cannot_be_read_is_not_nothing() {
        use std::os::unix::fs::FileExt as _;
        let file = tempfile::tempfile().unwrap();
        for (start, bytes) in [(0, 64), (u64::MAX, 64), (0, u64::MAX)] {
            let listed = BitmapDirectory {
                count: 2,
                start,
                bytes,
            };
            let read_at = |into: &mut [u8], at| file.read_exact_at(into, at);
            assert_eq!(names(read_at, listed), [NAMELESS]);
        }
    }

    proptest! {
        #[test]
        fn no_directory_makes_it_panic(directory in proptest::collection::vec(any::<u8>(), 0..200), count in 0..9_u32) {
            let _ = parse(&directory, count);
        }
    }
}
