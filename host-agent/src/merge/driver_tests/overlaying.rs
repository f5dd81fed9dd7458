//! A guest that is never caught up with gets a fresh overlay.

use super::*;
use crate::hypervisor::HypervisorError;
use livemerge_storage::{VolumeRef, VolumeStore as _};

const SPARE: &str = "spare.qcow2";

impl Host {
    /// A merge of `vda` whose copy stands still, with a name for an overlay.
    async fn hopeless(&self) -> MergeId {
        let mut order = self.commit(&vda(), 0, 2);
        order.spare = Some(VolumeRef {
            storage: order.kept.volume.storage.clone(),
            name: SPARE.parse().unwrap(),
        });
        // The scripted machine's image of what the agent will create.
        let top = locators(self.chain_of(&vda())).pop().unwrap();
        let images = self.qemu().images();
        images.create(&self.rig.locator(SPARE), Some(&top));
        // The first rung is the last one.
        let refused = HypervisorError::Refused("one limit for both".to_owned());
        self.qemu().fail_next("write_limit", refused);
        let id = order.id;
        self.merges.start(vec![order]).await.unwrap();
        id
    }

    async fn commits_below(&self) {
        let is_commit = || {
            let job = self.qemu().running_job(self.vm, &vda());
            job.is_some_and(|job| job.kind == crate::hypervisor::BlockJobKind::Commit)
        };
        eventually("the commit below", is_commit).await;
    }

    fn layers(&self) -> Vec<Locator> {
        let machine = self.qemu().peek(self.vm).expect("it is defined");
        let disk = machine.disk(&vda()).expect("it has the disk");
        let layers = disk.chain.iter();
        layers.map(|layer| layer.locator.clone()).collect()
    }

    async fn spare_there(&self) -> bool {
        self.rig.store.stat(&SPARE.parse().unwrap()).await.is_ok()
    }

    fn overlaid(&self, merge: MergeId) -> bool {
        let record = self.merges.get(merge).expect("it is known").record;
        assert_eq!(record.overlaid, record.kind == MergeKind::Commit);
        record.overlaid
    }
}

#[tokio::test]
async fn what_lies_below_it_is_committed_and_the_thin_one_stays() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.hopeless().await;
    host.commits_below().await;
    assert!(host.overlaid(id));
    host.qemu().advance(host.vm, &vda(), usize::MAX);
    assert!(merged(&host.ended(id).await));
    let base = locators(host.chain_of(&vda())).remove(0);
    assert_eq!(host.layers(), [base, host.rig.locator(SPARE)]);
    let stops = |call: &Call| matches!(call, Call::Suspend(_) | Call::Pivot(..));
    assert_eq!(host.count(stops), 0);
    host.guest_is_well();
}

#[tokio::test]
async fn each_step_of_it_survives_the_end_of_the_agent_and_lost_replies() {
    let lost = || HypervisorError::Unknown("no answer".to_owned());
    for call in ["abort_job", "add_overlays", "start_job"] {
        for done in [false, true] {
            let mut host = Host::impatient(&["vda"]).await;
            // The first start is the one of the active commit.
            let id = host.hopeless().await;
            host.job(&vda()).await;
            if done {
                host.qemu().lose_reply(call);
            } else {
                host.qemu().fail_next(call, lost());
            }
            let asked = || host.count(|made| made.name() == call);
            let before = usize::from(call == "start_job");
            eventually("the call", || asked() > before).await;
            host.restart().await;
            host.commits_below().await;
            host.qemu().advance(host.vm, &vda(), usize::MAX);
            assert!(merged(&host.ended(id).await), "{call} {done}");
            assert!(host.overlaid(id));
            assert_eq!(host.layers().len(), 2);
            host.guest_is_well();
        }
    }
}

#[tokio::test]
async fn an_overlay_that_is_refused_ends_the_merge_and_leaves_nothing() {
    let host = Host::impatient(&["vda"]).await;
    let refused = HypervisorError::Refused("not now".to_owned());
    host.qemu().fail_next("add_overlays", refused);
    let id = host.hopeless().await;
    let ended = host.ended(id).await;
    assert_eq!(failed_with(&ended), Some(Reason::MergeIoError));
    assert!(!host.overlaid(id));
    assert!(!host.spare_there().await);
    host.chain_is(&vda(), 3);
    host.guest_is_well();
}

#[tokio::test]
async fn it_can_be_given_up_below_the_overlay_which_stays() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.hopeless().await;
    host.commits_below().await;
    host.merges.cancel(id, GENERATION).await.unwrap();
    assert!(cancelled(&host.ended(id).await));
    assert!(host.overlaid(id), "who ordered it has to know");
    assert_eq!(host.layers().len(), 4);
    assert!(host.spare_there().await);
    host.guest_is_well();
}

/// It is made, and whether it is on was not told when the machine ends; something was written to it or not.
async fn ends_while_it_is_put_on(written: bool) -> Host {
    let host = Host::impatient(&["vda"]).await;
    for _ in 0..100 {
        let lost = HypervisorError::Unknown("no answer".to_owned());
        host.qemu().fail_next("add_overlays", lost);
    }
    let id = host.hopeless().await;
    let asked = || host.count(|call| call.name() == "add_overlays");
    eventually("the overlay", || asked() > 0).await;
    if written {
        let Locator::File(path) = host.rig.locator(SPARE) else {
            panic!("a file")
        };
        let io = std::process::Command::new("qemu-io")
            .args(["-c", "write 0 64k"])
            .arg(path)
            .output();
        assert!(io.expect("qemu-io, of qemu-utils").status.success());
    }
    host.qemu().kill_vm(host.vm);
    let ended = host.ended(id).await;
    assert_eq!(failed_with(&ended), Some(Reason::VmDied));
    host
}

#[tokio::test]
async fn a_machine_that_ends_before_it_is_seen_on_keeps_what_was_written_to_it() {
    // `doctor` tells of a volume that nothing names.
    let host = ends_while_it_is_put_on(true).await;
    assert!(host.spare_there().await);
}

/// Left behind it would be built on the layer that a later delete merges, which would be refused.
#[tokio::test]
async fn a_machine_that_ends_before_it_is_written_to_leaves_no_overlay() {
    let host = ends_while_it_is_put_on(false).await;
    assert!(!host.spare_there().await);
}
