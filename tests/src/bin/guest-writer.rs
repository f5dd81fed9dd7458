//! Runs in the guest: writes numbered records on one disk and says on the serial console which of
//! them are safe.
//!
//! ```text
//! guest-writer DISK[=FILE] SLOTS FILL_MIB BACKGROUND_KIB RATE
//! guest-writer --pairs DISK DISK
//!
//!   disk:  | slots: record i at block i mod SLOTS | the rest: fill and background writes | pairs |
//!
//!   RESUME vda 17     the writer starts, or starts again, with record 17
//!   ACK vda 17        record 17 is on the disk: the write and the flush were acknowledged
//!   FILLED vda        FILL_MIB of the rest have been written
//!   ERROR vda 18 ...  the disk refused record 18; it is tried again
//! ```
//! A write is `O_DIRECT | O_DSYNC`: it returns when the disk has acknowledged the data and a flush.
//! With a FILE, which has the size already, that is written: the disk has a file system, which can be
//! frozen. One record is in flight at a time. `RATE` bounds the records of a second, 0 does not.
//!
//! With `--pairs` it writes numbers and says nothing: each into the last block of the first disk, and
//! then into that of the second.
//!
//! The image builder compiles this file by `rustc` alone, statically: only `std` may be used.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the library compiles this file as well"
)]
#[path = "../guest/record.rs"]
mod record;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use record::{RECORD_BYTES, Record, scramble};

const O_DSYNC: i32 = 0o10_000;
const O_DIRECT: i32 = 0o40_000;
const CHUNK_BYTES: usize = 64 << 10;
const RETRY: Duration = Duration::from_millis(100);
/// What is left free for the pairs at the end of a disk.
const PAIRS_BYTES: u64 = 1 << 20;
const PAIRS_PAUSE: Duration = Duration::from_millis(5);

/// Direct I/O wants aligned memory.
#[repr(align(4096))]
struct Aligned<const N: usize>([u8; N]);

struct Job {
    disk: String,
    path: String,
    slots: u64,
    fill_mib: u64,
    background_kib: u64,
    rate: u64,
}

impl Job {
    fn from_args() -> Option<Self> {
        let mut args = std::env::args().skip(1);
        let disk = args.next()?;
        let (disk, path) = match disk.split_once('=') {
            Some((disk, file)) => (disk.to_owned(), file.to_owned()),
            None => (disk.clone(), format!("/dev/{disk}")),
        };
        let mut number = || args.next()?.parse().ok();
        Some(Self {
            disk,
            path,
            slots: number().filter(|slots| *slots > 0)?,
            fill_mib: number()?,
            background_kib: number()?,
            rate: number()?,
        })
    }

    fn open(&self, flags: i32) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_DIRECT | flags)
            .open(&self.path)
    }

    /// One line in one write, so that the lines of two writers do not mix.
    fn say(&self, word: &str, rest: std::fmt::Arguments<'_>) {
        let line = format!("{word} {}{rest}\n", self.disk);
        // There is nobody to tell that the console is gone.
        let _ = io::stdout().write_all(line.as_bytes());
    }

    /// The number after the newest record on the disk.
    fn next_number(&self, file: &File) -> io::Result<u64> {
        let mut block = Box::new(Aligned([0; RECORD_BYTES]));
        let mut next = 0;
        for slot in 0..self.slots {
            file.read_exact_at(&mut block.0, slot * RECORD_BYTES as u64)?;
            if let Some(record) = Record::decode(&block.0) {
                next = next.max(record.number + 1);
            }
        }
        Ok(next)
    }

    fn write_records(&self) -> io::Result<()> {
        let file = self.open(O_DSYNC)?;
        let first = self.next_number(&file)?;
        self.say("RESUME", format_args!(" {first}"));
        let mut block = Box::new(Aligned([0; RECORD_BYTES]));
        let started = Instant::now();
        for number in first.. {
            Record::new(&self.disk, number).encode(&mut block.0);
            let at = number % self.slots * RECORD_BYTES as u64;
            while let Err(error) = file.write_all_at(&block.0, at) {
                self.say("ERROR", format_args!(" {number} {error}"));
                thread::sleep(RETRY);
            }
            self.say("ACK", format_args!(" {number}"));
            keep_pace(started, number + 1 - first, self.rate);
        }
        Ok(())
    }

    /// Writes behind the slots, without an acknowledgement: first the fill, then the background.
    fn write_rest(&self) -> io::Result<()> {
        let mut file = self.open(0)?;
        let start = (self.slots * RECORD_BYTES as u64).next_multiple_of(1 << 20);
        let end = file.seek(SeekFrom::End(0))?.saturating_sub(PAIRS_BYTES);
        let chunks = end.saturating_sub(start) / CHUNK_BYTES as u64;
        if chunks == 0 {
            return Ok(());
        }
        let mut chunk = Box::new(Aligned([0; CHUNK_BYTES]));
        let mut write = |number: u64| {
            scramble(number, &mut chunk.0);
            file.write_all_at(&chunk.0, start + number % chunks * CHUNK_BYTES as u64)
        };
        let fill = (self.fill_mib << 20) / CHUNK_BYTES as u64;
        for number in 0..fill {
            while write(number).is_err() {
                thread::sleep(RETRY);
            }
        }
        self.say("FILLED", format_args!(""));
        let started = Instant::now();
        let per_second = self.background_kib.div_ceil(CHUNK_BYTES as u64 >> 10);
        for number in 1.. {
            if per_second == 0 {
                break;
            }
            if write(fill + number).is_err() {
                thread::sleep(RETRY);
            }
            keep_pace(started, number, per_second);
        }
        Ok(())
    }
}

/// Writes pairs from the number after the newest on.
fn write_pairs(disks: [String; 2]) -> io::Result<()> {
    let mut block = Box::new(Aligned([0; RECORD_BYTES]));
    let mut newest = 0;
    let mut ends = Vec::new();
    for disk in disks {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(O_DIRECT | O_DSYNC)
            .open(format!("/dev/{disk}"))?;
        let at = file.seek(SeekFrom::End(0))? - RECORD_BYTES as u64;
        file.read_exact_at(&mut block.0, at)?;
        newest = newest.max(Record::decode(&block.0).map_or(0, |record| record.number));
        ends.push((disk, file, at));
    }
    for number in newest + 1.. {
        for (disk, file, at) in &ends {
            Record::new(disk, number).encode(&mut block.0);
            while file.write_all_at(&block.0, *at).is_err() {
                thread::sleep(RETRY);
            }
        }
        thread::sleep(PAIRS_PAUSE);
    }
    Ok(())
}

/// Sleeps until `done` things in `per_second` are due; 0 is without a bound.
fn keep_pace(started: Instant, done: u64, per_second: u64) {
    if per_second > 0 {
        let due = Duration::from_secs_f64(done as f64 / per_second as f64);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [pairs, first, second] = arguments.as_slice()
        && pairs == "--pairs"
    {
        return write_pairs([first.clone(), second.clone()]);
    }
    let Some(job) = Job::from_args() else {
        return Err(io::Error::other(
            "usage: DISK[=FILE] SLOTS FILL_MIB BACKGROUND_KIB RATE",
        ));
    };
    thread::scope(|scope| {
        let rest = scope.spawn(|| job.write_rest());
        job.write_records()?;
        rest.join()
            .unwrap_or_else(|_| Err(io::Error::other("the writer of the rest panicked")))
    })
}
