//! Which volumes paths lead to that no domain spells so, asked once each: looking at a path may hang.

use livemerge_storage::{LiveVolumes, Locator, VolumeRef};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long an answer is waited for. One that comes later is there for the next question.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many are remembered: more than the layers of a host's machines.
const MOST: usize = 10_000;

/// What is known of such paths. Clones know the same.
#[derive(Clone, Default)]
pub(super) struct Links(Arc<Mutex<HashMap<Locator, Known>>>);

#[derive(Clone)]
enum Known {
    /// A thread is looking. There is never a second one: it might hang, too.
    Asked,
    Is(Option<VolumeRef>),
}

impl Links {
    /// The volume of one of these domains, or `None` as long as that is not known.
    pub(super) async fn resolve(
        &self,
        locator: &Locator,
        stores: Vec<Arc<dyn LiveVolumes>>,
    ) -> Option<VolumeRef> {
        match self.known_or_asked(locator) {
            Some(Known::Is(volume)) => return volume,
            Some(Known::Asked) => return None,
            None => {}
        }
        let (answer, answered) = oneshot::channel();
        let (links, asked) = (self.clone(), locator.clone());
        // Not one of the runtime's threads: at its end it waits for those.
        let looks = move || {
            let found = stores.iter().find_map(|store| {
                Some(VolumeRef {
                    name: store.resolve(&asked)?,
                    storage: store.id().clone(),
                })
            });
            links.learn(asked, Some(Known::Is(found.clone())));
            let _nobody_waits_any_more = answer.send(found);
        };
        let name = "looks-at-path".to_owned();
        if thread::Builder::new().name(name).spawn(looks).is_err() {
            self.learn(locator.clone(), None);
            return None;
        }
        let answered = tokio::time::timeout(PATIENCE, answered).await;
        answered.ok()?.ok()?
    }

    /// What is known; whoever is told nothing asks.
    fn known_or_asked(&self, locator: &Locator) -> Option<Known> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(locator) {
            return Some(found.clone());
        }
        if known.len() >= MOST {
            known.retain(|_, known| matches!(known, Known::Asked));
        }
        known.insert(locator.clone(), Known::Asked);
        None
    }

    fn learn(&self, locator: Locator, found: Option<Known>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(found) => known.insert(locator, found),
            None => known.remove(&locator),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::Rig;
    use std::os::unix::fs::symlink;

    fn stores(rig: &Rig) -> Vec<Arc<dyn LiveVolumes>> {
        vec![Arc::clone(&rig.store) as _]
    }

    #[tokio::test]
    async fn a_path_that_leads_to_a_volume_is_looked_at_once() {
        let rig = Rig::new().await;
        let volume = rig.volume("a.qcow2", None).await;
        let Locator::File(path) = &volume.locator else {
            panic!("a file")
        };
        let outside = tempfile::tempdir().unwrap();
        let link = outside.path().join("alias");
        symlink(path.parent().unwrap(), &link).unwrap();
        let (links, link) = (Links::default(), Locator::File(link.join("a.qcow2")));
        let found = links.resolve(&link, stores(&rig)).await;
        assert_eq!(found, Some(volume.volume.clone()));
        drop(outside);
        let again = links.resolve(&link, stores(&rig)).await;
        assert_eq!(again, Some(volume.volume), "as it was");
    }

    #[tokio::test]
    async fn one_that_leads_nowhere_is_none() {
        let (rig, links) = (Rig::new().await, Links::default());
        let nowhere = Locator::File("/nowhere/at/all".into());
        for _ in 0..2 {
            assert_eq!(links.resolve(&nowhere, stores(&rig)).await, None);
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_a_look_that_hangs() {
        let (rig, links) = (Rig::new().await, Links::default());
        let hangs = Locator::File("/hangs".into());
        links.learn(hangs.clone(), Some(Known::Asked));
        assert_eq!(links.resolve(&hangs, stores(&rig)).await, None);
    }
}
