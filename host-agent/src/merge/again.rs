//! A block job that is not there any more, and whose merge is not done: asked for again, or given up. Pure.
//!
//! ```text
//!   nobody knows why       ─▶ 2 s, chain as before ─▶ start, 3 times in all
//!   failed, room as needed ─▶ Failed
//!   failed, room as given  ─▶ 2 s, chain as before ─▶ more room, start, 3 times in all ─▶ Failed
//!   failed, on a server    ─▶ a pause, chain as before ─▶ start, 12 times in all ─▶ Failed
//!   called off             ─▶ Failed
//!   of no kind, as one of ours is while it ends ─▶ its end is waited for, 5 s on this host, 60 s on a server
//! ```
//!
//! Layers on a server, as those behind an exporter, may be away and come back. libvirt 9.0 has no way to
//! let QEMU wait for them, so each of its requests fails meanwhile, and with the first of its own a job
//! ends; one may not even begin. The chain is the one that the order was for, no job works on it, and the
//! guest writes where it did: what made the first start safe makes each of them so. A kept volume that has only
//! the room it is given may be full before it is given more, on a host that has much to do; nothing tells that
//! failure from another one, and what is lacking is measured anew before each start.

use super::look::{Look, REPEAT_AFTER};
use super::observation::Told;
use super::step::{Step, fail};
use super::types::{MergeRecord, Phase};
use crate::hypervisor::BlockJobOutcome;
use livemerge_proto::reason::Reason;
use livemerge_runtime::Backoff;
use livemerge_storage::Locator;
use std::time::Duration;

/// How often a job is asked for.
const STARTS: u32 = 3;
/// The same on a server, for one to four minutes: one that is started again takes less.
const STARTS_ON_A_SERVER: u32 = 12;
/// Of a job that is not asked for again, wherever its layers are.
pub(super) const NO_MORE_STARTS: u32 = STARTS_ON_A_SERVER;
/// What a job of ours may take to end on a server.
const LONGEST_END: Duration = Duration::from_secs(60);
/// The same where nothing in flight waits for a server.
const LONGEST_END_HERE: Duration = Duration::from_secs(5);
/// Between two of them.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(20));

impl Look<'_> {
    /// What is next for a copy without its job.
    pub(super) fn start_again(&self, starts: u32) -> Step {
        if let Some(failed) = self.failed_for_good() {
            return failed;
        }
        let pause = self.pause_before_start(starts);
        if self.seen.job_missing_for < pause {
            return Step::Wait(pause.saturating_sub(self.seen.job_missing_for));
        }
        if !self.neighbours() {
            return self.diverged();
        }
        if self.record.offline() && self.seen.fresh_start {
            // It died with the agent, which may start as often as it likes.
            return self.start_job(starts);
        }
        if starts < most_starts(self.record) {
            return self.start_job(starts + 1);
        }
        self.without_merge("the block job ended without a merge")
    }

    /// What is next for one that had caught up and was not pivoted.
    pub(super) fn copy_again(&self) -> Step {
        if let Some(failed) = self.failed_for_good() {
            return failed;
        }
        if !self.settled() {
            return Step::Wait(self.policy.settle);
        }
        if self.failed_for_now() && self.neighbours() {
            // It has not begun anew: storage on which it dies each time is given up once.
            let (starts, since) = (self.record.starts.max(1), self.now);
            return Step::Enter(Phase::Copying { starts, since }, None);
        }
        self.without_merge("the block job ended before the pivot")
    }

    /// Whether a refusal is one of a job that ran before, on a server that may be away.
    pub(super) fn refused_for_now(&self, starts: u32) -> bool {
        starts > 1 && self.on_a_server()
    }

    /// Whether it is a job of ours that ends, as libvirt shows one until what is in flight has ended. What
    /// does so for longer is another one, a backup for example.
    pub(super) fn ends_at_once(&self) -> bool {
        let longest = if self.on_a_server() {
            LONGEST_END
        } else {
            LONGEST_END_HERE
        };
        self.ending_job() && self.seen.of_no_kind_for < longest
    }

    /// Nothing is asked of it: it may be somebody else's.
    pub(super) fn wait_for_its_end(&self) -> Step {
        if self.given_up() {
            return Step::Enter(Phase::Cancelling { since: self.now }, None);
        }
        Step::Wait(REPEAT_AFTER)
    }

    fn on_a_server(&self) -> bool {
        on_a_server(self.record)
    }

    fn failed_for_good(&self) -> Option<Step> {
        let failed = Some(&Told::Job(BlockJobOutcome::Failed));
        self.job_failed()
            .filter(|_| self.seen.told.as_ref() != failed || !may_pass(self.record))
    }

    /// Whether a job that had caught up may have ended for what may be over by now. Where nobody knows why it
    /// ended, and it is not a server that was away, the guest may have been switched meanwhile.
    fn failed_for_now(&self) -> bool {
        let failed = self.seen.told == Some(Told::Job(BlockJobOutcome::Failed));
        self.on_a_server() || (self.record.given_room && failed)
    }

    fn pause_before_start(&self, starts: u32) -> Duration {
        if self.on_a_server() {
            let pause = PAUSES.after(starts, self.record.order.id);
            pause.max(self.policy.settle)
        } else {
            self.policy.settle
        }
    }

    fn without_merge(&self, text: &str) -> Step {
        let text = match &self.seen.told {
            Some(Told::Refused(why)) => why,
            _ => text,
        };
        self.job_failed()
            .unwrap_or_else(|| fail(Reason::MergeIoError, self.record, text))
    }
}

/// How often its job is asked for.
pub(super) fn most_starts(record: &MergeRecord) -> u32 {
    if on_a_server(record) {
        STARTS_ON_A_SERVER
    } else {
        STARTS
    }
}

/// Whether what its job has failed of may be over when it is asked for again.
fn may_pass(record: &MergeRecord) -> bool {
    record.given_room || on_a_server(record)
}

/// Whether a layer of it may be away and come back.
pub(super) fn on_a_server(record: &MergeRecord) -> bool {
    let mut layers = record.layers().into_iter();
    layers.any(|layer| matches!(layer, Locator::Nbd(_)))
}

/// Whether what was said is of no account any more: the job was asked for again, and is there.
pub(super) fn is_over(told: &Told, record: &MergeRecord) -> bool {
    let again = matches!(record.phase, Phase::Copying { starts, .. } if starts > 1);
    again && on_a_server(record) && matches!(told, Told::Refused(_))
}
