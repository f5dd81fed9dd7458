//! The agent's durable memory of volumes that may have more room than they need: one small file a merge.
//!
//! A file is written beside its place, synced, renamed, and the directory synced, before the merge is
//! written down as done. It goes when the volume was looked at, so a crash costs a second look at most.

use crate::merge::VolumeMark;
use livemerge_proto::ids::{DiskTarget, MergeId, VmId};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const SUFFIX: &str = "slack";

/// A volume that was committed into, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) vm: VmId,
    pub(crate) disk: DiskTarget,
    pub(crate) kept: VolumeMark,
}

/// The directory of the files. Its calls block.
#[derive(Debug)]
pub(crate) struct Marks {
    dir: PathBuf,
}

impl Marks {
    /// Opens the directory, and makes it if it is missing.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Notes a volume, once however many merges end in it.
    pub(crate) fn note(&self, merge: MergeId, mark: &Mark) -> io::Result<()> {
        let (path, fresh) = (self.path(merge), self.path(merge).with_extension("new"));
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(mark)?)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        for (older, _) in self
            .all()?
            .iter()
            .filter(|(id, of)| *id != merge && of == mark)
        {
            fs::remove_file(self.path(*older))?;
        }
        self.sync()
    }

    /// All that are noted. One that cannot be read is dropped: it costs some room, and no data.
    pub(crate) fn all(&self) -> io::Result<Vec<(MergeId, Mark)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|suffix| suffix != SUFFIX) {
                continue;
            }
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let merge = stem.and_then(|stem| stem.parse().ok());
            match merge.zip(serde_json::from_slice(&fs::read(&path)?).ok()) {
                Some(found) => all.push(found),
                None => {
                    tracing::warn!(file = %path.display(), "a note of a volume's room cannot be read");
                    fs::remove_file(&path)?;
                }
            }
        }
        all.sort_by_key(|(merge, _)| *merge);
        Ok(all)
    }

    /// Nothing more is to be done for it.
    pub(crate) fn settle(&self, merge: MergeId) -> io::Result<()> {
        match fs::remove_file(self.path(merge)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    fn path(&self, merge: MergeId) -> PathBuf {
        self.dir.join(format!("{merge}.{SUFFIX}"))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemerge_storage::VolumeRef;
    use uuid::Uuid;

    fn mark(volume: &str) -> Mark {
        Mark {
            vm: VmId::from(Uuid::from_u128(1)),
            disk: "vda".parse().unwrap(),
            kept: VolumeMark {
                volume: VolumeRef {
                    storage: "group".parse().unwrap(),
                    name: volume.parse().unwrap(),
                },
                identity: "one".parse().unwrap(),
            },
        }
    }

    #[test]
    fn a_volume_is_noted_once_and_what_cannot_be_read_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let marks = Marks::open(&dir.path().join("slack")).unwrap();
        let [first, second, other] = [1, 2, 3].map(|id| MergeId::from(Uuid::from_u128(id)));
        marks.note(first, &mark("base")).unwrap();
        marks.note(other, &mark("other")).unwrap();
        marks.note(second, &mark("base")).unwrap();
        let torn = dir.path().join("slack/0.slack");
        fs::write(&torn, "{").unwrap();
        let marks = Marks::open(&dir.path().join("slack")).unwrap();
        let noted = [(second, mark("base")), (other, mark("other"))];
        assert_eq!(marks.all().unwrap(), noted);
        assert!(!torn.exists());
        for _ in 0..2 {
            marks.settle(second).unwrap();
        }
        assert_eq!(marks.all().unwrap(), noted[1..]);
    }
}
