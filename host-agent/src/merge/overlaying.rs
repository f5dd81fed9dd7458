//! The last step for a copy that never catches up with its guest. Pure.
//!
//! ```text
//!   Ending   base ◀─ top*              the active commit is given up; the chain reads as before
//!   Adding   base ◀─ top ◀─ spare*     * what the guest writes; made and put on, or found so
//!   Copying  base ◀─ (top) ◀─ spare*   an intermediate commit, which ends by itself
//!   Merged   base ◀─ spare*            the thin overlay stays
//! ```
//!
//! - The spare's name comes with the order, so whether it is on is told by the chain alone, also after
//!   a crash: making it and putting it on can be repeated.
//! - Until it is being put on, the merge can be given up; and again once it is on.
//! - A refusal ends the merge with the chain as it was, and the spare is taken back if the guest is seen
//!   to write the layer below. What cannot be told is tried again.

use super::look::{Look, REPEAT_AFTER};
use super::observation::Told;
use super::step::{Action, Step, fail};
use super::types::{Overlaying, Phase};
use livemerge_proto::reason::Reason;

impl Look<'_> {
    pub(super) fn overlaying(&self, stage: Overlaying) -> Step {
        if self.seen.overlaid {
            return if self.job_present() {
                self.disk_taken()
            } else {
                self.start_job(1)
            };
        }
        if self.merged() {
            return self.verify();
        }
        match stage {
            Overlaying::Ending => self.ending(),
            Overlaying::Adding => self.adding(),
        }
    }

    /// Nothing is put on top while a job may still work on the chain.
    fn ending(&self) -> Step {
        if let Some(on) = self.late_pivot() {
            return on;
        }
        if self.stale_mark() {
            return self.lost_by_libvirt();
        }
        if self.given_up() {
            return self.cancel();
        }
        if self.unmarked() && self.settled_in_phase() {
            // libvirt cannot end such a job but by a pivot: the merge goes on as it was.
            return self.copies();
        }
        if self.ending_job() {
            return Step::Wait(REPEAT_AFTER);
        }
        let again = self.seen.fresh_start || self.settled_in_phase();
        if self.foreign_job() && again {
            return self.disk_taken();
        }
        if self.job_present() {
            return if again {
                self.enter_stage(Overlaying::Ending, Action::AbortJob)
            } else {
                Step::Wait(REPEAT_AFTER)
            };
        }
        if !self.settled() && self.job_failed().is_none() {
            return Step::Wait(REPEAT_AFTER);
        }
        if self.neighbours() {
            self.enter_stage(Overlaying::Adding, Action::AddOverlay)
        } else if self.settled() {
            self.diverged()
        } else {
            Step::Wait(REPEAT_AFTER)
        }
    }

    fn adding(&self) -> Step {
        if let Some(Told::Refused(text)) = &self.seen.told {
            let text = format!("the guest cannot get a fresh overlay: {text}");
            return fail(Reason::MergeIoError, self.record, &text);
        }
        if self.job_present() {
            return self.disk_taken();
        }
        if self.seen.fresh_start || self.settled_in_phase() {
            return self.enter_stage(Overlaying::Adding, Action::AddOverlay);
        }
        Step::Wait(REPEAT_AFTER)
    }

    fn enter_stage(&self, stage: Overlaying, action: Action) -> Step {
        let since = self.now;
        Step::Enter(Phase::Overlaying { stage, since }, Some(action))
    }
}
