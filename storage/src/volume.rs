//! The words of storage: domains, volumes, and the marks that tell one volume from another.

use crate::StorageError;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, str::FromStr};
use uuid::Uuid;

/// Says what a name must look like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(pub &'static str);

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName($allowed)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text! {
    /// A storage domain's id.
    StorageId,
    "must be 1 to 63 of `a-z 0-9 -`, beginning with a letter or digit",
    |text| {
        (1..=63).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
}
text! {
    /// A volume's name within its domain: a plain name, never a path.
    VolumeName,
    "must be 1 to 200 of letters, digits and `_ . + -`, beginning with a letter, digit or `_`, without `..`",
    |text| {
        (1..=200).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && !text.contains("..")
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b))
    }
}
text! {
    /// Tells one volume from another that has its name. Opaque: only equality means something.
    Identity,
    "must be 1 to 200 printable ASCII characters without blanks",
    |text| (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A volume: its domain and its name there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VolumeRef {
    /// The domain.
    pub storage: StorageId,
    /// The name.
    pub name: VolumeName,
}

impl fmt::Display for VolumeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.storage, self.name)
    }
}

/// Names one removal, so that it can be repeated and resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RemovalId(Uuid);

impl From<Uuid> for RemovalId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl FromStr for RemovalId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let id = Uuid::try_parse(text)
            .ok()
            .filter(|id| text.len() == 36 && !id.is_nil());
        id.map(Self)
            .ok_or(InvalidName("must be a UUID in its hyphenated form"))
    }
}

impl fmt::Display for RemovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// How the bytes of a volume are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Copy on write.
    Qcow2,
    /// Plain bytes.
    Raw,
}

/// What QEMU opens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Locator {
    /// A file.
    File(PathBuf),
    /// A block device.
    Block(PathBuf),
    /// An NBD URI.
    Nbd(String),
}

impl fmt::Display for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Block(path) => path.display().fmt(f),
            Self::Nbd(uri) => f.write_str(uri),
        }
    }
}

/// What a volume is built on, as its header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// What QEMU opens for it: absolute, however the header writes it.
    pub locator: Locator,
    /// Its format, when the header says it.
    pub format: Option<Format>,
}

/// A volume as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its domain and name.
    pub volume: VolumeRef,
    /// Its mark.
    pub identity: Identity,
    /// Its format, as its header says.
    pub format: Format,
    /// Size that a guest sees, in bytes.
    pub virtual_bytes: u64,
    /// Space taken in storage, in bytes: where volumes are given their room, all of that.
    pub allocated_bytes: u64,
    /// What QEMU opens.
    pub locator: Locator,
    /// What it is built on; `None` for a base.
    pub parent: Option<Parent>,
    /// It takes room in pieces of this size.
    pub cluster_bytes: u64,
    /// Whether nobody reads its data without a key.
    pub encrypted: bool,
    /// The names of the dirty bitmaps that it keeps for backups; `?` for one whose name cannot be
    /// read. Those that a machine has made since its start are not there yet.
    pub bitmaps: Vec<String>,
}

/// The cluster of a qcow2 image, unless its maker chose another one. Of a raw image nobody knows
/// more than that it takes room in smaller pieces.
pub const USUAL_CLUSTER_BYTES: u64 = 64 << 10;

/// Sizes are multiples of it.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// The most that qcow2 with its usual clusters can hold.
pub(crate) const MAX_VIRTUAL_BYTES: u64 = 2 << 50;

/// A volume to create: always qcow2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name.
    pub name: VolumeName,
    /// Size that a guest sees, in bytes: a multiple of 512, more than 0, at most 2 PiB.
    pub virtual_bytes: u64,
    /// What it is built on: a volume of the same domain.
    pub parent: Option<Parent>,
}

impl NewVolume {
    /// # Errors
    /// `Invalid` for a size that no volume can have.
    pub(crate) fn check_size(&self) -> Result<(), StorageError> {
        let bytes = self.virtual_bytes;
        if bytes > 0 && bytes.is_multiple_of(SECTOR_BYTES) && bytes <= MAX_VIRTUAL_BYTES {
            return Ok(());
        }
        let text = format!(
            "{bytes} is no size of a volume: 512 times 1 to {}",
            MAX_VIRTUAL_BYTES / 512
        );
        Err(StorageError::Invalid(text))
    }
}
