//! Ids as the server makes them: they sort by its clock, and within one start they only grow.

use jiff::Timestamp;
use uuid::{Builder, Uuid};

/// Makes ids of version 7.
#[derive(Debug)]
pub(super) struct IdSource {
    /// Tells the ids of one start from those of another.
    start: u64,
    count: u64,
    latest: u64,
}

impl IdSource {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            count: 0,
            latest: 0,
        }
    }

    pub(super) fn next(&mut self, wall: Timestamp) -> Uuid {
        let millis = u64::try_from(wall.as_millisecond()).expect("after 1970");
        self.latest = self.latest.max(millis);
        self.count += 1;
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&u16::to_be_bytes(self.count as u16));
        bytes[2..].copy_from_slice(&self.start.to_be_bytes());
        Builder::from_unix_timestamp_millis(self.latest, &bytes).into_uuid()
    }
}
