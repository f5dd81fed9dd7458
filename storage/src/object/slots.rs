//! The blocks of a volume that are in memory, and which of them have changed.
//!
//! Under a lease, what is known of a block holds: nobody else changes it. Without one, somebody on
//! another host may, so it is asked for again after [`RECENT`]. A place that is given up is not emptied
//! but replaced: whoever still reads in it ends as it began, and nobody finds it again.

use super::blocks::BLOCK_BYTES;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Short, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// So many unchanged blocks stay in memory: 16 MiB a volume.
const MOST_UNCHANGED: usize = 64;
/// Without a lease, what was read of a block serves for so long: for requests that follow each other,
/// and far less than it takes to hand a machine over to another host.
const RECENT: Duration = Duration::from_millis(100);

/// What is known of a block.
#[derive(Debug, Default)]
pub(super) enum Content {
    /// It has not been asked for.
    #[default]
    Unknown,
    /// It reads zeros and has no object.
    Absent,
    /// A whole block.
    Data(Vec<u8>),
}

impl Content {
    /// To be written to. It must be known.
    pub(super) fn data(&mut self) -> &mut Vec<u8> {
        if !matches!(self, Self::Data(_)) {
            *self = Self::Data(vec![0; BLOCK_BYTES as usize]);
        }
        match self {
            Self::Data(data) => data,
            Self::Unknown | Self::Absent => unreachable!("it has just been made data"),
        }
    }
}

/// A block's place in memory.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) content: Mutex<Content>,
    /// The whole block is on this host, too. Changed with the content locked.
    pub(super) spilled: AtomicBool,
    used: AtomicU64,
    /// Its block is read after that.
    made: Instant,
}

impl Slot {
    fn new() -> Self {
        Self {
            content: Mutex::default(),
            spilled: AtomicBool::new(false),
            used: AtomicU64::new(0),
            made: Instant::now(),
        }
    }
}

/// The places in use.
#[derive(Debug, Default)]
pub(super) struct Slots(Short<Table>);

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<u64, Arc<Slot>>,
    changed: BTreeSet<u64>,
    clock: u64,
    /// Set while the volume's lease is held.
    leased: bool,
}

impl Slots {
    pub(super) fn get(&self, block: u64) -> Arc<Slot> {
        let mut table = self.table();
        table.clock += 1;
        let (clock, leased) = (table.clock, table.leased);
        let slot = table.slots.entry(block);
        let slot = slot.or_insert_with(|| Arc::new(Slot::new()));
        if !leased && slot.made.elapsed() > RECENT {
            *slot = Arc::new(Slot::new());
        }
        let slot = Arc::clone(slot);
        slot.used.store(clock, Ordering::Relaxed);
        slot
    }

    /// Called with the slot's lock held.
    pub(super) fn changed(&self, block: u64) {
        self.table().changed.insert(block);
    }

    /// The store has it as it is here. Called with the slot's lock held.
    pub(super) fn kept(&self, block: u64) {
        self.table().changed.remove(&block);
    }

    pub(super) fn is_changed(&self, block: u64) -> bool {
        self.table().changed.contains(&block)
    }

    pub(super) fn all_changed(&self) -> Vec<u64> {
        self.table().changed.iter().copied().collect()
    }

    /// The blocks of a range that have a place.
    pub(super) fn within(&self, range: Range<u64>) -> Vec<u64> {
        let table = self.table();
        let within = table.slots.keys().filter(|block| range.contains(block));
        within.copied().collect()
    }

    /// A lease begins or ends: what was known before is known no more. Called while nobody writes.
    pub(super) fn begin(&self, leased: bool) {
        let mut table = self.table();
        table.slots.clear();
        table.changed.clear();
        table.leased = leased;
    }

    /// Forgets blocks that have not changed and nobody works on, those first that were used least
    /// recently.
    pub(super) fn shrink(&self) {
        let mut table = self.table();
        let over = table
            .slots
            .len()
            .saturating_sub(table.changed.len())
            .saturating_sub(MOST_UNCHANGED);
        // Not for each block that is one too many.
        if over < MOST_UNCHANGED / 4 {
            return;
        }
        // Whoever works on a slot has taken it from here, and so counts.
        let idle = |(block, slot): &(&u64, &Arc<Slot>)| {
            Arc::strong_count(slot) == 1 && !table.changed.contains(*block)
        };
        let mut idle: Vec<_> = table
            .slots
            .iter()
            .filter(idle)
            .map(|(block, slot)| (slot.used.load(Ordering::Relaxed), *block))
            .collect();
        idle.sort_unstable();
        for (_, block) in idle.into_iter().take(over) {
            table.slots.remove(&block);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_or_is_worked_on_stays() {
        let slots = Slots::default();
        slots.begin(true);
        let worked_on = slots.get(1_000);
        for block in 0..200 {
            slots.get(block);
            if block < 3 {
                slots.changed(block);
            }
        }
        slots.shrink();
        let left = slots.within(0..1_000);
        assert!(left.len() <= MOST_UNCHANGED + 4, "{}", left.len());
        assert!([0, 1, 2, 199].iter().all(|block| left.contains(block)));
        assert!(Arc::ptr_eq(&worked_on, &slots.get(1_000)));
    }

    #[test]
    fn a_lease_begins_with_nothing_known_and_without_one_that_is_old_soon() {
        let slots = Slots::default();
        let read_before = slots.get(7);
        slots.begin(true);
        let read = slots.get(7);
        assert!(!Arc::ptr_eq(&read_before, &read), "though it is worked on");
        std::thread::sleep(RECENT * 2);
        assert!(Arc::ptr_eq(&read, &slots.get(7)));
        slots.begin(false);
        let read = slots.get(7);
        std::thread::sleep(RECENT * 2);
        assert!(!Arc::ptr_eq(&read, &slots.get(7)));
    }
}
