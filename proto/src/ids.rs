//! Identifiers, parsed once at the edge.
//!
//! UUIDs are accepted in the hyphenated form only, so that one thing has one spelling.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Says what an identifier must look like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(pub &'static str);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_uuid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        text_conversions!($name);
    };
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $allowed:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidId($allowed)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_conversions!($name);
    };
}

macro_rules! text_conversions {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

uuid_id! {
    /// A virtual machine: the libvirt domain's UUID.
    VmId
}
uuid_id! {
    /// A snapshot.
    SnapshotId
}
uuid_id! {
    /// An operation of the API server.
    OperationId
}
uuid_id! {
    /// The merge of one disk on a host; the request id that started it.
    MergeId
}
uuid_id! {
    /// Names one request, so that it can be repeated without being done twice.
    RequestId
}
name_id! {
    /// A host, for example `host-1`.
    HostId,
    "must be 1 to 63 of `a-z 0-9 . -`, beginning with a letter or digit",
    |text| {
        (1..=63).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-')
    }
}
name_id! {
    /// The target name of a disk in its virtual machine, for example `vda`.
    DiskTarget,
    "must be 1 to 32 letters, digits or `_ -`, beginning with a letter",
    |text| {
        (1..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }
}
name_id! {
    /// A snapshot's name.
    SnapshotName,
    "must be 1 to 128 characters without control characters or blanks at the ends",
    |text| {
        (1..=128).contains(&text.chars().count())
            && text.trim() == text
            && !text.chars().any(char::is_control)
    }
}

fn parse_uuid(text: &str) -> Result<Uuid, InvalidId> {
    const WANTED: InvalidId =
        InvalidId("must be a UUID such as 0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f");
    // The length leaves the braced, urn and simple forms out.
    if text.len() != 36 {
        return Err(WANTED);
    }
    let id = Uuid::try_parse(text).map_err(|_| WANTED)?;
    if id.is_nil() {
        Err(InvalidId("must not be the nil UUID"))
    } else {
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_thing_has_one_spelling() {
        let id = "0192f0c1-2b1a-7c3d-8e4f-5a6b7c8d9e0f";
        assert_eq!(id.parse::<VmId>().unwrap().to_string(), id);
        for other in [
            "",
            "x",
            "0192f0c12b1a7c3d8e4f5a6b7c8d9e0f",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(other.parse::<VmId>().is_err(), "{other}");
        }
    }

    #[test]
    fn names_are_bounded() {
        assert!("vda".parse::<DiskTarget>().is_ok());
        for bad in ["", "-vda", "vd a", "vda;rm", "1a", &"a".repeat(33)] {
            assert!(bad.parse::<DiskTarget>().is_err(), "{bad}");
        }
        for bad in ["", "Host", "-h", ".h", "h_1", &"h".repeat(64)] {
            assert!(bad.parse::<HostId>().is_err(), "{bad}");
        }
        for bad in ["", " a", "a ", "a\nb", &"é".repeat(129)] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad}");
        }
        assert!("é".repeat(128).parse::<SnapshotName>().is_ok());
    }

    proptest! {
        #[test]
        fn what_parses_prints_the_same(text in "\\PC{0,40}") {
            if let Ok(host) = text.parse::<HostId>() {
                prop_assert_eq!(host.to_string(), text.clone());
            }
            if let Ok(name) = text.parse::<SnapshotName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}
