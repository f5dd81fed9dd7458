//! What the lines on the guest's serial console mean.
//!
//! Only whole lines of the writer's own form count: what a kernel message or QEMU's end has torn
//! acknowledges nothing.

use std::collections::BTreeMap;
use std::time::Instant;

/// What the guest was told about one disk, as the oracle needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The newest record that was acknowledged. The older ones were before it.
    pub newest: Option<u64>,
    /// Acknowledged records that a guest did not find when it started again.
    pub lost_at_boot: Vec<u64>,
}

/// What was heard of one disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) acknowledged: Acknowledged,
    pub(super) arrivals: Vec<Instant>,
    pub(super) filled: bool,
    pub(super) errors: u64,
}

/// What was heard of all disks, and why no more will be heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Console {
    pub(super) disks: BTreeMap<String, Disk>,
    pub(super) read_bytes: u64,
    pub(super) failed: Option<String>,
}

/// Cuts a stream of bytes into whole lines.
#[derive(Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        String::from_utf8_lossy(&whole)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Console {
    pub(super) fn hear(&mut self, line: &str, now: Instant) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["ACK", disk, number] => {
                if let Ok(number) = number.parse() {
                    self.disk(disk).acknowledge(number, now);
                }
            }
            ["RESUME", disk, number] => {
                if let Ok(number) = number.parse() {
                    self.disk(disk).resume(number);
                }
            }
            ["FILLED", disk] => self.disk(disk).filled = true,
            ["ERROR", disk, ..] => self.disk(disk).errors += 1,
            _ => {}
        }
    }

    fn disk(&mut self, name: &str) -> &mut Disk {
        self.disks.entry(name.to_owned()).or_default()
    }
}

impl Disk {
    fn acknowledge(&mut self, number: u64, now: Instant) {
        self.acknowledged.newest = self.acknowledged.newest.max(Some(number));
        self.arrivals.push(now);
    }

    /// The guest goes on after the newest record that it found. Were that one older than what it
    /// was told before, it would now write the lost numbers again and hide the loss.
    fn resume(&mut self, next: u64) {
        if let Some(newest) = self.acknowledged.newest {
            self.acknowledged.lost_at_boot.extend(next..=newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(lines: &[&str]) -> Console {
        let mut console = Console::default();
        lines
            .iter()
            .for_each(|line| console.hear(line, Instant::now()));
        console
    }

    #[test]
    fn only_whole_lines_of_the_writer_count() {
        let console = hear(&[
            "ACK vda 4",
            "[1.0] ACK vda 9",
            "ACK vda 5x",
            "ACK vda 1 2",
            "ACK",
        ]);
        assert_eq!(console.disks["vda"].acknowledged.newest, Some(4));
        assert_eq!(console.disks["vda"].arrivals.len(), 1);
    }

    #[test]
    fn a_torn_line_waits_for_its_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"ACK vda 1"), Vec::<String>::new());
        assert_eq!(lines.take(b"2\r\nACK vda 1"), ["ACK vda 12"]);
        assert_eq!(lines.take(b"3\r\n"), ["ACK vda 13"]);
    }

    #[test]
    fn a_guest_that_starts_behind_its_acknowledgements_has_lost_them() {
        let good = hear(&["ACK vda 4", "RESUME vda 5"]);
        assert!(good.disks["vda"].acknowledged.lost_at_boot.is_empty());
        let bad = hear(&["ACK vda 4", "RESUME vda 3", "ACK vda 3"]);
        assert_eq!(bad.disks["vda"].acknowledged.lost_at_boot, [3, 4]);
        assert_eq!(bad.disks["vda"].acknowledged.newest, Some(4));
    }
}
