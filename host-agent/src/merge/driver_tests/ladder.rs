//! A copy that does not catch up with the guest: what is done about it, in which order, and that all of
//! it is undone.

use super::*;
use crate::hypervisor::HypervisorError;

const MIB: u64 = 1 << 20;
/// What the guest had before anybody helped.
const BEFORE: u64 = 100 * MIB;

impl Host {
    /// A merge of `vda` whose copy stands still, of a guest that has a limit already.
    async fn stalled(&self) -> MergeId {
        let qemu = self.qemu();
        let limited = qemu.limit_writes(self.vm, &vda(), BEFORE).await;
        limited.unwrap();
        let id = self.started(&["vda"]).await[0];
        self.job(&vda()).await;
        id
    }

    /// The limits that the guest was given, in their order, without the first one.
    fn limits(&self) -> Vec<u64> {
        let limits = self
            .qemu()
            .calls()
            .into_iter()
            .filter_map(|call| match call {
                Call::LimitWrites(_, _, limit) => Some(limit),
                _ => None,
            });
        limits.skip(1).collect()
    }

    async fn limited_to(&self, limit: u64) {
        let is = || self.limits().last() == Some(&limit);
        eventually("the limit", is).await;
    }
}

#[tokio::test]
async fn the_guest_is_held_back_step_by_step_and_freed_before_the_merge_ends() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.stalled().await;
    host.limited_to(MIB).await;
    assert_eq!(host.limits(), [32, 16, 8, 4, 2, 1].map(|mib| mib * MIB));
    let help = host.merges.get(id).unwrap().record.help;
    let throttle = help.throttle.expect("it is written down");
    assert_eq!((throttle.before, throttle.bytes_per_second), (BEFORE, MIB));

    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    assert_eq!(host.limits().last(), Some(&BEFORE));
    assert_eq!(host.merges.get(id).unwrap().record.help, Help::default());
    host.guest_is_well();
}

#[tokio::test]
async fn who_gives_the_merge_up_frees_the_guest() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.stalled().await;
    host.limited_to(32 * MIB).await;
    host.merges.cancel(id, GENERATION).await.unwrap();
    assert!(cancelled(&host.ended(id).await));
    assert_eq!(host.limits().last(), Some(&BEFORE));
    host.chain_is(&vda(), 3);
}

#[tokio::test]
async fn an_agent_that_starts_again_frees_the_guest_before_anything_else() {
    let mut host = Host::impatient(&["vda"]).await;
    let id = host.stalled().await;
    host.limited_to(MIB).await;
    host.stop().await;
    let before = host.qemu().calls().len();
    host.start_again().await;
    let first = || {
        let calls = host.qemu().calls();
        let mut later = calls.into_iter().skip(before);
        later.find(Call::mutates)
    };
    eventually("an act", || first().is_some()).await;
    assert_eq!(first(), Some(Call::LimitWrites(host.vm, vda(), BEFORE)));
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    assert_eq!(host.limits().last(), Some(&BEFORE));
}

/// Whether the limit was set is not known: it is undone all the same, until that is certain.
#[tokio::test]
async fn a_limit_of_which_the_reply_was_lost_is_undone() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.stalled().await;
    host.qemu().lose_reply("limit_writes");
    host.limited_to(MIB).await;
    let lost = || HypervisorError::Unknown("no answer".to_owned());
    host.qemu().fail_next("limit_writes", lost());
    host.qemu().fail_next("limit_writes", lost());
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    let limits = host.limits();
    assert_eq!(limits[limits.len() - 3..], [BEFORE; 3]);
}

/// What could not be told is asked for again, and only then the guest is held back.
#[tokio::test]
async fn a_guest_whose_limit_is_not_known_yet_is_asked_about_again() {
    let host = Host::impatient(&["vda"]).await;
    let unknown = HypervisorError::Unknown("no answer".to_owned());
    host.qemu().fail_next("write_limit", unknown);
    host.stalled().await;
    eventually("the limit", || !host.limits().is_empty()).await;
    assert!(host.count(|call| matches!(call, Call::WriteLimit(..))) > 1);
}

/// What cannot be put back is not changed.
#[tokio::test]
async fn a_guest_whose_limit_cannot_be_told_is_left_alone() {
    let host = Host::impatient(&["vda"]).await;
    let refused = HypervisorError::Refused("not told".to_owned());
    host.qemu().fail_next("write_limit", refused);
    let id = host.stalled().await;
    let asked = || host.count(|call| matches!(call, Call::WriteLimit(..)));
    eventually("the question", || asked() > 0).await;
    host.looks(&vda()).await;
    assert_eq!(asked(), 1);
    assert_eq!(host.limits(), [0; 0]);
    assert_eq!(host.merges.get(id).unwrap().record.help, Help::default());
}

/// A refusal leaves the guest held back, so it is asked for again.
#[tokio::test]
async fn a_limit_that_is_not_taken_back_at_first_is_undone_before_the_merge_ends() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.stalled().await;
    host.limited_to(MIB).await;
    let refused = || HypervisorError::Refused("not now".to_owned());
    host.qemu().fail_next("limit_writes", refused());
    host.qemu().fail_next("limit_writes", refused());
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    let limits = host.limits();
    assert_eq!(limits[limits.len() - 3..], [BEFORE; 3]);
    assert_eq!(host.merges.get(id).unwrap().record.help, Help::default());
}

/// Whoever has set another limit meanwhile has undone this one.
#[tokio::test]
async fn a_limit_of_somebody_else_is_left_as_it_is() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.stalled().await;
    host.limited_to(MIB).await;
    let others = host.qemu().limit_writes(host.vm, &vda(), 7 * MIB).await;
    others.unwrap();
    let refused = HypervisorError::Refused("not by you".to_owned());
    host.qemu().fail_next("limit_writes", refused);
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    assert_eq!(host.limits().last(), Some(&BEFORE));
    let now = host.qemu().write_limit(host.vm, &vda()).await;
    assert_eq!(now.unwrap(), 7 * MIB);
}

/// The limit that it has is then that of the step before, and no one else's.
#[tokio::test]
async fn a_step_that_was_not_taken_does_not_hide_the_one_before() {
    let host = Host::impatient(&["vda"]).await;
    let id = host.stalled().await;
    host.limited_to(32 * MIB).await;
    let refused = || HypervisorError::Refused("not now".to_owned());
    // The second step is refused, and then its undoing, once.
    host.qemu().fail_next("limit_writes", refused());
    host.limited_to(16 * MIB).await;
    host.qemu().fail_next("limit_writes", refused());
    host.copy(&vda()).await;
    host.switch(&vda()).await;
    assert!(merged(&host.ended(id).await));
    let now = host.qemu().write_limit(host.vm, &vda()).await;
    assert_eq!(now.unwrap(), BEFORE);
}
