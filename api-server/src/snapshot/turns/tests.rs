//! Who merges next.

use super::*;
use uuid::Uuid;

fn places(host: &str, storages: &[&str]) -> BTreeSet<Place> {
    let storages = storages
        .iter()
        .map(|id| Place::Storage(id.parse().unwrap()));
    storages
        .chain([Place::Host(host.parse().unwrap())])
        .collect()
}

fn host(merges: u32, bytes_per_second: u64) -> Limits {
    let host = Limit {
        merges,
        bytes_per_second,
    };
    Limits {
        host,
        storage: Limit::default(),
    }
}

fn each(merges: u32) -> Limits {
    let limit = Limit {
        merges,
        bytes_per_second: 0,
    };
    Limits {
        host: limit,
        storage: limit,
    }
}

fn id(number: u128) -> OperationId {
    OperationId::from(Uuid::from_u128(number))
}

fn waits(ticket: &mut Ticket) -> Option<(String, u32)> {
    match ticket.standing() {
        Standing::Waits { at, position } => Some((at.to_string(), position)),
        Standing::Seated => None,
    }
}

#[test]
fn who_was_accepted_first_is_served_first_and_other_hosts_are_free() {
    let turns = Turns::new(host(1, 0));
    let mut busy = turns.queue(id(1), places("a", &["s"]));
    assert_eq!(waits(&mut busy), None);
    let busy = busy.turn();
    // They come to the queue in another order.
    let mut third = turns.queue(id(3), places("a", &["t"]));
    assert_eq!(waits(&mut third), Some(("host a".to_owned(), 1)));
    let mut second = turns.queue(id(2), places("a", &["s"]));
    assert_eq!(waits(&mut second), Some(("host a".to_owned(), 1)));
    assert_eq!(waits(&mut third), Some(("host a".to_owned(), 2)));
    assert_eq!(waits(&mut turns.queue(id(4), places("b", &["s"]))), None);
    drop(busy);
    assert_eq!(waits(&mut second), None);
    assert_eq!(waits(&mut third), Some(("host a".to_owned(), 1)));
    drop(second);
    assert_eq!(waits(&mut third), None, "a turn that nobody took");
    let fourth = turns.queue(id(4), places("a", &[]));
    let mut fifth = turns.queue(id(5), places("a", &[]));
    assert_eq!(waits(&mut fifth), Some(("host a".to_owned(), 2)));
    drop(fourth);
    assert_eq!(
        waits(&mut fifth),
        Some(("host a".to_owned(), 1)),
        "it gave up"
    );
}

#[test]
fn who_asks_beforehand_hears_whether_it_would_wait() {
    let turns = Turns::new(host(1, 0));
    let (here, there) = (places("a", &["s"]), places("b", &["s"]));
    assert!(turns.has_room(&here) && turns.has_room(&BTreeSet::new()));
    let busy = turns.queue(id(1), here.clone()).turn();
    assert!(!turns.has_room(&here) && turns.has_room(&there));
    let waiter = turns.queue(id(2), here.clone());
    assert!(turns.has_room(&BTreeSet::new()));
    drop((busy, waiter));
    assert!(turns.has_room(&here));
}

#[test]
fn who_waits_holds_no_place() {
    let limits = Limits {
        host: Limit {
            merges: 2,
            bytes_per_second: 100,
        },
        storage: Limit {
            merges: 1,
            bytes_per_second: 0,
        },
    };
    let turns = Turns::new(limits);
    let first = turns.queue(id(1), places("a", &["s"])).turn();
    let mut second = turns.queue(id(2), places("a", &["s"]));
    assert_eq!(waits(&mut second), Some(("storage domain s".to_owned(), 1)));
    assert_eq!(first.bytes_per_second(), 100, "it alone merges");
    let mut third = turns.queue(id(3), places("a", &["t"]));
    assert_eq!(waits(&mut third), None);
    let third = third.turn();
    assert_eq!([&first, &third].map(Turn::bytes_per_second), [50, 50]);
    drop(first);
    assert_eq!(waits(&mut second), None);
    drop(third);
    assert_eq!(second.turn().bytes_per_second(), 100);
}

