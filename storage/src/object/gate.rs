//! What in a domain is built on which of its volumes, as the images' headers say.
//!
//! ```text
//!   every volume that has a name           its block 0
//!   every condemned volume that is kept    it could be restored, and would need what is below: unless
//!                                          that is kept for as long
//!   every volume that is being condemned   it may get its name back
//! ```
//!
//! A header names a volume by its export; the socket before it is another one on each host. So what
//! counts is the name, wherever it stands in a backing string. An image that cannot be read might
//! need anything: that is no answer yet, not a no.

use super::domain::Domain;
use super::image::parent;
use super::removal::{Stage, Tombstone};
use crate::condemned::now;
use crate::image::qcow2::Header;
use crate::{Dependent, Locator, RemovalOrder, StorageError, VolumeName};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::io;
use uuid::Uuid;

/// Headers that are read at once.
const AT_ONCE: usize = 32;

/// What may need a volume.
#[derive(Debug, Clone)]
pub(super) struct Needer {
    name: VolumeName,
    uuid: Uuid,
    /// The removal by which it is condemned.
    condemned: Option<Tombstone>,
}

impl Needer {
    /// For messages.
    pub(super) fn shown(&self) -> String {
        if self.condemned.is_some() {
            format!("volume {}, which is kept and built on it", self.name)
        } else {
            format!("volume {}, which is built on it", self.name)
        }
    }
}

impl Needer {
    /// Whether it keeps a volume from being removed: one that is kept does when it is so for longer.
    pub(super) fn refuses(&self, order: &RemovalOrder) -> bool {
        self.condemned
            .as_ref()
            .is_none_or(|stone| stone.stage == Stage::Taking || stone.order.outlasts(order, now()))
    }
}

impl Domain {
    pub(super) async fn dependents(&self, on: &[Locator]) -> Result<Vec<Dependent>, StorageError> {
        let asked: Vec<_> = on
            .iter()
            .filter_map(|locator| Some((locator, self.resolve(locator)?)))
            .collect();
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = asked.iter().map(|(_, name)| name.clone()).collect();
        let found = self.needers(&names).await?.into_iter();
        let dependents = found.map(|(target, needer)| Dependent {
            on: asked[target].0.clone(),
            locator: self.locator(&needer.name),
            kept: needer.condemned.is_some(),
            volume: needer.condemned.is_none().then_some(needer.name),
        });
        Ok(dependents.collect())
    }

    /// Who needs which of the volumes, by its index.
    pub(super) async fn needers(
        &self,
        targets: &[VolumeName],
    ) -> Result<Vec<(usize, Needer)>, StorageError> {
        let (named, condemned) = tokio::try_join!(self.names.all(), self.condemned_whole())?;
        let named = named.into_iter().map(|(name, uuid)| Needer {
            name,
            uuid,
            condemned: None,
        });
        let all = named
            .chain(condemned)
            .map(|needer| self.needs(needer, targets));
        let found: Vec<_> = stream::iter(all)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.concat())
    }

    /// Passes when the chain below a volume has an end: QEMU would open one that has none for ever.
    pub(super) async fn chain_ends(&self, name: &VolumeName) -> Result<(), StorageError> {
        let mut seen = vec![name.clone()];
        while let Some(top) = seen.last() {
            let uuid = self.find(top).await?.uuid;
            let header = self.header(uuid, &self.what(top)).await?;
            let below = parent(&header).and_then(|parent| self.resolve(&parent.locator));
            let Some(below) = below else { break };
            if seen.contains(&below) {
                return Err(StorageError::Corrupt {
                    what: format!("the chain of {}", self.what(name)),
                    why: format!("it comes back to volume {below}"),
                });
            }
            seen.push(below);
        }
        Ok(())
    }

    /// Condemned volumes that may come back.
    async fn condemned_whole(&self) -> Result<Vec<Needer>, StorageError> {
        let tombstones = self.tombstones().await?;
        let whole = tombstones.into_iter().filter_map(|(_, stone)| {
            let counts = match stone.stage {
                Stage::Taking => true,
                Stage::Kept | Stage::Restored => stone.order.is_kept(now()),
                Stage::Purging => false,
            };
            let uuid = Uuid::try_parse(stone.order.identity.as_str()).ok()?;
            counts.then(|| Needer {
                name: stone.order.volume.clone(),
                uuid,
                condemned: Some(stone),
            })
        });
        Ok(whole.collect())
    }

    async fn needs(
        &self,
        needer: Needer,
        targets: &[VolumeName],
    ) -> Result<Vec<(usize, Needer)>, StorageError> {
        let shown = self.what(&needer.name);
        let header = match self.header(needer.uuid, &shown).await {
            Ok(header) => header,
            Err(error) if self.is_gone(&needer).await? => {
                tracing::debug!(%error, "a volume went while it was looked at");
                return Ok(Vec::new());
            }
            Err(error) => return Err(unreadable(&shown, error)),
        };
        let named = targets.iter().enumerate();
        let named = named.filter(|(_, target)| **target != needer.name && names(&header, target));
        Ok(named.map(|(index, _)| (index, needer.clone())).collect())
    }

    /// One that vanishes while it is looked at needs nothing.
    async fn is_gone(&self, needer: &Needer) -> Result<bool, StorageError> {
        let there = self.manifest(&needer.name, needer.uuid).await;
        match there {
            Ok(_) => Ok(false),
            Err(StorageError::NotFound { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Whether a header may mean a volume, however it spells it.
pub(super) fn names(header: &Header, target: &VolumeName) -> bool {
    header
        .needs()
        .any(|backing| contains(backing, target.as_str()))
}

/// Whether a name stands in a text, and is not a part of a longer one.
fn contains(text: &str, name: &str) -> bool {
    let plain = text.replace("%2B", "+").replace("%2b", "+");
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || "_.+-".contains(c);
    plain.match_indices(name).any(|(at, _)| {
        let before = plain[..at].chars().next_back();
        let behind = plain[at + name.len()..].chars().next();
        !before.is_some_and(of_a_name) && !behind.is_some_and(of_a_name)
    })
}

/// What is wrong with another image is no answer about the volume that was asked for.
fn unreadable(shown: &str, error: StorageError) -> StorageError {
    match error {
        StorageError::Corrupt { .. } | StorageError::Invalid(_) | StorageError::NotFound { .. } => {
            StorageError::Unreachable {
                what: format!("what {shown} is built on"),
                source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn a_name_counts_in_every_spelling_and_alone() {
        for text in [
            "nbd+unix:///a.qcow2?socket=/s",
            "nbd:unix:/s:exportname=a.qcow2",
            r#"json:{"driver":"nbd","export":"a.qcow2"}"#,
            "/elsewhere/a.qcow2",
        ] {
            assert!(contains(text, "a.qcow2"), "{text}");
        }
        assert!(contains("nbd+unix:///a%2Bb?socket=/s", "a+b"));
        for text in [
            "nbd+unix:///ba.qcow2?socket=/s",
            "nbd+unix:///a.qcow2.old?socket=/s",
            "",
        ] {
            assert!(!contains(text, "a.qcow2"), "{text}");
        }
    }
}
