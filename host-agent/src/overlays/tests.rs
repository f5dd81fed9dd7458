//! Orders that are repeated, come twice at once, or meet what cannot be told.

mod freezing;

use super::*;
use crate::rig::{Rig, vda};
use futures::future::join;
use livemerge_storage::{Locator, VolumeStore as _};

/// A machine with one volume, and an order for an overlay on it.
async fn ordered() -> (Rig, Overlays, OverlayOrder) {
    let rig = Rig::new().await;
    let below = rig.volume("base.qcow2", None).await.volume;
    let vm = rig.machine(1, &[rig.locator("base.qcow2")]);
    let overlay = VolumeRef {
        storage: below.storage.clone(),
        name: "overlay.qcow2".parse().unwrap(),
    };
    // The scripted machine's image of what the order will create.
    let images = rig.host.images();
    images.create(
        &rig.locator("overlay.qcow2"),
        Some(&rig.locator("base.qcow2")),
    );
    let order = OverlayOrder {
        request: uuid::Uuid::from_u128(9),
        given: None,
        vm,
        overlays: vec![NewOverlay {
            disk: vda(),
            below,
            overlay,
        }],
        quiesce: Quiesce::IfPossible,
    };
    let overlays = Overlays::new(rig.hypervisor(), Arc::clone(&rig.volumes), Arc::default());
    (rig, overlays, order)
}

fn added(rig: &Rig) -> usize {
    let calls = rig.host.calls();
    calls
        .iter()
        .filter(|call| call.name() == "add_overlays")
        .count()
}

fn assert_on(rig: &Rig, answer: Result<Overlaid, Problem>) {
    let chain = answer.unwrap().chains.remove(0);
    let layers: Vec<Locator> = chain.layers.into_iter().map(|l| l.locator).collect();
    let expected = ["base.qcow2", "overlay.qcow2"].map(|name| rig.locator(name));
    assert_eq!(layers, expected);
}

fn refuse(rig: &Rig) {
    let refused = HypervisorError::Refused("not now".to_owned());
    rig.host.fail_next("add_overlays", refused);
}

async fn there(rig: &Rig) -> bool {
    let name = "overlay.qcow2".parse().unwrap();
    rig.store.stat(&name).await.is_ok()
}

#[tokio::test]
async fn overlays_that_are_on_are_no_refusal_whatever_cannot_be_read() {
    let (rig, overlays, order) = ordered().await;
    std::fs::write(rig.path("half"), b"QFI\xfb\0\0\0\x03").unwrap();
    assert_on(&rig, overlays.create(&order).await);
    assert_on(&rig, overlays.create(&order).await);
    assert_eq!(added(&rig), 1);
    // Nor is the machine's end right behind it.
    let gone = HypervisorError::NotFound("the machine".to_owned());
    rig.host.fail_next("job", gone.clone());
    rig.host.fail_next("job", gone);
    let unknown = overlays.create(&order).await.unwrap_err();
    assert_eq!(unknown.reason, Reason::StorageUnreachable);
}

/// The overlay would have the guest's data as they are.
#[tokio::test]
async fn no_overlay_is_put_on_an_encrypted_volume() {
    let (rig, overlays, order) = ordered().await;
    std::fs::remove_file(rig.path("base.qcow2")).unwrap();
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "--object"])
        .args(["secret,id=s,data=abc", "-o", luks])
        .arg(rig.path("base.qcow2"))
        .arg("1M")
        .status();
    assert!(made.expect("qemu-img is needed here").success());
    let refused = overlays.create(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    assert!(refused.message.contains("is encrypted"), "{refused}");
    assert_eq!(added(&rig), 0);
    assert!(!there(&rig).await);
}

#[tokio::test]
async fn an_order_that_comes_twice_at_once_is_done_once() {
    let (rig, overlays, order) = ordered().await;
    let (one, other) = join(overlays.create(&order), overlays.create(&order)).await;
    assert_on(&rig, one);
    assert_on(&rig, other);
    assert_eq!(added(&rig), 1);
}

