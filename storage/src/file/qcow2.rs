//! The header of a qcow2 image: what it is built on, and how large it is.
//!
//! After QEMU's `docs/interop/qcow2.txt`. Everything is bounds-checked: the file may be anybody's.

use crate::{Format, StorageError};

/// More than any header: QEMU keeps the backing name within the first cluster's first KiB, behind
/// extensions that are a few hundred bytes.
pub(super) const HEAD_BYTES: usize = 64 << 10;
const MAGIC: &[u8] = b"QFI\xfb";
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// The longest backing name that QEMU writes or reads.
const MAX_NAME: usize = 1023;

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) virtual_bytes: u64,
    /// As written: absolute, or relative to the image's directory.
    pub(super) backing: Option<String>,
    pub(super) backing_format: Option<Format>,
}

/// Reads the head of an image; `None` when it is no qcow2 image.
pub(super) fn parse(head: &[u8], what: &str) -> Result<Option<Header>, StorageError> {
    if !head.starts_with(MAGIC) {
        return Ok(None);
    }
    read(head).map(Some).map_err(|why| StorageError::Corrupt { what: what.to_owned(), why: why.to_owned() })
}

fn read(head: &[u8]) -> Result<Header, &'static str> {
    let version = u32_at(head, 4)?;
    let header_bytes = match version {
        2 => 72,
        3 => usize::try_from(u32_at(head, 100)?).map_err(|_| "the header is too long")?,
        _ => return Err("the version is not known"),
    };
    let backing_at = usize::try_from(u64_at(head, 8)?).map_err(|_| "the backing name is too far away")?;
    let backing_bytes = usize::try_from(u32_at(head, 16)?).map_err(|_| "the backing name is too long")?;
    if backing_bytes > MAX_NAME {
        return Err("the backing name is too long");
    }
    let backing = match backing_at {
        0 => None,
        at => Some(text(head, at, backing_bytes)?),
    };
    let extensions_end = if backing_at == 0 { head.len() } else { backing_at };
    Ok(Header {
        virtual_bytes: u64_at(head, 24)?,
        backing_format: backing.as_ref().and_then(|_| backing_format(head, header_bytes, extensions_end)),
        backing,
    })
}

/// Walks the extensions for the backing's format. One that is not known is no error: QEMU asks for
/// `-F` today, but old images lack it.
fn backing_format(head: &[u8], mut at: usize, end: usize) -> Option<Format> {
    while at.checked_add(8)? <= end {
        let kind = u32_at(head, at).ok()?;
        let bytes = usize::try_from(u32_at(head, at + 4).ok()?).ok()?;
        if kind == 0 {
            return None;
        }
        if kind == BACKING_FORMAT {
            return match text(head, at + 8, bytes).ok()?.as_str() {
                "qcow2" => Some(Format::Qcow2),
                "raw" => Some(Format::Raw),
                _ => None,
            };
        }
        at = at.checked_add(8)?.checked_add(bytes.checked_next_multiple_of(8)?)?;
    }
    None
}

fn text(head: &[u8], at: usize, bytes: usize) -> Result<String, &'static str> {
    let end = at.checked_add(bytes).ok_or("a text is too far away")?;
    let text = head.get(at..end).ok_or("a text ends behind the header")?;
    String::from_utf8(text.to_vec()).map_err(|_| "a name is no text")
}

fn u32_at(head: &[u8], at: usize) -> Result<u32, &'static str> {
    let bytes = at.checked_add(4).and_then(|end| head.get(at..end)).ok_or("the header is too short")?;
    Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| "the header is too short")?))
}

fn u64_at(head: &[u8], at: usize) -> Result<u64, &'static str> {
    Ok(u64::from(u32_at(head, at)?) << 32 | u64::from(u32_at(head, at + 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_head_makes_it_panic(mut head in proptest::collection::vec(any::<u8>(), 0..400), version in 0..5_u32) {
            let _any_answer = parse(&head, "x");
            if head.len() > 8 {
                head[..4].copy_from_slice(MAGIC);
                head[4..8].copy_from_slice(&version.to_be_bytes());
                let _any_answer = parse(&head, "x");
            }
        }
    }

    #[test]
    fn a_cut_header_is_corrupt_not_a_base() {
        assert!(parse(b"QFI\xfb\0\0\0\x03", "x").is_err());
        assert_eq!(parse(b"anything else", "x").unwrap(), None);
    }
}
