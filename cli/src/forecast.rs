//! Draws what a delete would do, and what would refuse it.
//!
//! ```text
//!   vda  commits the active layer down, then switches the guest
//!   oldest  vda-base       kept: takes the data
//!   └─▶     vda-0192f0c1   removed
//!     └─▶   vda-0192f3d4   removed; active: the guest writes here
//!   copies      64.00 MiB; the other way: 1.50 GiB
//!   space       needs 48.00 MiB, free: 90.00 GiB
//!   gives back  70.00 MiB
//!   warning     guest_discards: …
//! ```

use crate::chain::branch;
use crate::output::columns;
use crate::output::plan::WARNING;
use crate::output::text::{escape, or_dash, word};
use indicatif::{HumanBytes, HumanDuration};
use livemerge_proto::v1;
use std::time::Duration;
use v1::MergeKind;

/// The plan as text. Nothing in it steers a terminal.
pub(crate) fn draw(plan: &v1::PlanDeleteSnapshotResponse) -> String {
    let rounds = plan.merges.iter().any(|merge| merge.round > 0);
    let mut parts: Vec<String> = plan
        .merges
        .iter()
        .map(|merge| of_disk(merge, rounds))
        .collect();
    if !plan.merges.is_empty() || plan.blockers.is_empty() {
        parts.push(in_all(plan));
    }
    if !plan.blockers.is_empty() {
        parts.push(columns(plan.blockers.iter().map(blocker)));
    }
    parts.join("\n\n")
}

fn of_disk(merge: &v1::MergePlan, rounds: bool) -> String {
    let disk = escape(&merge.disk);
    let round = if rounds {
        format!("round {}: ", i64::from(merge.round) + 1)
    } else {
        String::new()
    };
    let way = way(merge.kind());
    let lines = numbers(merge).into_iter().chain(warnings(merge));
    let (chain, numbers) = (columns(layers(merge)), columns(lines));
    format!("{disk}  {round}{way}\n{chain}\n{numbers}")
}

fn way(kind: MergeKind) -> &'static str {
    match kind {
        MergeKind::Unspecified => "in a way that is not known here",
        MergeKind::ActiveCommit => "commits the active layer down, then switches the guest",
        MergeKind::IntermediateCommit => {
            "commits layers below the active one down; the guest is not switched"
        }
        MergeKind::Pull => "pulls layers up into the active one; the guest is not switched",
        MergeKind::OfflineCommit => "commits down while the machine is off",
    }
}

/// Those that the merge touches, oldest first: what is kept is at the end that the data go to.
fn layers(merge: &v1::MergePlan) -> Vec<Vec<String>> {
    let kind = merge.kind();
    let removed = merge.removed.iter().map(|volume| (volume, "removed"));
    let mut layers: Vec<_> = removed.collect();
    if let Some(kept) = &merge.kept {
        let place = if kind == MergeKind::Pull {
            layers.len()
        } else {
            0
        };
        layers.insert(place, (kept, "kept: takes the data"));
    }
    let active = match kind {
        MergeKind::ActiveCommit | MergeKind::Pull => layers.len().checked_sub(1),
        _ => None,
    };
    let row = |(index, (volume, what)): (usize, (&v1::VolumeRef, &str))| {
        let branch = match index {
            0 => "oldest".to_owned(),
            _ => branch(index),
        };
        let active = if active == Some(index) {
            "; active: the guest writes here"
        } else {
            ""
        };
        vec![branch, or_dash(&volume.name), format!("{what}{active}")]
    };
    layers.into_iter().enumerate().map(row).collect()
}

fn numbers(merge: &v1::MergePlan) -> Vec<Vec<String>> {
    let other_way = or(merge.other_way_bytes, "not possible");
    let free = or(merge.space_free_bytes, "not known");
    [
        (
            "copies",
            format!("{}; the other way: {other_way}", bytes(merge.copy_bytes)),
        ),
        (
            "space",
            format!("needs {}, free: {free}", bytes(merge.space_needed_bytes)),
        ),
        ("gives back", bytes(merge.freed_bytes)),
    ]
    .map(|(name, value)| vec![name.to_owned(), value])
    .into()
}

fn warnings(merge: &v1::MergePlan) -> impl Iterator<Item = Vec<String>> {
    merge.warnings.iter().map(|warning| {
        let reason = word(warning.reason().as_str_name(), WARNING);
        let text = format!("{reason}: {}", or_dash(&warning.message));
        vec!["warning".to_owned(), text]
    })
}

fn in_all(plan: &v1::PlanDeleteSnapshotResponse) -> String {
    let time = plan
        .estimated_time
        .and_then(|time| Duration::try_from(time).ok());
    let time = time.map_or_else(
        || "a time that is not known".to_owned(),
        |time| format!("about {}", HumanDuration(time)),
    );
    format!(
        "in all  copies {}, gives back {}, takes {time}",
        bytes(plan.copy_bytes),
        bytes(plan.freed_bytes)
    )
}

fn blocker(blocker: &v1::Blocker) -> Vec<String> {
    let about = match (blocker.disk.as_str(), blocker.snapshot_id.as_str()) {
        ("", "") => "-".to_owned(),
        ("", snapshot) => format!("snapshot {}", escape(snapshot)),
        (disk, _) => format!("disk {}", escape(disk)),
    };
    vec![
        "blocked".to_owned(),
        or_dash(&blocker.reason),
        about,
        or_dash(&blocker.message),
    ]
}

fn bytes(bytes: i64) -> String {
    or(bytes, "nothing")
}

/// The server's word for none is 0.
fn or(bytes: i64, none: &str) -> String {
    match u64::try_from(bytes) {
        Ok(bytes) if bytes > 0 => HumanBytes(bytes).to_string(),
        _ => none.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str) -> v1::VolumeRef {
        v1::VolumeRef {
            storage: "images".into(),
            name: name.into(),
        }
    }

    fn names(kind: MergeKind) -> Vec<String> {
        let merge = v1::MergePlan {
            kind: kind.into(),
            kept: Some(volume("kept")),
            removed: vec![volume("older"), volume("younger")],
            ..Default::default()
        };
        let layers = layers(&merge).into_iter();
        layers.map(|row| row[1].clone()).collect()
    }

    #[test]
    fn what_is_kept_is_where_the_data_go() {
        for down in [
            MergeKind::ActiveCommit,
            MergeKind::IntermediateCommit,
            MergeKind::OfflineCommit,
        ] {
            assert_eq!(names(down), ["kept", "older", "younger"], "{down:?}");
        }
        assert_eq!(names(MergeKind::Pull), ["older", "younger", "kept"]);
    }

    #[test]
    fn nothing_known_is_nothing_said() {
        assert_eq!(
            draw(&v1::PlanDeleteSnapshotResponse::default()),
            "in all  copies nothing, gives back nothing, takes a time that is not known"
        );
        assert_eq!(or(i64::MIN, "none"), "none");
    }
}
