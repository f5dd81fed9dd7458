//! See [`crate::fuzzing`].

use super::journal::{Found, encode, outlived, read};
use jiff::Timestamp;
use std::time::Duration;

/// A file of the journal. A line that begins with a brace is given its sum first, which nobody finds by
/// chance.
///
/// # Panics
/// When what was read breaks a promise of the reader.
pub fn journal(file: &[u8]) {
    let lines = file.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let json = line
            .strip_suffix(b"\n")
            .filter(|json| json.starts_with(b"{"));
        match json {
            Some(json) => [format!("{:08x} ", crc32fast::hash(json)).as_bytes(), line].concat(),
            None => line.to_vec(),
        }
    });
    let file: Vec<u8> = lines.flatten().collect();
    let (found, good) = read(&file);
    assert!(good <= file.len());
    let Found::Record(record) = found else { return };
    assert!(good > 0 && file[..good].ends_with(b"\n"));
    assert!(!record.order.layers().is_empty());
    let _is_old = outlived(&record, Duration::from_secs(1), Timestamp::UNIX_EPOCH);
    let line = encode(&record).expect("what was read can be written");
    match read(line.as_bytes()) {
        (Found::Record(again), all) => assert_eq!((again, all), (record, line.len())),
        _ => panic!("what was written cannot be read: {line}"),
    }
}

/// The JSON of a journal's lines without their sums, as [`journal`] takes it.
#[must_use]
pub fn journal_lines(file: &str) -> String {
    let lines = file.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(_sum, json)| format!("{json}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::samples::{now, record};
    use crate::merge::types::{Help, Overlaying, Phase, Throttle, Window};
    use livemerge_proto::failure::Failure;
    use livemerge_proto::ids::MergeId;
    use livemerge_proto::reason::Reason;

    #[test]
    fn a_journal_through_each_phase_is_read() {
        let since = now();
        let suspended_at = Some(since);
        let phases = [
            Phase::Copying { starts: 2, since },
            Phase::Ready { not_before: since },
            Phase::Pivoting {
                window: Window::Suspending,
                since,
                suspended_at: None,
            },
            Phase::Pivoting {
                window: Window::Intent,
                since,
                suspended_at,
            },
            Phase::Overlaying {
                stage: Overlaying::Ending,
                since,
            },
            Phase::Cancelling { since },
            Phase::Restoring { tries: 3 },
            Phase::Verifying { suspended_at },
            Phase::Merged { at: since },
            Phase::Cancelled { at: since },
            Phase::Failed {
                at: since,
                failure: Failure {
                    reason: Reason::VmDied,
                    message: "QEMU ended".to_owned(),
                    metadata: [("vm".to_owned(), "one".to_owned())].into(),
                },
            },
        ];
        let mut merge = record(true);
        merge.order.id = MergeId::from(uuid::Uuid::from_u128(3));
        merge.help = Help {
            unlimited: true,
            throttle: Some(Throttle {
                before: 0,
                bytes_per_second: 1 << 20,
            }),
        };
        let mut file = encode(&merge).unwrap();
        for phase in phases {
            merge.phase = phase;
            merge.revision += 1;
            file += &encode(&merge).unwrap();
            assert!(matches!(read(file.as_bytes()), (Found::Record(found), _) if *found == merge));
        }
        let bare = journal_lines(&file);
        journal(bare.as_bytes());
    }
}
