//! The decisions after the death of a QEMU that had pulled, or committed below another layer. Pure.
//!
//! ```text
//!   QEMU:   copies ─▶ header of the layer above names the removed no more ─▶ … ─▶ tables written out
//!   dies here:  ✓ chain as before                   ✗ what was copied is lost           ✓ merged
//! ```
//!
//! The layer above is the one that is kept by a pull, and the overlay on the removed ones of a
//! commit. Nothing is removed before the merge is Merged, so the data are still in the removed
//! images. While the machine is shut off that layer is made to name them again, in its header and
//! where the definition writes the chain down, and the chain reads as it did: what the guest has
//! written since lies above them. The definition may still have the whole chain, and the header goes
//! astray alone: it is put right all the same, for whoever reads it. A machine that has been started
//! without the removed ones is left alone: what it reads cannot be told, and is not taken for merged.

use super::look::{Look, REPEAT_AFTER};
use super::observation::Told;
use super::step::{Action, Step, fail};
use super::types::{MergeRecord, Phase};
use livemerge_proto::reason::Reason;
use livemerge_storage::{Format, Locator};

/// How often it is tried: a QEMU that ends may have an image open for a while.
const MAX_TRIES: u32 = 50;

impl Look<'_> {
    /// The layers have left the chain, and this is not the QEMU that has copied them: nobody knows
    /// whether all of it was written.
    pub(super) fn may_lack_data(&self) -> bool {
        self.merged()
            && self.record.relinked.is_some()
            && self.disk.works_for != Some(self.record.order.id)
    }

    /// Of a machine that is shut off: a header no longer names the removed layers, and nobody knows
    /// whether their data were written, or the definition still names them.
    pub(super) fn lost_the_copied(&self) -> bool {
        let Some(relinked) = &self.record.relinked else {
            return false;
        };
        let unwritten = !matches!(self.record.phase, Phase::Verifying { .. });
        let left_out = !self.removed_seen() && self.disk.position(&self.record.kept).is_some();
        !matches!(self.record.phase, Phase::Pending)
            && (unwritten && left_out || self.disk.astray.contains(relinked))
    }

    /// Names the removed layers again.
    pub(super) fn restore(&self) -> Step {
        let tries = match self.record.phase {
            Phase::Restoring { .. } if !self.repeat() => return Step::Wait(REPEAT_AFTER),
            Phase::Restoring { tries } => tries,
            _ => 0,
        };
        match &self.seen.told {
            Some(Told::Refused(why)) if tries >= MAX_TRIES => self.lacks_data(why),
            _ if tries >= MAX_TRIES => self.lacks_data("its backing cannot be named again"),
            _ => {
                let tries = tries + 1;
                Step::Enter(Phase::Restoring { tries }, Some(Action::RestoreBacking))
            }
        }
    }

    /// The end of a merge whose chain may lack data.
    pub(super) fn lacks_data(&self, why: &str) -> Step {
        let relinked = self.record.relinked.as_ref();
        lacks_data(self.record, relinked.unwrap_or(&self.record.kept), why)
    }

    /// The same, of a machine that runs.
    pub(super) fn runs_without_data(&self) -> Step {
        self.lacks_data("QEMU was started again after the merge had begun")
    }
}

/// The same, told to people: how the layer is made to name what it named.
pub(super) fn lacks_data(record: &MergeRecord, relinked: &Locator, why: &str) -> Step {
    let backing = record.removed.last();
    let backing = backing.map(ToString::to_string).unwrap_or_default();
    let format = match record.backing_format {
        Some(Format::Raw) => "raw",
        _ => "qcow2",
    };
    let command = format!("qemu-img rebase -u -F {format} -b {backing} {relinked}");
    let text = format!(
        "{why}: {relinked} may no longer name {backing}, whose data may not have been written. The \
         removed volumes must stay; while the machine is off, `{command}` makes it whole. A \
         <backingStore> of the disk in the machine's definition overrules that: take it out, too"
    );
    fail(Reason::ChainLacksData, record, &text)
}
