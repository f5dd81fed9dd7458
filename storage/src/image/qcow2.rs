//! The header of a qcow2 image: what it is built on, how large it is, and what a merge must know of
//! it beside that.
//!
//! After QEMU's `docs/interop/qcow2.txt`. Everything is bounds-checked: the file may be anybody's.

use crate::{Format, StorageError};

/// More than any header: QEMU keeps the backing name within the first cluster's first KiB, behind
/// extensions that are a few hundred bytes.
pub(crate) const HEAD_BYTES: usize = 64 << 10;
const MAGIC: &[u8] = b"QFI\xfb";
const BACKING_FORMAT: u32 = 0xe279_2aca;
const DATA_FILE: u32 = 0x4441_5441;
const BITMAPS: u32 = 0x2385_2875;
/// The incompatible feature of an image whose data lie in another file.
const HAS_DATA_FILE: u64 = 1 << 2;
/// The autoclear feature of an image whose bitmaps are up to date. A program that knows nothing of
/// bitmaps has taken it away, and QEMU then takes no notice of what the extension says.
const HAS_BITMAPS: u64 = 1 << 0;
/// Clusters have 512 bytes at least, 2 MiB at most.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The longest backing name that QEMU writes or reads.
const MAX_NAME: usize = 1023;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) virtual_bytes: u64,
    /// As written: absolute, or relative to the image's directory.
    pub(crate) backing: Option<String>,
    pub(crate) backing_format: Option<Format>,
    /// The file that the data lie in, when that is another one.
    pub(crate) data_file: Option<String>,
    /// Room is taken in pieces of this size.
    pub(crate) cluster_bytes: u64,
    /// Whether nobody reads the data without a key.
    pub(crate) encrypted: bool,
    /// Where the image's dirty bitmaps are listed.
    pub(crate) bitmaps: Option<BitmapDirectory>,
}

/// Where the image's dirty bitmaps are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BitmapDirectory {
    pub(crate) count: u32,
    /// In the image's file.
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

impl Header {
    /// The files that this image cannot be read without.
    pub(crate) fn needs(&self) -> impl Iterator<Item = &str> {
        self.backing
            .as_deref()
            .into_iter()
            .chain(self.data_file.as_deref())
    }
}

/// Whether it is the beginning of a qcow2 image.
pub(crate) fn begins(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Reads the head of an image; `None` when it is no qcow2 image.
pub(crate) fn parse(head: &[u8], what: &str) -> Result<Option<Header>, StorageError> {
    if !begins(head) {
        return Ok(None);
    }
    read(head).map(Some).map_err(|why| StorageError::Corrupt {
        what: what.to_owned(),
        why: why.to_owned(),
    })
}

fn read(head: &[u8]) -> Result<Header, &'static str> {
    let (header_bytes, incompatible, autoclear) = match u32_at(head, 4)? {
        2 => (72, 0, 0),
        3 => (
            size(u64::from(u32_at(head, 100)?))?.max(104),
            u64_at(head, 72)?,
            u64_at(head, 88)?,
        ),
        _ => return Err("the version is not known"),
    };
    let cluster_bits = u32_at(head, 20)?;
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err("the clusters have an impossible size");
    }
    let backing_at = size(u64_at(head, 8)?)?;
    let backing_bytes = size(u64::from(u32_at(head, 16)?))?;
    if backing_bytes > MAX_NAME {
        return Err("the backing name is too long");
    }
    let backing = match (backing_at, backing_bytes) {
        (0, _) | (_, 0) => None,
        (at, bytes) => Some(text(head, at, bytes)?),
    };
    let extensions_end = if backing_at == 0 {
        head.len()
    } else {
        backing_at
    };
    let extension = |kind| extension(head, header_bytes, extensions_end, kind);
    let has_data_file = incompatible & HAS_DATA_FILE != 0;
    let has_bitmaps = autoclear & HAS_BITMAPS != 0;
    Ok(Header {
        cluster_bytes: 1 << cluster_bits,
        encrypted: u32_at(head, 32)? != 0,
        bitmaps: extension(BITMAPS)?
            .filter(|_| has_bitmaps)
            .map(bitmap_directory)
            .transpose()?,
        virtual_bytes: u64_at(head, 24)?,
        backing_format: extension(BACKING_FORMAT)?
            .filter(|_| backing.is_some())
            .and_then(format),
        backing,
        data_file: match extension(DATA_FILE)? {
            Some(name) if has_data_file => Some(utf8(name)?),
            None if has_data_file => return Err("the data lie in a file without a name"),
            _ => None,
        },
    })
}

