//! The keys of a domain: which object lies where, and which keys are ours.
//!
//! ```text
//!   <prefix>/domain                       what the domain is, and that its store keeps conditions
//!   <prefix>/clock                        put to be told the store's time
//!   <prefix>/names/0f                     a shard of the names: name ─▶ uuid
//!   <prefix>/removals/<removal id>        a removal
//!   <prefix>/<uuid>/manifest              a volume: name, size
//!   <prefix>/<uuid>/lease                 who may write to it
//!   <prefix>/<uuid>/b/<16 hex digits>     a block of it
//! ```
//!
//! A listing shows keys in a form that not every key has: a slash at a key's end is dropped, and
//! whoever deletes what was listed deletes another object. So a listed key is ours only when it is,
//! letter for letter, the key that we would have made.

use crate::{RemovalId, VolumeName};
use object_store::path::Path;
use uuid::Uuid;

const DOMAIN: &str = "domain";
const NAMES: &str = "names";
const REMOVALS: &str = "removals";
const CLOCK: &str = "clock";
const MANIFEST: &str = "manifest";
const LEASE: &str = "lease";
const BLOCKS: &str = "b";
/// The names are spread over so many objects, so that makers of volumes seldom meet.
const SHARDS: u32 = 64;

/// Makes and reads keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Path,
}

/// What lies under a key of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Domain,
    Clock,
    Names(u8),
    Removal(RemovalId),
    Manifest(Uuid),
    Lease(Uuid),
    Block(Uuid, u64),
}

impl Keys {
    pub(super) fn new(prefix: Path) -> Self {
        Self { prefix }
    }

    /// Where all keys begin; empty for a domain that has its bucket alone.
    pub(super) fn prefix(&self) -> &Path {
        &self.prefix
    }

    pub(super) fn domain(&self) -> Path {
        self.prefix.clone().join(DOMAIN)
    }

    pub(super) fn clock(&self) -> Path {
        self.prefix.clone().join(CLOCK)
    }

    pub(super) fn names(&self) -> Path {
        self.prefix.clone().join(NAMES)
    }

    /// The shard that has a name.
    pub(super) fn shard_of(&self, name: &VolumeName) -> Path {
        let shard = crc32fast::hash(name.as_str().as_bytes()) % SHARDS;
        self.names().join(format!("{shard:02x}"))
    }

    pub(super) fn removals(&self) -> Path {
        self.prefix.clone().join(REMOVALS)
    }

    pub(super) fn removal(&self, id: RemovalId) -> Path {
        self.removals().join(id.to_string())
    }

    /// Below it lies everything of a volume.
    pub(super) fn volume(&self, uuid: Uuid) -> Path {
        self.prefix.clone().join(uuid.hyphenated().to_string())
    }

    pub(super) fn manifest(&self, uuid: Uuid) -> Path {
        self.volume(uuid).join(MANIFEST)
    }

    pub(super) fn lease(&self, uuid: Uuid) -> Path {
        self.volume(uuid).join(LEASE)
    }

    pub(super) fn blocks(&self, uuid: Uuid) -> Path {
        self.volume(uuid).join(BLOCKS)
    }

    /// In the order of their keys, blocks are in the order of their numbers.
    pub(super) fn block(&self, uuid: Uuid, index: u64) -> Path {
        self.blocks(uuid).join(format!("{index:016x}"))
    }

    /// What a listed key is; `None` when it is none of ours.
    pub(super) fn read(&self, path: &Path) -> Option<Key> {
        let parts: Vec<_> = path.prefix_match(&self.prefix)?.collect();
        let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
        let uuid = |text: &str| Uuid::try_parse(text).ok();
        let (key, ours) = match parts.as_slice() {
            [DOMAIN] => (Key::Domain, self.domain()),
            [CLOCK] => (Key::Clock, self.clock()),
            [NAMES, shard] => {
                let number = u8::from_str_radix(shard, 16).ok()?;
                (
                    Key::Names(number),
                    self.names().join(format!("{number:02x}")),
                )
            }
            [REMOVALS, id] => {
                let id = id.parse().ok()?;
                (Key::Removal(id), self.removal(id))
            }
            [volume, MANIFEST] => (Key::Manifest(uuid(volume)?), self.manifest(uuid(volume)?)),
            [volume, LEASE] => (Key::Lease(uuid(volume)?), self.lease(uuid(volume)?)),
            [volume, BLOCKS, index] => {
                let (uuid, index) = (uuid(volume)?, u64::from_str_radix(index, 16).ok()?);
                (Key::Block(uuid, index), self.block(uuid, index))
            }
            _ => return None,
        };
        (ours == *path).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(prefix: &str) -> Keys {
        Keys::new(Path::parse(prefix).unwrap())
    }

    #[test]
    fn what_is_made_reads_back() {
        let (uuid, id) = (Uuid::new_v4(), RemovalId::from(Uuid::new_v4()));
        for keys in [keys(""), keys("a/b")] {
            for (path, key) in [
                (keys.domain(), Key::Domain),
                (keys.clock(), Key::Clock),
                (keys.removal(id), Key::Removal(id)),
                (keys.manifest(uuid), Key::Manifest(uuid)),
                (keys.lease(uuid), Key::Lease(uuid)),
                (keys.block(uuid, u64::MAX), Key::Block(uuid, u64::MAX)),
            ] {
                assert_eq!(keys.read(&path), Some(key), "{path}");
                // As a client and a server spell it.
                assert_eq!(Path::parse(path.as_ref()).unwrap(), path);
            }
            let shard = keys.shard_of(&"a+b_c.qcow2".parse().unwrap());
            assert!(matches!(keys.read(&shard), Some(Key::Names(_))));
        }
    }

    #[test]
    fn blocks_are_listed_in_their_order() {
        let (keys, uuid) = (keys("x"), Uuid::nil());
        let listed = [0, 1, 15, 16, 255, 1 << 32, u64::MAX].map(|index| keys.block(uuid, index));
        assert!(listed.is_sorted());
    }

    #[test]
    fn whatever_else_lies_there_is_not_ours() {
        let keys = keys("d");
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        for foreign in [
            "d",
            "domain",
            "d/other",
            "d/names",
            "d/names/7",
            "d/names/0F",
            "d/names/0f/x",
            "d/removals/x",
            &format!("d/{uuid}"),
            &format!("d/{uuid}/b"),
            &format!("d/{uuid}/b/0"),
            &format!("d/{uuid}/b/00000000000000ZZ"),
            &format!("d/{uuid}/b/000000000000000A"),
            &format!("d/{uuid}/b/+00000000000000a"),
            &format!("d/{}/manifest", uuid.to_uppercase()),
            &format!("d/{}/manifest", uuid.replace('-', "")),
        ] {
            assert_eq!(keys.read(&Path::parse(foreign).unwrap()), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn no_key_makes_it_panic(key in "(d/)?[\\PC/]{0,60}") {
            if let Ok(path) = Path::parse(&key) {
                let _ = keys("d").read(&path);
            }
        }
    }
}
