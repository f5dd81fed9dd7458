//! The host's power is cut: what its disks had not flushed is lost, too.
//!
//! A process that is killed leaves the host's memory, where everything is that was written and not
//! flushed. So here the disks themselves note what they were given ([`disks`], [`log`]), while a guest
//! writes and its snapshots come and go ([`play`]). Afterwards the power is cut at as many moments of
//! that one run as there is time for ([`timeline`]): each time the disks are made as they would have
//! been, and a host starts on them and is looked at ([`check`]).
//!
//! ```text
//!   run, once       guest ─▶ snapshots ─▶ deletes      four disks: agent, libvirt, images, record
//!                      │ acknowledged        │ promised           │ logs
//!   each cut        a moment ─▶ the four disks up to it, less what was not flushed ─▶ mount
//!                      ─▶ server, agent ─▶ all operations end ─▶ all that was promised is there
//!                      ─▶ every snapshot can be deleted, with the guest off or running
//! ```
//! The four disks lose their power at once, and each loses what *it* had not flushed: an order between
//! two of them is there only if somebody has waited for the first.

mod check;
mod disks;
mod log;
mod play;
mod timeline;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::kills::SplitMix;
use crate::sweep::Tally;
use check::{Found, check};
use disks::{DISKS, reached};
use log::{Log, Loss};
use play::{Played, play};
use timeline::Cut;

/// The guest is started again after every so many cuts.
const START_EVERY: usize = 6;

/// What came of the cuts of one run.
#[derive(Debug, Default)]
pub struct Cuts {
    /// After which all was as it must be.
    pub done: usize,
    /// Those after which something was not, and why.
    pub failed: Vec<anyhow::Error>,
    /// Those that were not tried any more.
    pub outstanding: usize,
    /// How often records were looked for, over all cuts.
    pub looked_for: u64,
    /// How many cuts each part of the run got.
    pub parts: BTreeMap<String, usize>,
}

/// So many cuts of one run, as a part of the sweep. Tells of each. When it is stopped, none is begun
/// any more.
pub async fn sweep(cuts: usize, seed: u64, stop: &CancellationToken) -> Tally {
    let mut tally = Tally {
        seeds: vec![seed],
        ..Tally::default()
    };
    match run(cuts, seed, stop).await {
        Ok(cuts) => {
            tally.cases = cuts.done + cuts.failed.len();
            tally.failed = cuts.failed.len();
            tally.skipped = cuts.outstanding;
        }
        Err(error) => {
            eprintln!("no run whose power could be cut: {error:#}");
            tally.failed = 1;
        }
    }
    tally
}

/// Plays a run, and cuts its power so often.
///
/// # Errors
/// When the run itself fails.
pub async fn run(count: usize, seed: u64, stop: &CancellationToken) -> Result<Cuts> {
    let begun = Instant::now();
    let played = play(seed).await.context("the run")?;
    let mut logs = Vec::new();
    for (name, _) in DISKS {
        let (first, log) = played.disks.first_and_log(name);
        logs.push(Log::open(first, &log)?);
    }
    let mut random = SplitMix::of(seed);
    let chosen = played.timeline.cuts(&logs, count, &mut random);
    let flushes: usize = logs.iter().map(Log::flushes).sum();
    eprintln!(
        "power: a run of {:.1?}, {flushes} flushes, {} looks; {} cuts",
        begun.elapsed(),
        played.timeline.len(),
        chosen.len(),
    );
    let mut all = Cuts {
        outstanding: chosen.len(),
        ..Cuts::default()
    };
    for (number, cut) in chosen.iter().enumerate() {
        if stop.is_cancelled() {
            break;
        }
        let begun = Instant::now();
        let mut found = Found::default();
        let start = number % START_EVERY == START_EVERY - 1;
        let looked = check(&played, &mut logs, cut, &mut random, start, &mut found).await;
        let part = part(&played, cut);
        let told = tell(cut, &part, &found);
        all.outstanding -= 1;
        all.looked_for += found.looked_for;
        *all.parts.entry(part).or_default() += 1;
        match looked {
            Ok(()) => {
                eprintln!("power {number}: {told}, {:.1?}", begun.elapsed());
                all.done += 1;
            }
            Err(error) => {
                let error = error.context(format!("seed {seed}, cut {number}: {told}"));
                eprintln!("a promise was broken: {error:#}");
                all.failed.push(error);
            }
        }
    }
    eprintln!(
        "power: {} cuts, {} failed, {} records looked for, {:.0?}; {:?}",
        all.done + all.failed.len(),
        all.failed.len(),
        all.looked_for,
        begun.elapsed(),
        all.parts,
    );
    Ok(all)
}

/// What had happened last.
fn part(played: &Played, cut: &Cut) -> String {
    let mut story = played.story.iter().rev();
    let last = story.find(|(at, _)| reached(at, &cut.at));
    last.map_or("the guest writes".to_owned(), |(_, what)| what.clone())
}

fn tell(cut: &Cut, part: &str, found: &Found) -> String {
    let lost = cut.loss.map(|loss| match loss {
        Loss::All => 'a',
        Loss::Nothing => 'n',
        Loss::Some => 's',
    });
    let lost: String = lost.iter().collect();
    format!(
        "moment {} after `{part}`, told {:?}, {} went on, loses {lost}; journal {:?}; ended {:?}; {} records{}; {} \
         deleted; left {:?}",
        cut.number,
        cut.newest,
        cut.after.unwrap_or("several"),
        found.phases,
        found.ended,
        found.looked_for,
        if found.started { ", guest started" } else { "" },
        found.deleted,
        found.left,
    )
}