#[tokio::test]
async fn who_merges_learns_of_a_new_share_at_once() {
    let turns = Turns::new(host(0, 100));
    let mut one = turns.keep(places("a", &[]));
    assert_eq!(one.bytes_per_second(), 100);
    let elsewhere = turns.keep(places("b", &[]));
    {
        let mut changed = std::pin::pin!(one.share_changed());
        assert!(futures::poll!(&mut changed).is_pending());
        drop(elsewhere);
        assert!(futures::poll!(&mut changed).is_pending(), "not its own");
        let _other = turns.keep(places("a", &[]));
        assert!(futures::poll!(&mut changed).is_ready());
    }
    assert_eq!(one.bytes_per_second(), 100, "the other has gone again");
    let mut idle = Turn::default();
    assert!(futures::poll!(std::pin::pin!(idle.share_changed())).is_pending());
}

/// The places of the first are never free at once by themselves.
#[test]
fn nobody_is_overtaken_for_ever() {
    let turns = Turns::new(each(1));
    let mut on_s = turns.queue(id(1), places("a", &["s"])).turn();
    let mut on_t = turns.queue(id(2), places("b", &["t"])).turn();
    let mut patient = turns.queue(id(3), places("c", &["s", "t"]));
    let mut overtakers = 0;
    for number in (10..).step_by(2) {
        let next_s = turns.queue(id(number), places("a", &["s"]));
        drop(std::mem::replace(&mut on_s, next_s.turn()));
        let next_t = turns.queue(id(number + 1), places("b", &["t"]));
        drop(std::mem::replace(&mut on_t, next_t.turn()));
        if waits(&mut patient).is_none() {
            break;
        }
        overtakers += 2;
        assert!(overtakers < 100, "it starves");
    }
    assert!(overtakers <= OVERTAKEN_MOST + 2, "{overtakers}");
}

#[test]
fn what_merges_already_is_not_turned_away() {
    let turns = Turns::new(host(1, 100));
    let kept = [(); 2].map(|()| turns.keep(places("a", &[])));
    assert_eq!([&kept[0], &kept[1]].map(Turn::bytes_per_second), [50, 50]);
    let mut new = turns.queue(id(9), places("a", &[]));
    let [one, other] = kept;
    drop(one);
    assert!(waits(&mut new).is_some());
    drop(other);
    assert_eq!(waits(&mut new), None);
}

#[test]
fn the_shares_of_a_rate_sum_to_it_and_are_shared_anew() {
    let limits = Limits {
        storage: Limit {
            merges: 0,
            bytes_per_second: 60,
        },
        ..host(0, 120)
    };
    let turns = Turns::new(limits);
    assert_eq!(Turn::default().bytes_per_second(), 0);
    let sum = |all: &[&Turn]| all.iter().map(|it| it.bytes_per_second()).sum::<u64>();
    let one = turns.keep(places("a", &["t"]));
    assert_eq!(one.bytes_per_second(), 60, "its domain's");
    let two = turns.queue(id(2), places("a", &["s"])).turn();
    let three = turns.queue(id(3), places("a", &["s"])).turn();
    // The host's would be 40 for each.
    assert_eq!(
        [&one, &two, &three].map(Turn::bytes_per_second),
        [40, 30, 30]
    );
    assert_eq!(sum(&[&two, &three]), 60, "the domain's rate");
    drop(three);
    assert_eq!([&one, &two].map(Turn::bytes_per_second), [60, 60]);
    assert_eq!(sum(&[&one, &two]), 120, "the host's rate");
    drop(two);
    assert_eq!(one.bytes_per_second(), 60);
    // More than there are bytes: nobody stands still.
    let crowd: Vec<_> = (0..200).map(|_| turns.keep(places("a", &[]))).collect();
    assert_eq!(crowd[0].bytes_per_second(), 1);
}

#[test]
fn who_joins_stands_as_if_all_had_been_tried_again() {
    let turns = Turns::new(each(1));
    let hosts = ["a", "b", "c"];
    let mut tickets = Vec::new();
    // Also some that join before others, as at a server's start.
    for number in [1, 2, 3, 9, 10, 11, 7, 12, 5, 13, 14] {
        let host = hosts[number as usize % hosts.len()];
        let storages: &[&str] = if number % 4 == 0 { &["s", "t"] } else { &["s"] };
        tickets.push(turns.queue(id(number), places(host, storages)));
        let stood: Vec<_> = tickets.iter_mut().map(Ticket::standing).collect();
        turns.hall.lock().seat(&turns.hall.limits);
        let stand: Vec<_> = tickets.iter_mut().map(Ticket::standing).collect();
        assert_eq!(stood, stand, "after {number}");
    }
    assert_eq!(tickets.len(), 11);
}
