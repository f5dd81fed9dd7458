//! The room that a volume is given for a merge, in domains whose volumes have only what they are given: what is
//! promised is what is given.

/// More than the tables of an image need for what is copied.
const SPARE_BYTES: u64 = 16 << 20;

/// The volume that a merge keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    /// Bytes that it has.
    pub(super) has: u64,
    /// Of those, what lies unused, and was given for a merge like this one.
    pub(super) unused: u64,
    /// What it is given at once, at least.
    pub(super) chunk: u64,
    /// What it is ever given.
    pub(super) most: u64,
}

impl Given {
    /// The room that it has to have for so many bytes more.
    pub(super) fn least(self, needed: u64) -> u64 {
        let wanted = needed.saturating_add(SPARE_BYTES.min(needed));
        let room = self.has.saturating_add(wanted.saturating_sub(self.unused));
        room.min(self.most).max(self.has)
    }

    /// The room that it is given then, where there is so much.
    pub(super) fn room(self, needed: u64) -> u64 {
        let least = self.least(needed);
        if least <= self.has {
            return self.has;
        }
        let chunks = least.checked_next_multiple_of(self.chunk.max(1));
        chunks.unwrap_or(u64::MAX).min(self.most).max(least)
    }

    /// What it takes of its domain.
    pub(super) fn taken(self, needed: u64) -> u64 {
        self.room(needed) - self.has
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn what_lies_unused_is_not_given_again() {
        let all = 12 * GIB + SPARE_BYTES;
        for (has, needed, unused, room) in [
            (2 * GIB, 10 * GIB, 0, all),
            // The job has ended before it began.
            (all, 10 * GIB, 10 * GIB + SPARE_BYTES, all),
            // 8 GiB were copied, and the guest has written 9 GiB on.
            (all, 11 * GIB, 2 * GIB + SPARE_BYTES, all + 9 * GIB),
            (all, 0, 0, all),
        ] {
            let given = Given {
                has,
                unused,
                chunk: GIB,
                most: u64::MAX,
            };
            assert_eq!(given.least(needed), room, "{needed} {unused}");
        }
    }

    #[test]
    fn whole_chunks_are_given_up_to_the_most_there_are() {
        for (has, needed, room) in [
            (GIB, 0, GIB),
            (GIB, 1, 2 * GIB),
            (GIB, GIB - SPARE_BYTES, 2 * GIB),
            (GIB, GIB, 3 * GIB),
            (GIB, 4 * GIB, 5 * GIB + 7),
            // One that was larger once.
            (6 * GIB, GIB, 6 * GIB),
        ] {
            let given = Given {
                has,
                unused: 0,
                chunk: GIB,
                most: 5 * GIB + 7,
            };
            assert_eq!(given.room(needed), room, "{has} {needed}");
            assert_eq!(given.taken(needed), room - has);
        }
    }
}
