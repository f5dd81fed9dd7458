//! What is warned of.

use super::*;
use crate::snapshot::Foreseen;
use crate::snapshot::foreseen::tests::planned_task;
use std::time::Duration;

fn task(foreseen: Foreseen, state: DiskState) -> DiskTask {
    DiskTask {
        foreseen,
        ..planned_task(0, 0, state)
    }
}

fn of(foreseen: Foreseen) -> Vec<Warning> {
    warnings(&task(foreseen, DiskState::Pending))
}

const KNOWN: Foreseen = Foreseen {
    needed_bytes: 0,
    kept_bytes: 0,
    free_bytes: 0,
    freed_bytes: 1 << 30,
    other_way_bytes: 0,
    guessed: false,
    guest_discards: false,
    time: Some(Duration::ZERO),
};

#[test]
fn each_is_warned_of_when_it_holds_and_only_then() {
    assert_eq!(of(KNOWN), []);
    let discards = Foreseen {
        guest_discards: true,
        ..KNOWN
    };
    assert_eq!(of(discards), [Warning::GuestDiscards]);
    let unknown = Foreseen {
        time: None,
        ..KNOWN
    };
    assert_eq!(of(unknown), [Warning::TimeUnknown]);
    let needs = |needed_bytes| Foreseen {
        needed_bytes,
        ..KNOWN
    };
    assert_eq!(of(needs(KNOWN.freed_bytes + LITTLE)), []);
    let more = KNOWN.freed_bytes + LITTLE + 1;
    let grows = Warning::TakesRoom {
        needed_bytes: more,
        freed_bytes: KNOWN.freed_bytes,
    };
    assert_eq!(of(needs(more)), [grows]);
    // What is guessed says nothing of what is larger.
    let guessed = Foreseen {
        guessed: true,
        ..needs(more)
    };
    assert_eq!(of(guessed), [Warning::BytesGuessed]);
}

#[test]
fn of_what_is_merged_there_is_nothing_to_know() {
    let merged = DiskState::Removing {
        copied_bytes: 0,
        longest_pause: Duration::ZERO,
        gone: 0,
        freed_bytes: 0,
        copy_time: Duration::ZERO,
    };
    let all = Foreseen {
        guest_discards: true,
        guessed: true,
        time: None,
        ..KNOWN
    };
    assert_eq!(warnings(&task(all, merged)), []);
    assert_eq!(of(all).len(), 3);
}
