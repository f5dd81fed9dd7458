//! Several disks: all or none, as long as that can be had.

use super::*;

#[tokio::test]
async fn no_disk_pivots_before_all_have_caught_up() {
    let host = Host::new(&["vda", "vdb"]).await;
    let [a, b] = <[MergeId; 2]>::try_from(host.started(&["vda", "vdb"]).await).unwrap();
    host.copy(&vda()).await;
    host.until(a, ready).await;
    host.job(&vdb()).await;
    for disk in [vda(), vdb()] {
        host.looks(&disk).await;
    }
    let stops = |call: &Call| matches!(call, Call::Suspend(_) | Call::Pivot(..));
    assert_eq!(host.count(stops), 0);
    assert!(ready(&host.phase(a)) && copies(&host.phase(b)));
    host.copy(&vdb()).await;
    host.switch(&vda()).await;
    host.switch(&vdb()).await;
    for (id, disk) in [(a, vda()), (b, vdb())] {
        assert!(merged(&host.ended(id).await));
        host.chain_is(&disk, 1);
    }
    host.guest_is_well();
}

/// Each disk is switched by itself: in the time in which the guest stands still nothing is done for
/// another one.
#[tokio::test]
async fn the_guest_stands_still_for_one_disk_at_a_time() {
    let host = Host::new(&["vda", "vdb", "vdc"]).await;
    let ids = host.started(&["vda", "vdb", "vdc"]).await;
    let disks: Vec<DiskTarget> = host.disks.iter().map(|(disk, _)| disk.clone()).collect();
    for disk in &disks {
        host.copy(disk).await;
    }
    for disk in &disks {
        host.switch(disk).await;
    }
    for id in ids {
        assert!(merged(&host.ended(id).await));
    }
    let mut still = None;
    let mut pivoted = vec![];
    for call in host.qemu().calls() {
        let disk = match &call {
            Call::Suspend(_) => {
                assert_eq!(still, None, "it stands still already");
                still = Some(vec![]);
                continue;
            }
            Call::Resume(_) => {
                let mut disks = still.take().expect("it stands still");
                disks.dedup();
                assert_eq!(disks.len(), 1, "{disks:?}");
                pivoted.extend(disks);
                continue;
            }
            Call::Job(_, disk)
            | Call::Pivot(_, disk)
            | Call::AbortJob(_, disk)
            | Call::SetSpeed(_, disk, _) => disk.clone(),
            Call::StartJob(_, order) => order.disk.clone(),
            _ => continue,
        };
        if let Some(disks) = &mut still {
            disks.push(disk);
        }
    }
    assert_eq!(still, None);
    assert_eq!(pivoted, disks);
    host.guest_is_well();
}

#[tokio::test]
async fn a_job_that_fails_before_the_first_pivot_cancels_the_others() {
    for first in [0, 1] {
        let host = Host::new(&["vda", "vdb"]).await;
        let ids = host.started(&["vda", "vdb"]).await;
        let disks = [vda(), vdb()];
        for disk in &disks {
            host.job(disk).await;
        }
        let other = 1 - first;
        host.copy(&disks[other]).await;
        host.until(ids[other], ready).await;
        host.qemu().fail_job(host.vm, &disks[first]);
        let failed = host.ended(ids[first]).await;
        assert_eq!(failed_with(&failed), Some(Reason::MergeIoError));
        assert!(cancelled(&host.ended(ids[other]).await));
        for disk in &disks {
            host.chain_is(disk, 3);
        }
        let stops = |call: &Call| matches!(call, Call::Suspend(_) | Call::Pivot(..));
        assert_eq!(host.count(stops), 0);
        host.guest_is_well();
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_started_cancels_what_was_not_begun() {
    let host = Host::new(&["vda", "vdb"]).await;
    let refused = HypervisorError::Refused("no".to_owned());
    host.qemu().fail_next("start_job", refused);
    let ids = host.started(&["vda", "vdb"]).await;
    let failed = host.ended(ids[0]).await;
    assert_eq!(failed_with(&failed), Some(Reason::MergeIoError));
    assert!(cancelled(&host.ended(ids[1]).await));
    for disk in [vda(), vdb()] {
        host.chain_is(&disk, 3);
    }
    host.guest_is_well();
}

#[tokio::test]
async fn what_fails_after_the_first_pivot_is_one_s_own() {
    let host = Host::new(&["vda", "vdb", "vdc"]).await;
    let ids = host.started(&["vda", "vdb", "vdc"]).await;
    let [a, b, c] = ["vda", "vdb", "vdc"].map(|disk| disk.parse::<DiskTarget>().unwrap());
    for disk in [&a, &b, &c] {
        host.copy(disk).await;
    }
    let asked = || host.count(|call| matches!(call, Call::Pivot(..))) == 1;
    eventually("the first pivot", asked).await;
    host.qemu().fail_job(host.vm, &b);
    host.switch(&a).await;
    host.switch(&c).await;
    assert!(merged(&host.ended(ids[0]).await));
    let failed = host.ended(ids[1]).await;
    assert_eq!(failed_with(&failed), Some(Reason::MergeIoError));
    assert!(merged(&host.ended(ids[2]).await));
    host.chain_is(&a, 1);
    host.chain_is(&b, 3);
    host.chain_is(&c, 1);
    host.guest_is_well();
}

/// What ends by itself keeps nobody waiting, and waits for nobody.
#[tokio::test]
async fn an_intermediate_commit_ends_without_the_others() {
    let host = Host::new(&["vda", "vdb"]).await;
    let mut orders = vec![host.commit(&vda(), 0, 2), host.commit(&vdb(), 0, 1)];
    let ids = [orders[0].id, orders[1].id];
    for order in &mut orders {
        order.together = ids.to_vec();
    }
    host.merges.start(orders).await.unwrap();
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(ids[0]).await));
    assert!(copies(&host.phase(ids[1])));
    host.copy(&vdb()).await;
    assert!(merged(&host.ended(ids[1]).await));
    host.guest_is_well();
}

