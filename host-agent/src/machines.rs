//! The machines of this host as a list that is kept fresh, for watches.
//!
//! An event makes the one machine be read again; a new connection makes all be read again. While the
//! hypervisor does not answer nothing is known: what the machines did before is not shown.

use crate::hypervisor::{Hypervisor, HypervisorError, HypervisorEvent, VmView};
use livemerge_proto::ids::VmId;
use livemerge_runtime::{Backoff, Tries};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast::error::RecvError, watch};

/// All machines are read again so often, whatever the events say.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// Time between two tries to read them while that fails.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

/// What was last known of the host's machines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The machines; `None` while they cannot be read.
    pub vms: Option<BTreeMap<VmId, VmView>>,
    /// Whether the hypervisor answers.
    pub connected: bool,
}

/// Keeps an inventory fresh until nobody watches it any more.
pub fn watch(hypervisor: Arc<dyn Hypervisor>) -> watch::Receiver<Arc<Inventory>> {
    let (sender, receiver) = watch::channel(Arc::default());
    tokio::spawn(async move {
        let keep = keep_fresh(hypervisor.as_ref(), &sender);
        tokio::select! { () = keep => {}, () = sender.closed() => {} }
    });
    receiver
}

async fn keep_fresh(hypervisor: &dyn Hypervisor, shown: &watch::Sender<Arc<Inventory>>) {
    let mut events = hypervisor.events();
    let mut stale = true;
    let mut tries = Tries::new(BACKOFF, "machines");
    loop {
        if stale {
            stale = !read_all(hypervisor, shown).await;
        }
        let pause = if stale {
            tries.failed()
        } else {
            tries.succeeded();
            REFRESH_EVERY
        };
        match tokio::time::timeout(pause, events.recv()).await {
            Ok(Ok(HypervisorEvent::Lifecycle { vm } | HypervisorEvent::BlockJob { vm, .. })) => {
                stale |= !read_one(hypervisor, vm, shown).await;
            }
            Ok(Ok(HypervisorEvent::Disconnected)) => {
                show(shown, |inventory| *inventory = Inventory::default());
                stale = true;
            }
            Ok(Ok(HypervisorEvent::Filling { .. })) => {}
            Ok(Ok(HypervisorEvent::Connected) | Err(RecvError::Lagged(_))) | Err(_) => stale = true,
            Ok(Err(RecvError::Closed)) => return,
        }
    }
}

async fn read_all(hypervisor: &dyn Hypervisor, shown: &watch::Sender<Arc<Inventory>>) -> bool {
    let vms = hypervisor.vms().await.ok();
    let done = vms.is_some();
    let read = Inventory {
        connected: done && hypervisor.connected(),
        vms: vms.map(|vms| vms.into_iter().map(|vm| (vm.id, vm)).collect()),
    };
    show(shown, |inventory| *inventory = read);
    done
}

async fn read_one(
    hypervisor: &dyn Hypervisor,
    id: VmId,
    shown: &watch::Sender<Arc<Inventory>>,
) -> bool {
    let read = hypervisor.vm(id).await;
    let certain = !matches!(
        read,
        Err(ref error) if !matches!(error, HypervisorError::NotFound(_))
    );
    show(shown, |inventory| {
        let Some(vms) = inventory.vms.as_mut() else {
            return;
        };
        match read {
            Ok(vm) => drop(vms.insert(id, vm)),
            Err(HypervisorError::NotFound(_)) => drop(vms.remove(&id)),
            Err(_) => {}
        }
    });
    certain
}

/// Changes what is shown; no change wakes nobody.
fn show(shown: &watch::Sender<Arc<Inventory>>, change: impl FnOnce(&mut Inventory)) {
    shown.send_if_modified(|current| {
        let mut next = Inventory::clone(current);
        change(&mut next);
        let changed = next != **current;
        if changed {
            *current = Arc::new(next);
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::fake::{FakeHypervisor, FakeImages, Pace};
    use livemerge_storage::Locator;

    /// Nobody may take what a machine did before for what it does.
    #[tokio::test]
    async fn nothing_is_known_while_the_hypervisor_does_not_answer() {
        let host = FakeHypervisor::new(FakeImages::default(), Pace::Manual);
        let vm = VmId::from(uuid::Uuid::from_u128(1));
        host.add_vm(vm, "one", &[("vda", &[Locator::File("/a".into())])]);
        let mut shown = watch(Arc::new(host.clone()));
        let known = |inventory: &Arc<Inventory>| {
            let vms = inventory.vms.as_ref();
            inventory.connected && vms.is_some_and(|vms| vms.contains_key(&vm))
        };
        let unknown = |inventory: &Arc<Inventory>| **inventory == Inventory::default();
        shown.wait_for(known).await.unwrap();
        host.disconnect();
        shown.wait_for(unknown).await.unwrap();
        host.connect();
        shown.wait_for(known).await.unwrap();
        // Connected, and without an answer.
        let hangs = HypervisorError::Unknown("hangs".to_owned());
        host.fail_next("vms", hangs);
        host.connect();
        shown.wait_for(unknown).await.unwrap();
        shown.wait_for(known).await.unwrap();
    }
}
