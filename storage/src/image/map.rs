//! What a reader of a volume sees of each image of its chain, as `qemu-img map` tells it.
//!
//! It prints one extent a line, in order:
//!
//! ```text
//!   [{ "start": 0, "length": 65536, "depth": 1, "present": true, "zero": false, "data": true, "offset": 0},
//!   { "start": 65536, "length": 131072, "depth": 0, "present": false, "zero": true, "data": false}]
//! ```
//!
//! The image may be open elsewhere and is then read as it lies there: a machine that writes it has
//! news in its memory. Whatever else the answer is than extents without gaps is an error.

use crate::program::Program;
use crate::qemu_img::{format_name, unreachable};
use crate::{Content, Extent, Format, StorageError};
use futures::Stream;
use serde::Deserialize;
use std::ffi::OsStr;
use std::io;

/// The extents of an image, whose format is not guessed: a guest could have written a header.
pub(crate) fn extents(
    qemu_img: &Program,
    image: &OsStr,
    format: Format,
) -> impl Stream<Item = Result<Extent, StorageError>> + Send + use<> {
    let args = ["map", "-U", "--output=json", "-f", format_name(format)];
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).chain([image]).collect();
    let lines = qemu_img.lines(&args);
    async_stream::try_stream! {
        let mut end = 0;
        for await line in lines {
            let Some(extent) = parse(&line?, end)? else { continue };
            end += extent.length;
            yield extent;
        }
    }
}

/// The extent of a line, which must begin where the last one ended.
pub(crate) fn parse(line: &str, begins: u64) -> Result<Option<Extent>, StorageError> {
    let object = line.trim_matches(['[', ']', ',', ' ', '\n']);
    if object.is_empty() {
        return Ok(None);
    }
    let strange = |why: String| {
        let text = format!("a strange extent: {why}");
        unreachable(io::Error::new(io::ErrorKind::InvalidData, text))
    };
    let entry: Entry = serde_json::from_str(object).map_err(|error| strange(error.to_string()))?;
    if entry.start != begins || entry.start.checked_add(entry.length).is_none() {
        return Err(strange(format!("{object} does not begin at {begins}")));
    }
    Ok(Some(entry.extent()))
}

/// An extent as `qemu-img` has it.
#[derive(Deserialize)]
struct Entry {
    start: u64,
    length: u64,
    depth: u16,
    /// Whether an image of the chain has it. QEMU before 6.1 does not say.
    #[serde(default = "yes")]
    present: bool,
    zero: bool,
    data: bool,
    /// Where in the image's file it lies; missing when it lies nowhere, or is compressed.
    offset: Option<u64>,
    /// QEMU before 8.2 does not say, but leaves the offset out.
    #[serde(default)]
    compressed: bool,
}

fn yes() -> bool {
    true
}

impl Entry {
    fn extent(&self) -> Extent {
        let content = if self.data {
            Content::Data {
                in_place: self.offset.is_some() && !self.zero && !self.compressed,
            }
        } else if self.present && self.zero {
            Content::Zero
        } else {
            Content::Nothing
        };
        Extent {
            start: self.start,
            length: self.length,
            depth: self.depth.into(),
            content,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 3] = [
        r#"[{ "start": 0, "length": 512, "depth": 1, "present": true, "zero": false, "data": true, "offset": 0},"#,
        r#"{ "start": 512, "length": 512, "depth": 0, "present": true, "zero": false, "data": true, "compressed": true},"#,
        r#"{ "start": 1024, "length": 512, "depth": 0, "present": false, "zero": true, "data": false}]"#,
    ];

    #[test]
    fn each_line_is_an_extent() {
        let parsed = LINES.iter().zip([0, 512, 1024]).map(|(line, begins)| {
            let extent = parse(line, begins).unwrap().unwrap();
            assert_eq!((extent.start, extent.length), (begins, 512));
            (extent.depth, extent.content)
        });
        let wanted = [
            (1, Content::Data { in_place: true }),
            (0, Content::Data { in_place: false }),
            (0, Content::Nothing),
        ];
        assert_eq!(parsed.collect::<Vec<_>>(), wanted);
        for bare in ["[", "]\n", "[]"] {
            assert_eq!(parse(bare, 0).unwrap(), None);
        }
    }

    #[test]
    fn whatever_else_is_no_answer() {
        let endless = format!(
            r#"{{"start": 1, "length": {}, "depth": 0, "zero": true, "data": false}}"#,
            u64::MAX
        );
        for (line, begins) in [
            (LINES[1], 0),
            (LINES[0], 512),
            (&LINES[0][..60], 0),
            ("image is corrupt", 0),
            (&endless, 1),
        ] {
            let strange = parse(line, begins).unwrap_err();
            assert!(
                matches!(strange, StorageError::Unreachable { .. }),
                "{strange:?}"
            );
        }
    }
}