/// What QEMU pulled is in its memory alone until the guest was stopped.
#[tokio::test]
async fn a_pull_stops_the_guest_before_it_is_merged() {
    let host = Host::new(&["vda"]).await;
    let mut order = host.commit(&vda(), 0, 2);
    let kept = order.removed.pop().expect("two are removed");
    let base = std::mem::replace(&mut order.kept, kept);
    order.removed.insert(0, base);
    order.direction = Direction::Pull;
    order.bytes_per_second = 4096;
    let (id, top) = (order.id, order.kept.volume.clone());
    host.merges.start(vec![order]).await.unwrap();
    host.job(&vda()).await;
    host.looks(&vda()).await;
    let stops = |call: &Call| matches!(call, Call::Suspend(_));
    assert_eq!(host.count(stops), 0);
    host.copy(&vda()).await;
    assert!(merged(&host.ended(id).await));
    let changes: Vec<_> = host.qemu().calls();
    let changes: Vec<_> = changes.iter().filter(|call| call.mutates()).collect();
    assert!(matches!(changes[0], Call::StartJob(..)), "{changes:?}");
    assert_eq!(
        changes[1..],
        [&Call::Suspend(host.vm), &Call::Resume(host.vm)]
    );
    let machine = host.qemu().peek(host.vm).unwrap();
    let chain = &machine.disk(&vda()).unwrap().chain;
    assert_eq!(chain.len(), 1);
    assert_eq!(host.chain_of(&vda())[2].volume, top);
    assert_eq!(chain[0].locator, host.chain_of(&vda())[2].locator);
    host.guest_is_well();
}

#[tokio::test]
async fn a_machine_that_dies_fails_all() {
    let host = Host::new(&["vda", "vdb"]).await;
    let ids = host.started(&["vda", "vdb"]).await;
    host.copy(&vda()).await;
    host.until(ids[0], ready).await;
    host.qemu().kill_vm(host.vm);
    for id in ids {
        assert_eq!(failed_with(&host.ended(id).await), Some(Reason::VmDied));
    }
}

#[tokio::test]
async fn repeated_orders_are_the_same_merges() {
    let host = Host::new(&["vda", "vdb"]).await;
    let orders = host.group(&["vda", "vdb"]);
    let first = host.merges.start(orders.clone()).await.unwrap();
    host.job(&vda()).await;
    host.job(&vdb()).await;
    let mut backwards: Vec<_> = orders.iter().rev().cloned().collect();
    for order in &mut backwards {
        order.together.reverse();
        // Another server's, and its own idea of the speed.
        (order.generation, order.bytes_per_second) = (GENERATION + 1, 9);
    }
    for (again, ids) in [(orders.clone(), [0, 1]), (backwards, [1, 0])] {
        let views = host.merges.start(again).await.unwrap();
        let known: Vec<_> = views.iter().map(|view| view.record.order.clone()).collect();
        let wanted = ids.map(|place: usize| first[place].record.order.clone());
        assert_eq!(known, wanted);
    }
    assert_eq!(host.count(|call| matches!(call, Call::StartJob(..))), 2);
}

#[tokio::test]
async fn an_id_of_other_orders_is_refused_and_nothing_is_done() {
    let host = Host::new(&["vda", "vdb", "vdc"]).await;
    let orders = host.group(&["vda", "vdb"]);
    host.merges.start(orders.clone()).await.unwrap();
    host.job(&vda()).await;
    host.job(&vdb()).await;
    let mut changed = orders.clone();
    changed[1].removed.truncate(1);
    let alone = |order: &MergeOrder| MergeOrder {
        together: vec![order.id],
        ..order.clone()
    };
    let part = vec![alone(&orders[0])];
    let more = [orders.clone(), host.group(&["vdc"])].concat();
    let twice = host.group(&["vdc"]);
    let twice = [twice.clone(), twice].concat();
    for wrong in [changed, part, more, twice] {
        let refused = host.merges.start(wrong).await.unwrap_err();
        assert_eq!(refused.reason, Reason::MergeIdConflict);
    }
    assert_eq!(host.merges.watch().borrow().len(), 2);
    let starts = |call: &Call| matches!(call, Call::StartJob(..));
    assert_eq!(host.count(starts), 2);
}

#[tokio::test]
async fn of_orders_of_which_one_cannot_be_carried_out_none_is_accepted() {
    let host = Host::new(&["vda", "vdb"]).await;
    let mut orders = host.group(&["vda", "vdb"]);
    orders[1].removed.reverse();
    let refused = host.merges.start(orders).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ChainDiverged);
    let journal = std::fs::read_dir(host.state.path().join("merges")).unwrap();
    assert_eq!(journal.count(), 0);
    assert_eq!(host.count(Call::mutates), 0);
    assert!(host.merges.watch().borrow().is_empty());
}
