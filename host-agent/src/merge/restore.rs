//! The decisions after the death of a QEMU that had pulled. Pure.
//!
//! ```text
//!   QEMU:   copies ─▶ header of the kept image names none of the removed ─▶ … ─▶ tables written out
//!   dies here:  ✓ chain as before                ✗ what was pulled is lost          ✓ merged
//! ```
//!
//! Nothing is removed before a pull is Merged, so the data are still in the removed images. While
//! the machine is shut off the kept image is made to name them again, and the chain reads as it did:
//! what the guest has written since is in the kept image, and lies above them. A machine that has
//! been started without them is left alone: what it reads cannot be told, and is not taken for
//! merged.

use super::look::{Look, REPEAT_AFTER};
use super::observation::Told;
use super::step::{Action, Step, fail};
use super::types::{MergeKind, Phase};
use livemerge_proto::reason::Reason;
use livemerge_storage::Format;

/// How often it is tried: a QEMU that ends may have an image open for a while.
const MAX_TRIES: u32 = 50;

impl Look<'_> {
    /// The layers have left the chain, and this is not the QEMU that has pulled them: the kept image
    /// may lack data.
    pub(super) fn may_lack_data(&self) -> bool {
        self.merged()
            && self.record.kind == MergeKind::Pull
            && self.disk.pulls_for != Some(self.record.order.id)
    }

    /// Of a machine that is shut off: the kept image no longer names the layers that were pulled,
    /// and nobody knows whether it has their data.
    pub(super) fn lost_the_pulled(&self) -> bool {
        self.record.kind == MergeKind::Pull
            && !matches!(self.record.phase, Phase::Pending | Phase::Verifying { .. })
            && !self.record.removed.is_empty()
            && !self.removed_seen()
            && self.disk.position(&self.record.kept).is_some()
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

    /// The end of a merge whose kept image may lack data, for people.
    pub(super) fn lacks_data(&self, why: &str) -> Step {
        let (kept, format) = (&self.record.kept, self.record.backing_format);
        let backing = self.record.removed.last();
        let backing = backing.map(ToString::to_string).unwrap_or_default();
        let format = match format {
            Some(Format::Raw) => "raw",
            _ => "qcow2",
        };
        let text = format!(
            "{why}: {kept} may lack data that were pulled, and the removed volumes must stay; stop \
             the machine, then `qemu-img rebase -u -F {format} -b {backing} {kept}` makes it whole"
        );
        fail(Reason::ChainDiverged, self.record, &text)
    }

    /// The same, of a machine that runs.
    pub(super) fn runs_without_data(&self) -> Step {
        self.lacks_data("QEMU was started again after the pull had begun")
    }
}