/// A format that is not known is no error: QEMU asks for `-F` today, but old images lack it.
fn format(name: &[u8]) -> Option<Format> {
    match name {
        b"qcow2" => Some(Format::Qcow2),
        b"raw" => Some(Format::Raw),
        _ => None,
    }
}

fn bitmap_directory(extension: &[u8]) -> Result<BitmapDirectory, &'static str> {
    Ok(BitmapDirectory {
        count: u32_at(extension, 0)?,
        bytes: u64_at(extension, 8)?,
        start: u64_at(extension, 16)?,
    })
}

/// Walks the header's extensions to one of a kind.
fn extension(
    head: &[u8],
    mut at: usize,
    end: usize,
    kind: u32,
) -> Result<Option<&[u8]>, &'static str> {
    while at.checked_add(8).is_some_and(|body| body <= end) {
        let bytes = size(u64::from(u32_at(head, at + 4)?))?;
        match u32_at(head, at)? {
            0 => return Ok(None),
            found if found == kind => return slice(head, at + 8, bytes).map(Some),
            _ => {}
        }
        let padded = bytes
            .checked_next_multiple_of(8)
            .ok_or("an extension is too long")?;
        at = (at + 8)
            .checked_add(padded)
            .ok_or("an extension is too long")?;
    }
    Ok(None)
}

fn text(head: &[u8], at: usize, bytes: usize) -> Result<String, &'static str> {
    utf8(slice(head, at, bytes)?)
}

pub(crate) fn slice(head: &[u8], at: usize, bytes: usize) -> Result<&[u8], &'static str> {
    let end = at.checked_add(bytes).ok_or("a text is too far away")?;
    head.get(at..end).ok_or("a text ends behind the header")
}

fn utf8(text: &[u8]) -> Result<String, &'static str> {
    String::from_utf8(text.to_vec()).map_err(|_| "a name is no text")
}

pub(crate) fn size(number: u64) -> Result<usize, &'static str> {
    usize::try_from(number).map_err(|_| "a number is too large")
}

pub(crate) fn u32_at(head: &[u8], at: usize) -> Result<u32, &'static str> {
    let bytes = at
        .checked_add(4)
        .and_then(|end| head.get(at..end))
        .ok_or("the header is too short")?;
    Ok(u32::from_be_bytes(
        bytes.try_into().map_err(|_| "the header is too short")?,
    ))
}

