//! What LVM reports of a group: its room, its logical volumes, and where they lie.
//!
//! One `lvm fullreport` says all of it, so that no two halves of an answer are of different times:
//!
//! ```text
//!   {"report": [{"vg": [{…}], "pv": [{…}], "lv": [{…}], "seg": [{…}]}]}     every value is a text
//! ```
//!
//! Whatever else the answer is, is an error: nothing is decided on half of it.

use super::name::{Role, removed};
use super::tag;
use crate::{Identity, RemovalId, VolumeName};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::PathBuf;

/// What is asked for, by report. All reports are made, whether they are asked for or not.
pub(super) const FIELDS: [(&str, &str); 5] = [
    (
        "vg",
        "vg_seqno,vg_free,vg_size,vg_extent_size,vg_missing_pv_count",
    ),
    ("pv", "pv_name,pe_start"),
    (
        "lv",
        "lv_name,lv_uuid,lv_tags,lv_size,origin,lv_device_open,lv_kernel_major,lv_kernel_minor,\
         lv_autoactivation",
    ),
    ("seg", "lv_uuid,seg_start,segtype,seg_pe_ranges"),
    ("pvseg", "pvseg_start"),
];

/// A volume group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Which of its changes was the last: none is made without another number.
    pub(super) change: u64,
    /// This is not a report of now: where its volumes lie may have another name by now.
    pub(super) seen_before: bool,
    pub(super) free_bytes: u64,
    pub(super) total_bytes: u64,
    pub(super) extent_bytes: u64,
    /// Devices of it that are not there.
    pub(super) missing: u64,
    pub(super) volumes: Vec<Logical>,
}

/// A logical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Logical {
    pub(super) name: String,
    pub(super) identity: Identity,
    pub(super) tags: Vec<String>,
    pub(super) bytes: u64,
    /// The logical volume that it is a snapshot of, by LVM's own means.
    pub(super) origin: Option<String>,
    /// The device's number; `None` while it is not active here.
    pub(super) device: Option<(u32, u32)>,
    /// Whether somebody has the device open, or it cannot be told.
    pub(super) open: bool,
    /// Whether the host activates it by itself when it starts.
    pub(super) autoactivates: bool,
    /// Where its bytes lie, in order and without gaps; `None` when that is not as simple.
    pub(super) pieces: Option<Vec<Piece>>,
}

/// Bytes of a logical volume that lie in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where they begin in the logical volume.
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// The physical volume.
    pub(super) device: PathBuf,
    /// Where they begin on it.
    pub(super) at: u64,
}

impl Group {
    /// This program's, whatever they are by now.
    pub(super) fn ours(&self) -> impl Iterator<Item = &Logical> {
        self.volumes.iter().filter(|volume| volume.is_ours())
    }

    pub(super) fn volume(&self, name: &VolumeName) -> Option<&Logical> {
        // A name is compared sooner than read.
        let is = |volume: &&Logical| volume.name == name.as_str() && volume.is_ours();
        let found = self.volumes.iter().find(is)?;
        matches!(found.role(), Role::Volume(_)).then_some(found)
    }

    pub(super) fn removed(&self, id: RemovalId) -> Option<&Logical> {
        let name = removed(id);
        let is = |volume: &&Logical| volume.name == name && volume.is_ours();
        self.volumes.iter().find(is)
    }

    /// As it is after a change of a name that has been made.
    pub(super) fn rename(&mut self, from: &str, to: &VolumeName) {
        let renamed = self.volumes.iter_mut().find(|volume| volume.name == from);
        if let Some(volume) = renamed {
            to.as_str().clone_into(&mut volume.name);
        }
    }

    pub(super) fn named(&self, name: &str) -> Option<&Logical> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// One that is a snapshot of it by LVM's own means: they are removed together.
    pub(super) fn snapshot_of(&self, name: &str) -> Option<&Logical> {
        let is = |volume: &&Logical| volume.origin.as_deref() == Some(name);
        self.volumes.iter().find(is)
    }

    /// Condemned volumes that were activated for a look alone are as they were before it.
    pub(super) fn looked_at(&mut self, activated: &[String]) {
        for volume in &mut self.volumes {
            let condemned = matches!(volume.role(), Role::Removed(_));
            if condemned && activated.contains(&volume.name) {
                (volume.device, volume.open) = (None, false);
            }
        }
    }
}

impl Logical {
    pub(super) fn is_ours(&self) -> bool {
        self.tags.iter().any(|tag| tag == tag::OURS)
    }

    pub(super) fn role(&self) -> Role {
        Role::of(&self.name)
    }
}

