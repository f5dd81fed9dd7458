//! The rig on itself: a real guest writes through a snapshot and a commit, nothing is lost, and the
//! oracle would have seen a loss.

#![allow(clippy::print_stdout, reason = "the measurements")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use livemerge_tests::guest::domain::Workload;
use livemerge_tests::guest::oracle::{self, Verdict};
use livemerge_tests::guest::pairs;
use livemerge_tests::process::run;
use livemerge_tests::rig::{Guest, Rig};

const DISKS: [&str; 2] = ["vda", "vdb"];
const DISK_BYTES: u64 = 256 << 20;
const SLOTS: u64 = 64;
const PAUSE: Duration = Duration::from_millis(300);
const BOOT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30);

fn workload() -> Workload {
    Workload {
        slots: SLOTS,
        fill_mib: 8,
        background_kib: 1024,
        rate: 0,
    }
}

async fn boot(rig: &Rig) -> Result<Guest> {
    let started = Instant::now();
    let mut spec = rig.describe("vm", &DISKS, DISK_BYTES, workload())?;
    spec.pairs = true;
    let guest = rig.start(spec)?;
    guest.acks.wait_for("vda", 0, BOOT).await?;
    println!(
        "first acknowledgement {:?} after the start",
        started.elapsed()
    );
    for disk in DISKS {
        guest.acks.wait_for(disk, 2 * SLOTS, LIMIT).await?;
        guest.acks.wait_for_fill(disk, LIMIT).await?;
    }
    Ok(guest)
}

async fn verdict(guest: &Guest, disk: usize) -> Result<Verdict> {
    guest.acks.catch_up().await?;
    let disk = &guest.spec.disks[disk];
    let acks = guest.acks.acknowledged(&disk.target);
    oracle::verify(&disk.target, &disk.path, SLOTS, &acks)
}

#[tokio::test]
async fn a_guest_loses_nothing_through_a_commit_and_the_oracle_would_see_it() -> Result<()> {
    let rig = Rig::new()?;
    let virsh = rig.virsh();
    let guest = boot(&rig).await?;

    let overlays = DISKS.map(|disk| rig.path().join(format!("{disk}.overlay")));
    virsh.snapshot("vm", &[("vda", &overlays[0]), ("vdb", &overlays[1])])?;
    let (before, measured) = (guest.acks.count("vda"), Instant::now());
    for disk in DISKS {
        guest.acks.wait_for_more(disk, 2 * SLOTS, LIMIT).await?;
    }
    let rate = (guest.acks.count("vda") - before) as f64 / measured.elapsed().as_secs_f64();
    println!("{rate:.0} acknowledgements a second on each of two disks");

    let mark = guest.acks.mark();
    virsh.call(&["suspend", "vm"])?;
    std::thread::sleep(PAUSE);
    virsh.call(&["resume", "vm"])?;
    guest.acks.wait_for_more("vda", 10, LIMIT).await?;
    assert!(
        guest.acks.longest_gap_since("vda", mark) >= PAUSE,
        "a pause is a gap"
    );

    for disk in DISKS {
        let mark = guest.acks.mark();
        virsh.commit_and_pivot("vm", disk)?;
        guest.acks.wait_for_more(disk, 10, LIMIT).await?;
        println!(
            "{disk}: the longest stall was {:?}",
            guest.acks.longest_gap_since(disk, mark)
        );
    }
    let live = virsh.dumpxml("vm")?;
    assert!(
        overlays
            .iter()
            .all(|path| !live.contains(&*path.to_string_lossy())),
        "{live}"
    );

    virsh.destroy("vm")?;
    for disk in 0..DISKS.len() {
        let whole = Verdict {
            acknowledged: SLOTS,
            found: SLOTS,
            lost: vec![],
        };
        assert_eq!(verdict(&guest, disk).await?, whole);
    }

    let acks = guest.acks.acknowledged("vda");
    let newest = acks.newest.context("the guest has written")?;
    let at = newest % SLOTS * 4096;
    overwrite(&guest, at)?;
    assert_eq!(verdict(&guest, 0).await?.lost, [newest]);
    Ok(())
}

/// Zeroes 4 KiB of the first disk behind the oracle's back.
fn overwrite(guest: &Guest, at: u64) -> Result<()> {
    let mut command = Command::new("qemu-io");
    command.args(["-f", "qcow2", "-c", &format!("write -z {at} 4096")]);
    run(command.arg(&guest.spec.disks[0].path))?;
    Ok(())
}

/// Waits until a disk has more pairs in an image than that.
async fn until_pairs(disk: &str, image: &Path, beyond: u64) -> Result<()> {
    let look = async {
        while pairs::newest(disk, image)? <= beyond {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(LIMIT, look).await?
}

/// Puts an overlay on one disk: without a word of the other one libvirt takes it, too.
fn freeze_alone(rig: &Rig, disk: &str, overlay: &Path, other: &str) -> Result<()> {
    let own = format!("{disk},snapshot=external,file={}", overlay.display());
    let other = format!("{other},snapshot=no");
    rig.virsh().call(&[
        "snapshot-create-as",
        "vm",
        "--no-metadata",
        "--disk-only",
        "--diskspec",
        &own,
        "--diskspec",
        &other,
    ])?;
    Ok(())
}

#[tokio::test]
async fn layers_that_were_not_frozen_together_are_told_from_those_that_were() -> Result<()> {
    let rig = Rig::new()?;
    let virsh = rig.virsh();
    let guest = boot(&rig).await?;
    let bases = [0, 1].map(|disk| guest.spec.disks[disk].path.as_path());
    let overlay = |disk: &str, number: u32| rig.path().join(format!("{disk}.{number}"));
    until_pairs("vdb", bases[1], 0).await?;

    let first = DISKS.map(|disk| overlay(disk, 1));
    virsh.snapshot("vm", &[("vda", &first[0]), ("vdb", &first[1])])?;
    pairs::together(DISKS, bases)?;

    let second = DISKS.map(|disk| overlay(disk, 2));
    freeze_alone(&rig, "vda", &second[0], "vdb")?;
    let number = pairs::newest("vda", &first[0])?;
    until_pairs("vdb", &first[1], number).await?;
    freeze_alone(&rig, "vdb", &second[1], "vda")?;
    let torn = pairs::together(DISKS, [&first[0], &first[1]]);
    assert!(torn.is_err(), "{torn:?}");
    Ok(())
}

#[tokio::test]
async fn a_guest_goes_off_at_its_power_button_and_goes_on_where_it_stopped() -> Result<()> {
    let rig = Rig::new()?;
    let virsh = rig.virsh();
    let guest = boot(&rig).await?;

    virsh.power_off("vm")?;
    for disk in 0..DISKS.len() {
        assert!(verdict(&guest, disk).await?.lost.is_empty());
    }

    virsh.call(&["start", "vm"])?;
    guest.acks.wait_for_more("vda", 10, BOOT).await?;
    virsh.kill_qemu("vm")?;
    assert!(verdict(&guest, 0).await?.lost.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_rig_leaves_nothing_behind_after_a_panic() -> Result<()> {
    let rig = Rig::new()?;
    let path = rig.path().to_owned();
    boot(&rig).await?;
    let qemu = rig.virsh().qemu_pid("vm")?;
    let panicked = std::thread::spawn(move || {
        let _rig = rig;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!path.exists(), "{} is still there", path.display());
    let line = fs::read(format!("/proc/{}/cmdline", qemu.as_raw_nonzero()));
    assert!(line.unwrap_or_default().is_empty(), "QEMU still runs");
    Ok(())
}