fn u64_at(head: &[u8], at: usize) -> Result<u64, &'static str> {
    Ok(u64::from(u32_at(head, at)?) << 32 | u64::from(u32_at(head, at + 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fields that a base of version 3 has.
    fn head() -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(MAGIC);
        put(&mut head, 4, &3_u32.to_be_bytes());
        put(&mut head, 20, &16_u32.to_be_bytes());
        put(&mut head, 24, &(1_u64 << 30).to_be_bytes());
        put(&mut head, 100, &104_u32.to_be_bytes());
        head
    }

    fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
        head[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn why(head: &[u8]) -> String {
        match parse(head, "x") {
            Err(StorageError::Corrupt { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(mut head in proptest::collection::vec(any::<u8>(), 0..400), version in 0..5_u32) {
            let has_magic = head.starts_with(MAGIC);
            prop_assert_eq!(parse(&head, "x").is_ok_and(|header| header.is_none()), !has_magic);
            if head.len() > 8 {
                head[..4].copy_from_slice(MAGIC);
                head[4..8].copy_from_slice(&version.to_be_bytes());
                prop_assert!(!matches!(parse(&head, "x"), Ok(None)));
            }
        }

        #[test]
        fn a_head_that_is_cut_is_corrupt(cut in 4..104_usize) {
            prop_assert!(parse(&head()[..cut], "x").is_err());
        }
    }

    #[test]
    fn what_has_no_magic_is_no_image() {
        assert_eq!(parse(b"anything else", "x").unwrap(), None);
        assert_eq!(parse(b"", "x").unwrap(), None);
    }

    #[test]
    fn a_base_has_its_size_and_needs_nothing() {
        let header = parse(&head(), "x").unwrap().unwrap();
        assert_eq!(header.virtual_bytes, 1 << 30);
        assert_eq!(header.needs().count(), 0);
    }

    #[test]
    fn a_backing_name_that_cannot_be_had_is_corrupt_not_none() {
        for (at, bytes, text) in [
            (400_u64, 200_u32, "a text ends behind the header"),
            (u64::MAX, 8, "a text is too far away"),
            (400, 1024, "the backing name is too long"),
        ] {
            let mut head = head();
            put(&mut head, 8, &at.to_be_bytes());
            put(&mut head, 16, &bytes.to_be_bytes());
            assert_eq!(why(&head), text);
        }
        let mut head = head();
        put(&mut head, 8, &400_u64.to_be_bytes());
        put(&mut head, 16, &2_u32.to_be_bytes());
        put(&mut head, 400, b"\xff\xfe");
        assert_eq!(why(&head), "a name is no text");
    }

    #[test]
    fn data_in_a_file_without_a_name_is_corrupt() {
        let mut head = head();
        put(&mut head, 72, &HAS_DATA_FILE.to_be_bytes());
        assert_eq!(why(&head), "the data lie in a file without a name");
        put(&mut head, 104, &DATA_FILE.to_be_bytes());
        put(&mut head, 108, &5_u32.to_be_bytes());
        put(&mut head, 112, b"a.raw");
        let header = parse(&head, "x").unwrap().unwrap();
        assert_eq!(header.needs().collect::<Vec<_>>(), ["a.raw"]);
    }

    #[test]
    fn clusters_have_the_size_that_is_written() {
        for (bits, bytes) in [(9_u32, 512), (16, 64 << 10), (21, 2 << 20)] {
            let mut head = head();
            put(&mut head, 20, &bits.to_be_bytes());
            let header = parse(&head, "x").unwrap().unwrap();
            assert_eq!(header.cluster_bytes, bytes);
        }
        for bits in [0_u32, 8, 22, u32::MAX] {
            let mut head = head();
            put(&mut head, 20, &bits.to_be_bytes());
            assert_eq!(why(&head), "the clusters have an impossible size");
        }
    }

    #[test]
    fn every_kind_of_encryption_is_told() {
        assert!(!parse(&head(), "x").unwrap().unwrap().encrypted);
        for method in [1_u32, 2, 7] {
            let mut head = head();
            put(&mut head, 32, &method.to_be_bytes());
            assert!(parse(&head, "x").unwrap().unwrap().encrypted);
        }
    }

    #[test]
    fn bitmaps_count_only_while_they_are_kept_up() {
        let mut head = head();
        put(&mut head, 104, &BITMAPS.to_be_bytes());
        put(&mut head, 108, &24_u32.to_be_bytes());
        put(&mut head, 112, &2_u32.to_be_bytes());
        put(&mut head, 120, &64_u64.to_be_bytes());
        put(&mut head, 128, &4096_u64.to_be_bytes());
        assert_eq!(parse(&head, "x").unwrap().unwrap().bitmaps, None);
        put(&mut head, 88, &HAS_BITMAPS.to_be_bytes());
        let listed = parse(&head, "x").unwrap().unwrap().bitmaps.unwrap();
        assert_eq!((listed.count, listed.bytes, listed.start), (2, 64, 4096));
        put(&mut head, 108, &8_u32.to_be_bytes());
        assert_eq!(why(&head), "the header is too short");
    }

    #[test]
    fn an_extension_that_runs_off_the_header_ends_the_walk() {
        let mut head = head();
        put(&mut head, 104, &0xdead_beef_u32.to_be_bytes());
        put(&mut head, 108, &u32::MAX.to_be_bytes());
        assert_eq!(parse(&head, "x").unwrap().unwrap().backing_format, None);
    }
}