/// Reads the answer of `lvm fullreport` for one group.
pub(super) fn parse(answer: &str) -> Result<Group, String> {
    let answer: Answer = serde_json::from_str(answer).map_err(|error| error.to_string())?;
    let [parts] = answer.report.as_slice() else {
        return Err(format!("{} groups are reported", answer.report.len()));
    };
    let [group] = parts.vg.as_slice() else {
        return Err(format!("{} groups have the name", parts.vg.len()));
    };
    let extent_bytes = number(&group.vg_extent_size)?;
    let starts = parts
        .pv
        .iter()
        .map(|pv| Ok((pv.pv_name.as_str(), number(&pv.pe_start)?)));
    let starts: HashMap<_, _> = starts.collect::<Result<_, String>>()?;
    let mut segments: HashMap<&str, Vec<&SegmentRow>> = HashMap::new();
    for row in &parts.seg {
        segments.entry(&row.lv_uuid).or_default().push(row);
    }
    let volume = |row: &VolumeRow| {
        let of_volume = segments
            .get(row.lv_uuid.as_str())
            .map_or(&[][..], Vec::as_slice);
        logical(row, pieces(of_volume, &starts, extent_bytes))
    };
    Ok(Group {
        change: number(&group.vg_seqno)?,
        seen_before: false,
        free_bytes: number(&group.vg_free)?,
        total_bytes: number(&group.vg_size)?,
        extent_bytes: Some(extent_bytes)
            .filter(|bytes| *bytes > 0)
            .ok_or("extents of 0 bytes")?,
        missing: number(&group.vg_missing_pv_count)?,
        volumes: parts.lv.iter().map(volume).collect::<Result<_, _>>()?,
    })
}

fn logical(row: &VolumeRow, pieces: Option<Vec<Piece>>) -> Result<Logical, String> {
    let major = row.lv_kernel_major.parse().ok();
    let minor = row.lv_kernel_minor.parse().ok();
    let device = major.zip(minor);
    Ok(Logical {
        name: row.lv_name.clone(),
        identity: row
            .lv_uuid
            .parse()
            .map_err(|_| format!("{:?} is no identity", row.lv_uuid))?,
        tags: row
            .lv_tags
            .split(',')
            .filter(|tag| !tag.is_empty())
            .map(Into::into)
            .collect(),
        bytes: number(&row.lv_size)?,
        origin: Some(row.origin.clone()).filter(|origin| !origin.is_empty()),
        device,
        open: device.is_some() && row.lv_device_open != "0",
        autoactivates: row.lv_autoactivation != "0",
        pieces,
    })
}

/// `None` for whatever is not one range of one physical volume after the other.
fn pieces(
    rows: &[&SegmentRow],
    starts: &HashMap<&str, u64>,
    extent_bytes: u64,
) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    for row in rows.iter().filter(|row| row.segtype == "linear") {
        // `DEVICE:FIRST-LAST`, in extents.
        let (device, range) = row.seg_pe_ranges.rsplit_once(':')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let extents = last.checked_sub(first)?.checked_add(1)?;
        pieces.push(Piece {
            start: row.seg_start.parse().ok()?,
            bytes: extents.checked_mul(extent_bytes)?,
            device: device.into(),
            at: first
                .checked_mul(extent_bytes)?
                .checked_add(*starts.get(device)?)?,
        });
    }
    pieces.sort_by_key(|piece| piece.start);
    let gapless = pieces.iter().try_fold(0_u64, |end, piece| {
        (piece.start == end)
            .then(|| end.checked_add(piece.bytes))
            .flatten()
    });
    (pieces.len() == rows.len() && gapless.is_some_and(|end| end > 0)).then_some(pieces)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

#[derive(Deserialize)]
struct Answer {
    report: Vec<Parts>,
}

#[derive(Deserialize)]
struct Parts {
    vg: Vec<GroupRow>,
    pv: Vec<DeviceRow>,
    lv: Vec<VolumeRow>,
    seg: Vec<SegmentRow>,
}

#[derive(Deserialize)]
struct GroupRow {
    vg_seqno: String,
    vg_free: String,
    vg_size: String,
    vg_extent_size: String,
    vg_missing_pv_count: String,
}

#[derive(Deserialize)]
struct DeviceRow {
    pv_name: String,
    pe_start: String,
}

#[derive(Deserialize)]
struct VolumeRow {
    lv_name: String,
    lv_uuid: String,
    lv_tags: String,
    lv_size: String,
    origin: String,
    lv_device_open: String,
    lv_kernel_major: String,
    lv_kernel_minor: String,
    lv_autoactivation: String,
}

