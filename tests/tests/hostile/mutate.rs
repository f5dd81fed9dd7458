//! Inputs that are made of others: the same ones in each run.

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Numbers at which readers go wrong.
const NUMBERS: [u64; 10] = [
    0,
    1,
    127,
    255,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];
/// Texts at which they do.
const TEXTS: [&str; 14] = [
    "\"", "'", "<", "</", "&#0;", "\\u0000", "\u{feff}", "..", "/", "-", "null", "[]", "{}", "\n",
];
const LONGEST: usize = 16 << 10;

pub(crate) struct Mutator {
    from: Vec<Vec<u8>>,
    dice: ChaCha8Rng,
}

impl Mutator {
    pub(crate) fn new(from: Vec<Vec<u8>>) -> Self {
        Self {
            from,
            dice: ChaCha8Rng::seed_from_u64(0x6c69_7665),
        }
    }

    /// One of the given inputs with a few changes.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.any();
        for _change in 0..self.dice.random_range(1..=4) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn any(&mut self) -> Vec<u8> {
        self.from.choose(&mut self.dice).unwrap().clone()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let end = input.len();
        let at = self.dice.random_range(0..=end);
        let until = at + self.dice.random_range(0..=(end - at).min(64));
        match self.dice.random_range(0..9) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..until)),
            2 => {
                let twice = input[at..until].to_vec();
                drop(input.splice(at..at, twice));
            }
            3 if at < end => input[at] ^= 1 << self.dice.random_range(0..8),
            4 if at < end => input[at] = (self.dice.next_u32() & 0xff) as u8,
            5 => {
                let number = NUMBERS.choose(&mut self.dice).unwrap().to_be_bytes();
                let bytes = &number[8 - [1, 2, 4, 8].choose(&mut self.dice).unwrap()..];
                let until = end.min(at + bytes.len());
                drop(input.splice(at..until, bytes.to_vec()));
            }
            6 => {
                let text = TEXTS.choose(&mut self.dice).unwrap();
                drop(input.splice(at..until, text.bytes()));
            }
            7 => {
                let number = NUMBERS.choose(&mut self.dice).unwrap().to_string();
                drop(input.splice(at..until, number.into_bytes()));
            }
            _ => {
                let other = self.any();
                let from = self.dice.random_range(0..=other.len());
                drop(input.splice(at..until, other[from..].to_vec()));
            }
        }
    }
}
