//! The gate of a removal: whether anything may still need a volume.
//!
//! ```text
//!   the open count of its device           somebody has it open
//!   the header of every logical volume     one is built on it, foreign ones too, and those that are
//!                                          kept for longer
//!   the tag of one that is being made      it has no header yet
//!   the origin of a snapshot of LVM's      it is removed with what it was made of
//! ```
//!
//! One of this program's volumes that cannot be read might need anything: that is no answer yet, and
//! a refusal. A foreign one that cannot be read needs nothing, unless it begins as an image does: one
//! whose backing name leads nowhere on this host might need anything, too. Of one that its tag calls raw a
//! guest has written the first bytes: what they name counts, and what they leave open does not.

use super::content::{Content, held_open};
use super::domain::Domain;
use super::name::Role;
use super::report::{Group, Logical};
use super::tag;
use super::turn::Turn;
use crate::condemned::{Condemned, now};
use crate::image::backing::{Place, Target};
use crate::{Dependent, Locator, RemovalOrder, StorageError, VolumeName};
use rustix::fs::makedev;
use std::io;
use std::sync::Arc;

/// What may need a target.
#[derive(Debug, Clone)]
pub(super) struct Needer {
    pub(super) name: String,
    /// For messages.
    pub(super) shown: String,
    /// The removal by which it is condemned and kept.
    pub(super) kept: Option<Condemned>,
}

impl Needer {
    /// A volume of the same batch, which stays.
    pub(super) fn of(order: &RemovalOrder, group: &Group) -> Self {
        let name = order.volume.to_string();
        let removed = group.removed(order.id).map(|volume| volume.name.clone());
        Self {
            shown: format!("volume {name}"),
            name: removed.unwrap_or(name),
            kept: None,
        }
    }

    /// Whether it keeps a volume from being removed: one that is kept does when it is so for longer.
    pub(super) fn refuses(&self, order: &RemovalOrder) -> bool {
        self.kept
            .as_ref()
            .is_none_or(|kept| kept.outlasts(order, now()))
    }
}

impl Domain {
    /// The group, and who needs which of the targets, by its index.
    pub(super) async fn needers(
        self: &Arc<Self>,
        group: Group,
        targets: impl FnOnce(&Group) -> Result<Vec<Target>, StorageError> + Send + 'static,
        turn: &Turn,
    ) -> Result<(Group, Vec<(usize, Needer)>), StorageError> {
        let (group, activated) = self.readable(group, counts, turn).await?;
        let looked_at = activated.clone();
        let looked = self.look(move |domain| {
            let targets = targets(&group)?;
            let needers = domain.needers_of(&group, &targets)?;
            Ok((group, needers))
        });
        let looked = looked.await;
        self.put_back(activated, turn).await;
        let (mut group, needers) = looked?;
        group.looked_at(&looked_at);
        Ok((group, needers))
    }

    fn needers_of(
        &self,
        group: &Group,
        targets: &[Target],
    ) -> Result<Vec<(usize, Needer)>, StorageError> {
        let _open = held_open(group);
        let mut found = Vec::new();
        for volume in group.volumes.iter().filter(|volume| counts(volume)) {
            let (own, shown) = (self.target(volume), self.shown(volume));
            // Whatever it holds, it does not need itself.
            if targets.iter().all(|target| own.is(target)) {
                continue;
            }
            let unread = |error| unreadable(&shown, error);
            let mut needed = self.needs(volume, group, &shown).map_err(unread)?;
            needed.extend(self.origin(group, volume));
            for (index, target) in targets.iter().enumerate() {
                let means = needed.iter().any(|needed| needed.may_be(target));
                if means && !own.is(target) {
                    found.push((
                        index,
                        Needer {
                            name: volume.name.clone(),
                            shown: shown.clone(),
                            kept: kept(volume),
                        },
                    ));
                }
            }
        }
        Ok(found)
    }

    fn needs(
        &self,
        volume: &Logical,
        group: &Group,
        shown: &str,
    ) -> Result<Vec<Target>, StorageError> {
        if volume.is_ours() && volume.role() == Role::New {
            let parent = tag::parent(&volume.tags).map(|parent| self.name.path(parent));
            return parent.iter().map(|path| Target::of(path)).collect();
        }
        match Content::read(&self.name, volume, shown) {
            Err(StorageError::Unreachable { .. }) if !volume.is_ours() => Ok(Vec::new()),
            Ok(content) if group.seen_before && content.lacks_header() => {
                Err(StorageError::Corrupt {
                    what: shown.to_owned(),
                    why: "it has no qcow2 header where it lay before".to_owned(),
                })
            }
            content => content?.needs(),
        }
    }

    /// What it is a snapshot of, which LVM does not remove without it.
    fn origin(&self, group: &Group, volume: &Logical) -> Option<Target> {
        let origin = group.named(volume.origin.as_deref()?)?;
        Some(self.target(origin))
    }

    pub(super) fn target(&self, volume: &Logical) -> Target {
        let number = volume.device.map(|(major, minor)| makedev(major, minor));
        Target {
            path: self.name.path(&volume.name),
            place: number.map(Place::Device),
        }
    }

    pub(super) fn target_named(&self, group: &Group, name: &VolumeName) -> Target {
        let path = self.name.path(name.as_str());
        let here = group.volume(name).map(|volume| self.target(volume));
        here.unwrap_or(Target { path, place: None })
    }

    pub(super) fn shown(&self, volume: &Logical) -> String {
        format!("logical volume {}/{}", self.name.as_str(), volume.name)
    }

    pub(super) async fn dependents(
        self: &Arc<Self>,
        on: &[Locator],
    ) -> Result<Vec<Dependent>, StorageError> {
        let mut locators = Vec::new();
        let mut paths = Vec::new();
        for locator in on {
            if let Locator::File(path) | Locator::Block(path) = locator {
                locators.push(locator.clone());
                paths.push(self.name.canonical(path));
            }
        }
        let turn = self.look_turn().await?;
        let targets = move |_: &Group| paths.iter().map(|path| Target::of(path)).collect();
        let (group, found) = self.needers(self.report().await?, targets, &turn).await?;
        let dependent = |(target, needer): (usize, Needer)| Dependent {
            on: locators[target].clone(),
            volume: group.named(&needer.name).and_then(volume_name),
            locator: Locator::Block(self.name.path(&needer.name)),
            kept: needer.kept.is_some(),
        };
        Ok(found.into_iter().map(dependent).collect())
    }
}

/// Whether what a logical volume is built on counts: not when it is being freed.
fn counts(volume: &Logical) -> bool {
    if !volume.is_ours() || !matches!(volume.role(), Role::Removed(_)) {
        return true;
    }
    // A removal that cannot be read may be kept.
    tag::removal(&volume.tags).map_or(true, |order| order.is_kept(now()))
}

/// The removal by which a volume is condemned, when it can be read.
fn kept(volume: &Logical) -> Option<Condemned> {
    let condemned = volume.is_ours() && matches!(volume.role(), Role::Removed(_));
    condemned.then(|| tag::removal(&volume.tags).ok()).flatten()
}

fn volume_name(volume: &Logical) -> Option<VolumeName> {
    match volume.role() {
        Role::Volume(name) if volume.is_ours() => Some(name),
        _ => None,
    }
}

/// What is wrong with another image is no answer about the volume that was asked for.
fn unreadable(shown: &str, error: StorageError) -> StorageError {
    match error {
        StorageError::Corrupt { .. } | StorageError::Invalid(_) => StorageError::Unreachable {
            what: format!("what {shown} is built on"),
            source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        },
        other => other,
    }
}
