//! [`Bundle`]: the archive of `livemerge diagnostics`, part by part.

mod fetch;
mod redact;

pub(crate) use fetch::metrics;
pub(crate) use redact::{config, url};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const DIR: &str = "livemerge-diagnostics";

/// An archive in the making. What could not be had is told in it, too.
pub(crate) struct Bundle {
    archive: tar::Builder<GzEncoder<File>>,
    missing: Vec<String>,
    now: Timestamp,
}

impl Bundle {
    /// A new file, for its owner alone.
    ///
    /// # Errors
    /// When it is there already, or cannot be made.
    pub(crate) fn create(path: &Path, now: Timestamp) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            archive: tar::Builder::new(GzEncoder::new(file, Compression::default())),
            missing: Vec::new(),
            now,
        })
    }

    /// Adds a part, or notes why it is not there.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub(crate) fn add(&mut self, name: &str, part: Result<Vec<u8>, String>) -> io::Result<()> {
        match part {
            Ok(content) => self.append(name, &content),
            Err(why) => {
                self.missing.push(format!("{name}: {why}"));
                Ok(())
            }
        }
    }

    /// Ends the archive, and gives what could not be had.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(mut self) -> io::Result<Vec<String>> {
        if !self.missing.is_empty() {
            let text = self.missing.join("\n") + "\n";
            self.append("missing.txt", text.as_bytes())?;
        }
        let mut file = self.archive.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()?;
        Ok(self.missing)
    }

    fn append(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).map_err(io::Error::other)?);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.now.as_second()).unwrap_or_default());
        let path = format!("{DIR}/{name}");
        self.archive.append_data(&mut header, path, content)
    }
}
