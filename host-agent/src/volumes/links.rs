//! Which volumes paths lead to that no domain spells so. Looking at a path may hang: it is done apart, and
//! again from time to time, since a link may be changed or what it leads to come later.

use livemerge_storage::{LiveVolumes, Locator, VolumeRef};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long an answer is waited for. One that comes later is there for the next question.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many are remembered: more than the layers of a host's machines.
const MOST: usize = 10_000;

/// What was found is true for so long; then it is looked at again, while the old answer is given.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is known of such paths. Clones know the same.
#[derive(Clone)]
pub(super) struct Links {
    known: Arc<Mutex<HashMap<Locator, Known>>>,
    again_after: Duration,
}

#[derive(Clone)]
struct Known {
    /// `None`: nobody has looked yet.
    is: Option<Option<VolumeRef>>,
    /// When it was found, or asked for.
    at: Instant,
    /// A thread is looking. There is never a second one: it might hang, too.
    asked: bool,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            known: Arc::default(),
            again_after: AGAIN_AFTER,
        }
    }
}

impl Links {
    /// The volume of one of these domains, or `None` as long as that is not known.
    pub(super) async fn resolve(
        &self,
        locator: &Locator,
        stores: Vec<Arc<dyn LiveVolumes>>,
    ) -> Option<VolumeRef> {
        let (before, ask) = self.known_and_whether_to_ask(locator);
        let answered = ask.then(|| self.look(locator, stores));
        match (before, answered) {
            (Some(found), _) => found,
            (None, Some(answered)) => {
                let answered = tokio::time::timeout(PATIENCE, answered).await;
                answered.ok()?.ok()?
            }
            (None, None) => None,
        }
    }

    /// Looks, on a thread that is none of the runtime's: at its end that waits for those.
    fn look(
        &self,
        locator: &Locator,
        stores: Vec<Arc<dyn LiveVolumes>>,
    ) -> oneshot::Receiver<Option<VolumeRef>> {
        let (answer, answered) = oneshot::channel();
        let (links, asked) = (self.clone(), locator.clone());
        let looks = move || {
            let found = stores.iter().find_map(|store| {
                Some(VolumeRef {
                    name: store.resolve(&asked)?,
                    storage: store.id().clone(),
                })
            });
            links.learn(&asked, Some(found.clone()));
            let _nobody_waits_any_more = answer.send(found);
        };
        let name = "looks-at-path".to_owned();
        if thread::Builder::new().name(name).spawn(looks).is_err() {
            self.learn(locator, None);
        }
        answered
    }

    /// What was found before, and whether it is for the caller to look now.
    fn known_and_whether_to_ask(&self, locator: &Locator) -> (Option<Option<VolumeRef>>, bool) {
        let mut known = self.known();
        if known.len() >= MOST && !known.contains_key(locator) {
            known.retain(|_, known| known.asked);
        }
        let found = known.entry(locator.clone()).or_insert_with(|| Known {
            is: None,
            at: Instant::now(),
            asked: false,
        });
        let old = found.is.is_none() || found.at.elapsed() >= self.again_after;
        let ask = old && !found.asked;
        found.asked |= ask;
        (found.is.clone(), ask)
    }

    /// `None`: nobody could look.
    fn learn(&self, locator: &Locator, found: Option<Option<VolumeRef>>) {
        if let Some(known) = self.known().get_mut(locator) {
            known.asked = false;
            known.at = Instant::now();
            known.is = found.or_else(|| known.is.take());
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Locator, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn a_path_that_leads_to_a_volume_is_looked_at_once_in_a_while() {
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

    /// With the old answer meanwhile: nobody waits for a look that may hang.
    #[tokio::test]
    async fn a_link_that_was_changed_is_found_out() {
        let rig = Rig::new().await;
        let volume = rig.volume("a.qcow2", None).await;
        let Locator::File(path) = &volume.locator else {
            panic!("a file")
        };
        let links = Links {
            again_after: Duration::ZERO,
            ..Links::default()
        };
        let (outside, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let alias = outside.path().join("alias");
        let link = Locator::File(alias.join("a.qcow2"));
        let now = async || links.resolve(&link, stores(&rig)).await;
        assert_eq!(now().await, None, "it is not there yet");
        let found = Some(volume.volume.clone());
        let domain = path.parent().unwrap();
        for (target, found) in [(domain, &found), (empty.path(), &None), (domain, &found)] {
            let _it_may_be_the_first = std::fs::remove_file(&alias);
            symlink(target, &alias).unwrap();
            let is_found = async {
                while now().await != *found {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let found_out = tokio::time::timeout(Duration::from_secs(20), is_found).await;
            found_out.expect("it is found out");
        }
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
        assert!(links.known_and_whether_to_ask(&hangs).1);
        assert_eq!(links.resolve(&hangs, stores(&rig)).await, None);
    }
}
