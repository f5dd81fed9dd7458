//! The clock of a process, which a test sets while the process runs: libfaketime between it and the C
//! library. Monotonic time goes on as it does, as on a machine whose clock is set.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock that runs right until it is set.
#[derive(Debug)]
pub struct ProcessClock {
    library: PathBuf,
    /// How far it is set, as libfaketime reads it.
    offset: PathBuf,
}

impl ProcessClock {
    /// One whose setting is written to this file.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn new(offset: &Path) -> Result<Self> {
        let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let dirs = [multiarch.as_str(), "/usr/lib64", "/usr/lib"];
        let mut found = dirs.iter().map(|dir| Path::new(dir).join(LIBRARY));
        let library = found.find(|library| library.exists());
        let clock = Self {
            library: library
                .context("libfaketime is missing: `tests/setup.sh test` installs it")?,
            offset: offset.to_owned(),
        };
        clock.set_days(0)?;
        Ok(clock)
    }

    /// What a process needs in its environment to have this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let path = |path: &Path| path.display().to_string();
        let set = [
            ("LD_PRELOAD", path(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", path(&self.offset)),
            // Seconds until a new setting is read.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Nothing is left behind by one that is killed, and files keep their times.
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        set.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Sets it so many days from the right time, within a second or two.
    pub fn set_days(&self, days: i64) -> Result<()> {
        // Whole, or not at all: it may be read at any moment.
        let new = self.offset.with_extension("new");
        std::fs::write(&new, format!("{days:+}d\n"))?;
        std::fs::rename(new, &self.offset)?;
        Ok(())
    }
}
