//! What had come about when: how far each disk was, and what had been promised by then.
//!
//! ```text
//!   acknowledged      17        18              what was read first held when the logs were looked at
//!   logs (bytes)   a 512     a 512    a 1536
//!                  i 4096    i 9216 ▲ i 9216
//!                                   └ cuts     where one disk alone went on: after each of its entries
//! ```
//! Where several disks went on between two looks, nobody knows in which order: only the looks
//! themselves are moments at which the power may go.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use super::disks::{DISKS, Disks, Position, reached};
use super::log::{Log, Loss};
use crate::guest::acks::AckLog;
use crate::kills::SplitMix;

const LOOK_EVERY: Duration = Duration::from_micros(500);
/// The disk on which only the guest and its snapshots write. What moves another one is a line of a
/// journal, a definition, a change of the record: a step of ours.
const IMAGES: &str = "images";
/// So many moments before and after such a step are as interesting as it is.
const NEAR: usize = 3;

/// How far everything was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    /// The newest record that the guest had been told is safe, before the logs were looked at.
    newest: Option<u64>,
    at: Position,
}

/// Looks all the time, until it is asked for what it saw.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    looks: Option<JoinHandle<Result<Vec<Look>>>>,
}

impl Watch {
    /// Begins, of a guest's disk and its console.
    pub(super) fn begin(disks: &Arc<Disks>, disk: &str, console: &Path) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let acks = AckLog::follow(console)?;
        let (disks, disk, stopped) = (disks.clone(), disk.to_owned(), stop.clone());
        let looks = thread::spawn(move || {
            let mut looks: Vec<Look> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let newest = acks.newest(&disk);
                let at = disks.position()?;
                let look = Look { newest, at };
                if looks.last() != Some(&look) {
                    looks.push(look);
                }
                thread::sleep(LOOK_EVERY);
            }
            Ok(looks)
        });
        Ok(Self {
            stop,
            looks: Some(looks),
        })
    }

    /// What was seen.
    pub(super) fn end(mut self) -> Result<Timeline> {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.looks.take().context("it ends once")?.join();
        let looks = looks.map_err(|_| anyhow!("the watch panicked"))??;
        Ok(Timeline { looks })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(looks) = self.looks.take() {
            // One that panicked has said so.
            let _ = looks.join();
        }
    }
}

/// All looks, in order.
#[derive(Debug)]
pub(super) struct Timeline {
    looks: Vec<Look>,
}

/// A moment at which the power goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// Its number among the moments of the run, in their order.
    pub(super) number: usize,
    /// How far the disks were.
    pub(super) at: Position,
    /// What the guest had been told by then.
    pub(super) newest: Option<u64>,
    /// The disk that had just gone on, if it was one alone.
    pub(super) after: Option<&'static str>,
    /// What becomes of what each disk had not flushed.
    pub(super) loss: [Loss; DISKS.len()],
}

impl Timeline {
    /// Every moment from the first look on.
    fn moments(&self, logs: &[Log]) -> Vec<Cut> {
        let mut moments: Vec<Cut> = Vec::new();
        let mut add = |look: &Look, at, after| {
            moments.push(Cut {
                number: moments.len(),
                at,
                newest: look.newest,
                after,
                loss: [Loss::All; DISKS.len()],
            });
        };
        for pair in self.looks.windows(2) {
            let [before, look] = pair else { continue };
            let mut moved = (0..DISKS.len()).filter(|disk| before.at[*disk] != look.at[*disk]);
            if let (Some(disk), None) = (moved.next(), moved.next()) {
                let mut at = before.at;
                for end in logs[disk].ends(before.at[disk], look.at[disk]) {
                    at[disk] = end;
                    add(before, at, Some(DISKS[disk].0));
                }
            }
            add(look, look.at, None);
        }
        moments
    }

    /// So many moments, half of them near a step of ours, and what is lost at each. Three ways take
    /// turns: all that no disk had flushed, nothing of it, and chance for each disk and each write.
    pub(super) fn cuts(&self, logs: &[Log], count: usize, random: &mut SplitMix) -> Vec<Cut> {
        let moments = self.moments(logs);
        let (near, far) = (0..moments.len()).partition::<Vec<_>, _>(|number| {
            let from = number.saturating_sub(NEAR);
            let around = &moments[from..moments.len().min(number + NEAR + 1)];
            around
                .iter()
                .any(|cut| cut.after.is_some_and(|disk| disk != IMAGES))
        });
        let few = far
            .len()
            .min(count / 2)
            .max(count.saturating_sub(near.len()));
        let mut chosen = spread(&near, count - few, random);
        chosen.extend(spread(&far, few, random));
        chosen.sort_unstable();
        let mut cuts: Vec<_> = chosen.into_iter().map(|at| moments[at].clone()).collect();
        for (turn, cut) in cuts.iter_mut().enumerate() {
            cut.loss = losses(turn, random);
        }
        cuts
    }

    /// How many looks there were.
    pub(super) fn len(&self) -> usize {
        self.looks.len()
    }
}

/// So many of them, each from its own part, so that none is left out for long.
fn spread(of: &[usize], count: usize, random: &mut SplitMix) -> Vec<usize> {
    let count = count.min(of.len());
    let part = |number: usize| number * of.len() / count;
    let one = |number: usize| {
        let (from, to) = (part(number), part(number + 1));
        of[from + random.next() as usize % (to - from)]
    };
    (0..count).map(one).collect()
}

fn losses(turn: usize, random: &mut SplitMix) -> [Loss; DISKS.len()] {
    match turn % 3 {
        0 => [Loss::All; DISKS.len()],
        1 => [Loss::Nothing; DISKS.len()],
        _ => std::array::from_fn(|_| match random.next() % 4 {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Some,
        }),
    }
}

/// Something that holds from one moment on, and perhaps not for ever.
#[derive(Debug)]
pub(super) struct During<T> {
    pub(super) what: T,
    pub(super) since: Position,
    /// It may be so no more as soon as this is past.
    pub(super) until: Option<Position>,
}

impl<T> During<T> {
    /// Whether it must be so when the power goes at this moment.
    pub(super) fn holds(&self, cut: &Cut) -> bool {
        let over = self.until.is_some_and(|until| !reached(&cut.at, &until));
        reached(&self.since, &cut.at) && !over
    }
}