/// An earlier try that nobody waits for any more does its work after all, between this try's look
/// and its call.
#[tokio::test]
async fn a_refusal_counts_only_when_the_overlays_are_not_on() {
    let (rig, overlays, order) = ordered().await;
    let late = async {
        let overlay = Overlay {
            disk: vda(),
            locator: rig.locator("overlay.qcow2"),
        };
        rig.host.add_overlays(order.vm, &[overlay]).await.unwrap();
        let refused = HypervisorError::Refused("it is on already".to_owned());
        rig.host.fail_next("add_overlays", refused);
    };
    let (answer, ()) = join(overlays.create(&order), late).await;
    assert_eq!(added(&rig), 2, "the late one came first");
    assert_on(&rig, answer);
    assert!(there(&rig).await);
}

#[tokio::test]
async fn a_refused_order_leaves_nothing_of_its_earlier_tries() {
    let (rig, overlays, order) = ordered().await;
    let unknown = HypervisorError::Unknown("hangs".to_owned());
    rig.host.fail_next("add_overlays", unknown);
    let waits = overlays.create(&order).await.unwrap_err();
    assert_eq!(waits.reason, Reason::HypervisorUnreachable);
    assert!(there(&rig).await, "the next try may find it on");
    refuse(&rig);
    let refused = overlays.create(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    assert!(!there(&rig).await);
}

/// Left behind, the overlay would hold on to the volume below for ever.
#[tokio::test]
async fn an_order_whose_volumes_cannot_be_taken_away_is_not_refused_yet() {
    let (rig, overlays, order) = ordered().await;
    let unknown = || HypervisorError::Unknown("hangs".to_owned());
    rig.host.fail_next("add_overlays", unknown());
    overlays.create(&order).await.unwrap_err();
    refuse(&rig);
    rig.host.fail_next("references", unknown());
    let waits = overlays.create(&order).await.unwrap_err();
    assert_eq!(waits.reason, Reason::HypervisorUnreachable);
    assert!(there(&rig).await);
    refuse(&rig);
    let refused = overlays.create(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    assert!(!there(&rig).await);
}

/// The next start opens them.
#[tokio::test]
async fn a_machine_that_is_shut_off_gets_them_for_its_next_start() {
    let (rig, overlays, order) = ordered().await;
    rig.host.kill_vm(order.vm);
    assert_on(&rig, overlays.create(&order).await);
    assert_on(&rig, overlays.create(&order).await);
    assert_eq!(added(&rig), 1);
    rig.host.start_vm(order.vm).unwrap();
    let view = rig.host.vm(order.vm).await.unwrap();
    let active = view.disks[0].active().map(|layer| layer.locator.clone());
    assert_eq!(active, Some(rig.locator("overlay.qcow2")));
}

#[tokio::test]
async fn a_machine_that_is_elsewhere_may_have_them_on() {
    let (rig, overlays, order) = ordered().await;
    let unknown = HypervisorError::Unknown("hangs".to_owned());
    rig.host.fail_next("add_overlays", unknown);
    overlays.create(&order).await.unwrap_err();
    rig.host.remove_vm(order.vm);
    let refused = overlays.create(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::VmNotFound);
    assert!(there(&rig).await);
}

#[tokio::test]
async fn a_volume_that_no_try_made_is_spared() {
    let (rig, overlays, order) = ordered().await;
    rig.volume("other.qcow2", None).await;
    rig.volume("overlay.qcow2", Some("other.qcow2")).await;
    let refused = overlays.create(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::FieldInvalid);
    assert!(there(&rig).await);
}

/// As its server gives it for the how manyth time.
fn nth(order: &OverlayOrder, sequence: u64) -> OverlayOrder {
    let given = Given {
        generation: 1,
        sequence,
    };
    OverlayOrder {
        given: Some(given),
        ..order.clone()
    }
}

/// The snapshot is taken and deleted, and then an earlier try of its order arrives: the volume below is
/// active again.
#[tokio::test]
async fn an_order_that_comes_late_is_not_carried_out_also_after_a_restart() {
    let (rig, _, order) = ordered().await;
    let orders = tempfile::tempdir().unwrap();
    let opened = || {
        let latest = Arc::new(Latest::open(orders.path()).unwrap());
        Overlays::new(rig.hypervisor(), Arc::clone(&rig.volumes), latest)
    };
    let overlays = opened();
    assert_on(&rig, overlays.create(&nth(&order, 2)).await);
    // On they are no refusal, however late it is.
    assert_on(&rig, overlays.create(&nth(&order, 1)).await);
    rig.host.remove_vm(order.vm);
    rig.machine(1, &[rig.locator("base.qcow2")]);
    let name = "overlay.qcow2".parse().unwrap();
    let left = rig.store.stat(&name).await.unwrap();
    let removal = RemovalOrder::new(uuid::Uuid::from_u128(3).into(), name, left.identity);
    rig.store.remove(&removal).await.unwrap();
    for overlays in [overlays, opened()] {
        for late in [1, 2] {
            let refused = overlays.create(&nth(&order, late)).await.unwrap_err();
            assert_eq!(refused.reason, Reason::StaleGeneration, "{refused}");
        }
    }
    assert_eq!(added(&rig), 1);
    assert!(!there(&rig).await);
}

#[tokio::test]
async fn an_order_that_comes_after_its_refusal_is_not_carried_out() {
    let (rig, overlays, order) = ordered().await;
    // Of whatever kind it is, and by whoever.
    refuse(&rig);
    let refused = overlays.create(&nth(&order, 2)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::StrategyUnsupported);
    let late = overlays.create(&nth(&order, 1)).await.unwrap_err();
    assert_eq!(late.reason, Reason::StaleGeneration);
    let gone = HypervisorError::NotFound("the machine".to_owned());
    rig.host.fail_next("vm", gone);
    let refused = overlays.create(&nth(&order, 4)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::VmNotFound);
    let late = overlays.create(&nth(&order, 3)).await.unwrap_err();
    assert_eq!(late.reason, Reason::StaleGeneration);
    assert_eq!(added(&rig), 1);
    assert!(!there(&rig).await);
    assert_on(&rig, overlays.create(&nth(&order, 5)).await);
}

/// The other side opens the images that it was told of.
#[tokio::test]
async fn no_overlay_is_put_on_a_machine_that_is_on_its_way() {
    let (rig, overlays, order) = ordered().await;
    rig.host.set_migrating(order.vm, true);
    let refused = overlays.create(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::VmMigrating);
    assert_eq!(added(&rig), 0);
    assert!(!there(&rig).await);
    // What cannot be told is no refusal.
    let unknown = HypervisorError::Unknown("hangs".to_owned());
    rig.host.fail_next("migrates", unknown);
    let waits = overlays.create(&order).await.unwrap_err();
    assert_eq!(waits.reason, Reason::HypervisorUnreachable);
    // It has set out between the look and the call.
    rig.host.set_migrating(order.vm, false);
    let gone = HypervisorError::Migrating("held by another job".to_owned());
    rig.host.fail_next("add_overlays", gone);
    let refused = overlays.create(&order).await.unwrap_err();
    assert_eq!(refused.reason, Reason::VmMigrating);
    assert!(!there(&rig).await);
    assert_on(&rig, overlays.create(&order).await);
}

/// What was to be on was named ahead in the definition, and the machine is as it was: it would start from
/// what it never wrote, once that is on a later overlay's way.
#[tokio::test]
async fn an_overlay_that_was_named_ahead_and_is_not_on_is_named_no_more_and_goes() {
    for says_no in [
        HypervisorError::Refused("not now".to_owned()),
        HypervisorError::Storage("Input/output error".to_owned()),
        HypervisorError::Migrating("not now".to_owned()),
    ] {
        let (rig, overlays, order) = ordered().await;
        let (base, overlay) = (rig.locator("base.qcow2"), rig.locator("overlay.qcow2"));
        rig.host.set_next_start(order.vm, &vda(), &overlay);
        rig.host.fail_next("add_overlays", says_no.clone());
        let refused = overlays.create(&order).await.unwrap_err();
        assert_ne!(
            refused.reason,
            Reason::StorageUnreachable,
            "it would be asked for for ever"
        );
        assert!(!there(&rig).await, "{says_no}");
        let vm = rig.hypervisor().vm(order.vm).await.unwrap();
        assert_eq!(vm.disks[0].next_start, Some(base));
    }
}
