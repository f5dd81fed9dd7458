//! What the guest writes: one record of a block, with a number, the disk's tag and a checksum.
//!
//! ```text
//!  0        8        16       24       32                          4096
//!  | magic  | number | disk   | check  | padding, made of the number |
//! ```
//! All numbers are little endian. Record `i` lies at block `i mod slots`. The checksum covers the
//! whole block but itself, so that a torn or mixed block is no record.
//!
//! This file is compiled twice: into this library, and by `rustc` alone into the writer that runs
//! in the guest. It may use nothing but the standard library.

/// The size of a record and of the block that holds it, in bytes.
pub const RECORD_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"LMRECORD";
const CHECK: std::ops::Range<usize> = 24..32;
const PADDING: usize = 32;

/// A number that one writer wrote on one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Which disk, as the guest names it (`vda`), padded with zeroes.
    pub disk: [u8; 8],
    /// Counts up from 0, over restarts of the guest too.
    pub number: u64,
}

impl Record {
    /// The record `number` of `disk` (`vda`; at most eight bytes count).
    pub fn new(disk: &str, number: u64) -> Self {
        let mut tag = [0; 8];
        for (to, from) in tag.iter_mut().zip(disk.bytes()) {
            *to = from;
        }
        Self { disk: tag, number }
    }

    /// Writes the record into `block`.
    pub fn encode(&self, block: &mut [u8; RECORD_BYTES]) {
        block[..8].copy_from_slice(&MAGIC);
        block[8..16].copy_from_slice(&self.number.to_le_bytes());
        block[16..24].copy_from_slice(&self.disk);
        scramble(self.number, &mut block[PADDING..]);
        let check = checksum(block).to_le_bytes();
        block[CHECK].copy_from_slice(&check);
    }

    /// The record in `block`, or nothing if the block holds none, a torn or a damaged one.
    pub fn decode(block: &[u8; RECORD_BYTES]) -> Option<Self> {
        let field = |at: usize| -> [u8; 8] { std::array::from_fn(|i| block[at + i]) };
        let intact = field(0) == MAGIC && u64::from_le_bytes(field(24)) == checksum(block);
        intact.then(|| Self {
            disk: field(16),
            number: u64::from_le_bytes(field(8)),
        })
    }
}

/// Fills `bytes` with a stream made of `seed` that does not compress (xorshift64*).
pub fn scramble(seed: u64, bytes: &mut [u8]) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in bytes.chunks_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let word = state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// FNV-1a over the words of the block, without those of the checksum itself.
fn checksum(block: &[u8; RECORD_BYTES]) -> u64 {
    let words = block.chunks_exact(8).enumerate();
    words
        .filter(|(i, _)| i * 8 != CHECK.start)
        .fold(0xcbf2_9ce4_8422_2325, |hash, (_, word)| {
            let word = word.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
            (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(record: Record) -> [u8; RECORD_BYTES] {
        let mut block = [0; RECORD_BYTES];
        record.encode(&mut block);
        block
    }

    #[test]
    fn a_record_reads_back() {
        let record = Record::new("vdb", 1 << 40);
        assert_eq!(Record::decode(&block(record)), Some(record));
    }

    #[test]
    fn zeroes_are_no_record() {
        assert_eq!(Record::decode(&[0; RECORD_BYTES]), None);
    }

    #[test]
    fn a_changed_byte_anywhere_is_seen() {
        let good = block(Record::new("vda", 7));
        for at in 0..RECORD_BYTES {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert_eq!(Record::decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn a_block_torn_between_two_records_is_seen() {
        let (old, new) = (block(Record::new("vda", 7)), block(Record::new("vda", 8)));
        for at in (512..RECORD_BYTES).step_by(512) {
            let mut torn = old;
            torn[..at].copy_from_slice(&new[..at]);
            assert_eq!(Record::decode(&torn), None, "torn at {at}");
        }
    }
}