#[derive(Deserialize)]
struct SegmentRow {
    lv_uuid: String,
    seg_start: String,
    segtype: String,
    seg_pe_ranges: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECORDED: &str = include_str!("recorded/group.json");

    #[test]
    fn a_recorded_group_is_read() {
        let group = parse(RECORDED).unwrap();
        assert_eq!(
            (group.free_bytes, group.total_bytes),
            (180_355_072, 205_520_896)
        );
        assert_eq!((group.extent_bytes, group.missing), (4 << 20, 0));
        assert_eq!(group.change, 7);
        let names: Vec<_> = group
            .volumes
            .iter()
            .map(|volume| volume.name.as_str())
            .collect();
        assert_eq!(names, ["a.qcow2", "b", "c"]);
        let [a, b, c] = group.volumes.as_slice() else {
            panic!()
        };
        assert_eq!(
            a.identity.as_str(),
            "QXmD1g-naBe-VPvu-N26X-k2b6-eKm0-NPvbL2"
        );
        assert_eq!(a.tags, ["livemerge", "livemerge.parent=x"]);
        assert!(a.is_ours() && !b.is_ours() && b.tags.is_empty());
        assert_eq!(
            (a.bytes, a.device, a.open),
            (12 << 20, Some((253, 0)), true)
        );
        assert_eq!((b.device, b.open), (None, false));
        assert!(a.autoactivates && !c.autoactivates);
        assert_eq!(
            (a.origin.as_deref(), c.origin.as_deref()),
            (None, Some("b"))
        );
        let pieces = a.pieces.as_ref().unwrap();
        let at: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.start, piece.bytes, piece.at))
            .collect();
        let mib = 1_u64 << 20;
        assert_eq!(at, [(0, 4 * mib, mib), (4 * mib, 8 * mib, 17 * mib)]);
        assert_eq!(b.pieces, None, "two ranges are no piece");
    }

    #[test]
    fn half_an_answer_is_none() {
        for (from, to) in [
            ("\"vg\":", "\"vgs\":"),
            ("\"205520896\"", "\"much\""),
            (
                "\"QXmD1g-naBe-VPvu-N26X-k2b6-eKm0-NPvbL2\", \"lv_tags\"",
                "\"\", \"lv_tags\"",
            ),
            ("\"vg_extent_size\":\"4194304\"", "\"vg_extent_size\":\"0\""),
        ] {
            assert!(RECORDED.contains(from), "{from}");
            parse(&RECORDED.replace(from, to)).unwrap_err();
        }
        for text in [
            "",
            "{}",
            r#"{"report": []}"#,
            "  Volume group \"x\" not found",
        ] {
            parse(text).unwrap_err();
        }
    }

    #[test]
    fn what_was_activated_for_a_look_counts_as_before_if_it_is_condemned() {
        let removed = "livemerge.removed.6c2f8f3e-0b7f-4d5f-9d0a-3f5b1c2d4e6f";
        let mut group = parse(&RECORDED.replace("\"a.qcow2\"", &format!("{removed:?}"))).unwrap();
        group.looked_at(&["b".to_owned()]);
        assert!(group.named(removed).unwrap().open);
        group.looked_at(&[removed.to_owned()]);
        let found = group.named(removed).unwrap();
        assert_eq!((found.device, found.open), (None, false));
        let mut group = parse(RECORDED).unwrap();
        group.looked_at(&["a.qcow2".to_owned()]);
        assert!(group.named("a.qcow2").unwrap().open);
    }

    #[test]
    fn an_open_count_that_cannot_be_told_is_not_zero() {
        let untold = RECORDED.replace("\"lv_device_open\":\"1\"", "\"lv_device_open\":\"-1\"");
        assert!(parse(&untold).unwrap().volumes[0].open);
    }

    proptest! {
        #[test]
        fn nothing_that_is_said_makes_it_panic(at in 0..RECORDED.len(), text in ".{0,8}", cut in any::<bool>()) {
            let (head, tail) = RECORDED.split_at(at);
            let said = if cut { head.to_owned() + &text } else { head.to_owned() + &text + tail };
            let _ = parse(&said);
        }

        #[test]
        fn no_numbers_make_it_panic(start in any::<u64>(), range in "[a-z/:0-9-]{0,24}", size in any::<u64>()) {
            let said = RECORDED
                .replace("\"seg_start\":\"4194304\"", &format!("\"seg_start\":\"{start}\""))
                .replace("/dev/loop0:4-5", &range)
                .replace("\"vg_extent_size\":\"4194304\"", &format!("\"vg_extent_size\":\"{size}\""));
            let _ = parse(&said);
        }
    }
}
