//! Merges that go to their end, and those that do not.

use std::fs;
use std::path::Path;
use std::process::Command;

use livemerge_host_agent::hypervisor::{BlockJobOutcome, Hypervisor};
use livemerge_storage::ImageHead;

use crate::rig::{Rig, SLOW, refused, run, vda, vm};

#[tokio::test(flavor = "multi_thread")]
async fn the_definition_follows_when_the_top_is_merged() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let (content, before) = (rig.content("c"), rig.definition());
    let top = fs::read(rig.path("c")).unwrap();
    rig.merge("b", "c").await;
    rig.sees(&["a", "b"]).await;
    assert!(rig.content("b") == content);
    // Nothing else of the definition has changed, and the removed image is as it was.
    let name = |name: &str| format!("'{}'", rig.path(name).display());
    assert_eq!(rig.definition(), before.replace(&name("c"), &name("b")));
    assert!(fs::read(rig.path("c")).unwrap() == top);
    rig.runs(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_above_follows_and_keeps_its_name_relative() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let (content, before) = (rig.content("c"), rig.definition());
    rig.merge("a", "b").await;
    rig.sees(&["a", "c"]).await;
    assert!(rig.content("c") == content);
    assert_eq!(rig.definition(), before);
    let head = ImageHead::read(&rig.path("c"), None).unwrap();
    assert_eq!(head.backing.as_deref(), Some("a"));
    rig.runs(&["a", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_layers_go_at_once() {
    let mut rig = Rig::new(&["a", "b", "c", "d"]).await;
    let content = rig.content("d");
    rig.merge("a", "c").await;
    rig.sees(&["a", "d"]).await;
    assert!(rig.content("d") == content);
    rig.merge("a", "d").await;
    rig.sees(&["a"]).await;
    assert!(rig.content("a") == content);
    rig.runs(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_base_is_written_and_started_as_raw() {
    let mut rig = Rig::new(&["raw", "b", "c"]).await;
    let content = rig.content("c");
    rig.merge("raw", "c").await;
    rig.sees(&["raw"]).await;
    assert!(fs::read(rig.path("raw")).unwrap() == content);
    let driver = "<driver name='qemu' type='raw' cache='writeback' discard='unmap'/>";
    assert!(rig.definition().contains(driver), "{}", rig.definition());
    rig.runs(&["raw"]).await;
}

/// Takes the last cluster of an image for free, though a table has data there.
fn forget_last_cluster(image: &Path) {
    use std::os::unix::fs::FileExt as _;
    const CLUSTER: u64 = 64 << 10;
    let file = fs::File::options().read(true).write(true).open(image);
    let file = file.unwrap();
    let number = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    // The header names the table, whose first entry names the counts of the first clusters.
    let counts = number(number(48));
    let last = file.metadata().unwrap().len().div_ceil(CLUSTER) - 1;
    file.write_all_at(&[0, 0], counts + 2 * last).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_merge_leaves_damaged_stays_in_the_chain() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let before = rig.definition();
    forget_last_cluster(&rig.path("a"));
    rig.start("a", "b", 0).await;
    rig.told(BlockJobOutcome::Damaged).await;
    rig.sees(&["a", "b", "c"]).await;
    assert_eq!(rig.definition(), before);
    let head = ImageHead::read(&rig.path("c"), None).unwrap();
    assert_eq!(head.backing.as_deref(), Some("b"));
    // Of those that nothing was written into, nothing is said.
    rig.merge("b", "c").await;
    rig.sees(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_base_grows() {
    let mut rig = Rig::new(&["a", "b"]).await;
    let grow = |image: &str| {
        let mut resize = Command::new("qemu-img");
        run(resize
            .args(["resize", "-q"])
            .arg(rig.path(image))
            .arg("24M"));
        let mut write = Command::new("qemu-io");
        run(write.args(["-c", "write -P 9 20M 1M"]).arg(rig.path(image)));
    };
    grow("b");
    let content = rig.content("b");
    assert_eq!(content.len(), 24 << 20);
    rig.merge("a", "b").await;
    rig.sees(&["a"]).await;
    assert!(rig.content("a") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_can_be_begun_again() {
    let mut rig = Rig::new(&["a", "b", "c"]).await;
    let (content, before) = (rig.content("c"), rig.definition());
    rig.start("a", "c", SLOW).await;
    rig.copies().await;
    let second = rig.libvirt.start_job(vm(), &rig.order("a", "b", 0)).await;
    assert!(refused(second).contains("block job"));
    rig.libvirt.abort_job(vm(), &vda()).await.unwrap();
    rig.told(BlockJobOutcome::Cancelled).await;
    assert_eq!(rig.libvirt.job(vm(), &vda()).await.unwrap(), None);
    rig.sees(&["a", "b", "c"]).await;
    assert!(rig.content("c") == content);
    assert_eq!(rig.definition(), before);
    rig.runs(&["a", "b", "c"]).await;
    rig.merge("a", "c").await;
    assert!(rig.content("a") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_is_a_failed_job() {
    let mut rig = Rig::new(&["a", "b"]).await;
    let content = rig.content("b");
    rig.start("a", "b", SLOW).await;
    rig.copies().await;
    run(Command::new("kill").args(["-9", &rig.child()]));
    rig.told(BlockJobOutcome::Failed).await;
    rig.sees(&["a", "b"]).await;
    assert!(rig.content("b") == content);
    rig.merge("a", "b").await;
    assert!(rig.content("a") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_can_be_changed_on_the_way() {
    let mut rig = Rig::new(&["a", "b"]).await;
    let content = rig.content("b");
    rig.start("a", "b", SLOW).await;
    rig.copies().await;
    rig.libvirt.set_speed(vm(), &vda(), 0).await.unwrap();
    rig.told(BlockJobOutcome::Completed).await;
    rig.sees(&["a"]).await;
    assert!(rig.content("a") == content);
}
