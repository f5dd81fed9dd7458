//! What a merge costs: bytes to copy, and room for them.
//!
//! ```text
//!   maps of the volumes ─▶ Work of a commit, Work of a pull ─▶ Room of the kept volume's domain (room.rs)
//! ```
//!
//! A map that cannot be read in time costs nobody a merge: the bytes are estimated then, and no
//! want of space is derived from them.

use super::types::Direction;
use crate::volumes::Volumes;
use livemerge_proto::problem::Problem;
use livemerge_proto::reason::Reason;
use livemerge_storage::{Profile, Share, Survey, VolumeRef};
use std::time::Duration;

/// Room that is left beside what a merge needs: tables of the image, and rounding.
const SPARE_BYTES: u64 = 16 << 20;

/// What one way to merge has to do, without what the guest writes meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Bytes of data to copy.
    pub copy_bytes: u64,
    /// Bytes to write as zeros, without data.
    pub zero_bytes: u64,
    /// Bytes that the kept volume takes in addition, in whole clusters.
    pub space_needed_bytes: u64,
    /// Bytes of data that the kept volume has by now, in whole clusters, whoever sees them; `None` when that
    /// was not read.
    pub kept_data_bytes: Option<u64>,
    /// These are guesses from the space that the volumes take: nothing is to be refused by them.
    pub estimated: bool,
}

impl Work {
    /// As much as the removed volumes take in storage.
    pub(super) fn estimate(allocated_bytes: u64) -> Self {
        Self {
            copy_bytes: allocated_bytes,
            zero_bytes: 0,
            space_needed_bytes: allocated_bytes,
            kept_data_bytes: None,
            estimated: true,
        }
    }

    fn of(share: Share, space_needed_bytes: u64, kept_data_bytes: u64) -> Self {
        Self {
            copy_bytes: share.data_bytes,
            zero_bytes: share.zero_bytes,
            space_needed_bytes,
            kept_data_bytes: Some(kept_data_bytes),
            estimated: false,
        }
    }

    /// What is to be found where the kept volume has so much room that nothing fills.
    pub(super) fn beside(self, unused_bytes: u64) -> Self {
        Self {
            space_needed_bytes: self.space_needed_bytes.saturating_sub(unused_bytes),
            ..self
        }
    }
}

/// The work of both directions, and where the data lie that each copies.
pub(super) struct Works {
    commit: (Work, Profile),
    pull: (Work, Profile),
}

impl Works {
    pub(super) fn of(&self, direction: Direction) -> Work {
        match direction {
            Direction::Commit => self.commit.0,
            Direction::Pull => self.pull.0,
        }
    }

    /// Where the kept volumes are given no more than this: what a full volume has is room for
    /// everything.
    fn within(mut self, commit: Option<u64>, pull: Option<u64>) -> Self {
        for (work, left) in [(&mut self.commit.0, commit), (&mut self.pull.0, pull)] {
            let needed = work.space_needed_bytes;
            work.space_needed_bytes = needed.min(left.unwrap_or(needed));
        }
        self
    }

    pub(super) fn profile(self, direction: Direction) -> Profile {
        match direction {
            Direction::Commit => self.commit.1,
            Direction::Pull => self.pull.1,
        }
    }
}

/// Reads off the maps what it takes to merge these neighbours, oldest first. `None` when they
/// cannot be read within the limit.
pub(super) async fn measure(
    layers: &[&VolumeRef],
    volumes: &Volumes,
    limit: Duration,
) -> Option<Works> {
    let [lowest, .., youngest] = layers else {
        return None;
    };
    let survey = tokio::time::timeout(limit, volumes.survey(youngest, lowest)).await;
    let why = match survey {
        Ok(Ok(survey)) => {
            let works = works(&survey, layers.len());
            return Some(works.within(
                room_left(lowest, layers, volumes).await,
                room_left(youngest, layers, volumes).await,
            ));
        }
        Ok(Err(problem)) => problem.to_string(),
        Err(_late) => format!("no end after {limit:?}"),
    };
    tracing::warn!(volume = %youngest, why, "its map cannot be read: the bytes of a merge are estimated");
    None
}

/// What a volume may still be given, once it is as large as the largest of these. `None` where it
/// takes what it needs, or that cannot be told.
async fn room_left(kept: &VolumeRef, layers: &[&VolumeRef], volumes: &Volumes) -> Option<u64> {
    let mut info = volumes.stat(kept).await.ok()?;
    let _is_given = volumes.most_room(&info)?;
    info.virtual_bytes = largest(layers, volumes).await.ok()?;
    let most = volumes.most_room(&info)?;
    Some(most.saturating_sub(info.allocated_bytes))
}

/// What a guest sees of the largest of these: as much of the kept one, once they are merged.
pub(super) async fn largest(layers: &[&VolumeRef], volumes: &Volumes) -> Result<u64, Problem> {
    let mut largest = 0;
    for layer in layers {
        largest = volumes.stat(layer).await?.virtual_bytes.max(largest);
    }
    Ok(largest)
}

/// From what is seen of each volume, the youngest first. A commit takes away all but the oldest of
/// them, a pull all but the youngest, which has no room yet for anything below it.
fn works(survey: &Survey, layers: usize) -> Works {
    let seen = &survey.seen;
    let of_merge = &seen[..layers.min(seen.len())];
    let above = &of_merge[..(layers - 1).min(of_merge.len())];
    let below = &of_merge[1.min(of_merge.len())..];
    let share = |of: &[(Share, Profile)]| of.iter().map(|(share, _)| *share).sum::<Share>();
    let profile = |of: &[(Share, Profile)]| of.iter().map(|(_, profile)| profile).sum();
    let (commit, pull) = (share(above), share(below));
    // Of the youngest one nothing is hidden.
    let youngest = share(&of_merge[..1.min(of_merge.len())]).room_bytes;
    let commit_work = Work::of(commit, commit.new_bytes, survey.kept_bytes);
    let pull_work = Work::of(pull, pull.room_bytes, youngest);
    Works {
        commit: (commit_work, profile(above)),
        pull: (pull_work, profile(below)),
    }
}

/// Whether it is certain that the work does not fit into so much room. One that is written in place
/// always fits: in a full domain it is what makes room.
pub(super) fn want_of_space(kept: &VolumeRef, work: &Work, free: u64) -> Option<Problem> {
    let needed = work.space_needed_bytes;
    let wanted = needed.saturating_add(needed / 100 + SPARE_BYTES);
    if work.estimated || needed == 0 || free >= wanted {
        return None;
    }
    let text = format!(
        "{kept} would take {needed} bytes more and {wanted} should be free in {}, which has {free}",
        kept.storage
    );
    let problem = Problem::new(Reason::InsufficientSpace, text);
    let problem = problem
        .with("volume", kept)
        .with("storage", &kept.storage)
        .with("needed_bytes", wanted);
    Some(problem.with("free_bytes", free))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(data_bytes: u64, zero_bytes: u64) -> (Share, Profile) {
        let share = Share {
            data_bytes,
            zero_bytes,
            room_bytes: data_bytes + 1000,
            new_bytes: data_bytes + 500,
        };
        let mut profile = Profile::default();
        profile.add(0, data_bytes);
        (share, profile)
    }

    #[test]
    fn each_direction_takes_away_all_but_one() {
        let seen = [share(1, 2), share(10, 20), share(100, 200), share(9, 9)];
        let survey = |seen: &[(Share, Profile)]| Survey {
            seen: seen.to_vec(),
            kept_bytes: 70,
        };
        let bytes = |work: Work| (work.copy_bytes, work.zero_bytes, work.space_needed_bytes);
        let three = works(&survey(&seen), 3);
        assert_eq!(bytes(three.commit.0), (11, 22, 11 + 2 * 500));
        assert_eq!(bytes(three.pull.0), (110, 220, 110 + 2 * 1000));
        let profiles = [three.commit.1.total(), three.pull.1.total()];
        assert_eq!(profiles, [11, 110], "what lies where is of the same bytes");
        let data = [three.commit.0, three.pull.0].map(|work| work.kept_data_bytes);
        assert_eq!(data, [Some(70), Some(1 + 1000)]);
        let two = works(&survey(&seen), 2);
        assert_eq!(bytes(two.commit.0), (1, 2, 501));
        assert_eq!(bytes(two.pull.0), (10, 20, 1010));
        // What is full needs no more room, and what is nearly full no more than that.
        let full = works(&survey(&seen), 2).within(Some(0), Some(5));
        assert_eq!(
            (bytes(full.commit.0), bytes(full.pull.0)),
            ((1, 2, 0), (10, 20, 5))
        );
        let own = works(&survey(&seen), 2).within(None, Some(1 << 40));
        assert_eq!((bytes(own.commit.0).2, bytes(own.pull.0).2), (501, 1010));
        // Nothing is seen of the lower ones.
        let bare = works(&survey(&seen[..1]), 3);
        assert_eq!(bytes(bare.commit.0), (1, 2, 501));
        assert_eq!(bytes(bare.pull.0), (0, 0, 0));
    }

    #[test]
    fn space_is_wanting_when_it_is_certain() {
        let kept = VolumeRef {
            storage: "default".parse().unwrap(),
            name: "base.qcow2".parse().unwrap(),
        };
        let mib = 1 << 20;
        for (needed, free, estimated, wanting) in [
            (100 * mib, 117 * mib, false, false),
            (100 * mib, 117 * mib - 1, false, true),
            (100 * mib, 0, true, false),
            (1, SPARE_BYTES, false, true),
            (1, SPARE_BYTES + 1, false, false),
            (0, 0, false, false),
            (u64::MAX, u64::MAX - 1, false, true),
        ] {
            let work = Work {
                space_needed_bytes: needed,
                estimated,
                ..Work::estimate(0)
            };
            let refused = want_of_space(&kept, &work, free);
            assert_eq!(refused.is_some(), wanting, "{needed} of {free}");
            if let Some(refused) = refused {
                assert_eq!(refused.reason, Reason::InsufficientSpace);
                assert_eq!(refused.metadata["free_bytes"], free.to_string());
            }
        }
    }
}
