//! Mends what a libvirt that was killed within a pivot has written down, so that the next one can
//! read it.
//!
//! libvirt runs within this process by default, and dies with it. While it switches a guest, libvirt
//! 9.0 writes the state of the running machine down once with a `<mirror>` whose job has no name.
//! Killed right then it does not find the machine again: it says that a machine is off which runs.
//! The name stands elsewhere in the same file. With it in place, and the mark that it is being switched,
//! libvirt finds the machine and shows the pivot, until the machine starts again.
//!
//! Only before libvirt is opened, only under a root that no other process uses, and only where the
//! file leaves no doubt. A libvirt that runs as a daemon keeps its files to itself.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};

const NAMELESS: &str = " job=''";
const NAMED: &str = " job='active-commit' ready='pivot'";

/// Mends the machines' states under the root that the URI names. Says of which files.
///
/// # Errors
/// When a state cannot be read or written; it is as it was then.
pub(super) fn mend(uri: &str) -> io::Result<Vec<PathBuf>> {
    let Some(states) = root(uri).map(|root| root.join("run/qemu")) else {
        return Ok(vec![]);
    };
    let Some(_alone) = alone(&states)? else {
        return Ok(vec![]);
    };
    let mut mended = Vec::new();
    for entry in fs::read_dir(&states)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "xml")
            && let Some(text) = named(&fs::read_to_string(&path)?)
        {
            replace(&path, &text)?;
            mended.push(path);
        }
    }
    Ok(mended)
}

/// The directory of a libvirt that runs within the process.
pub(super) fn root(uri: &str) -> Option<&Path> {
    let (_, root) = uri.strip_prefix("qemu:///embed")?.split_once("root=")?;
    let root = root.split('&').next()?;
    // What is written in another way is left to libvirt.
    (root.starts_with('/') && !root.contains('%')).then(|| Path::new(root))
}

/// Holds the root as libvirt itself does; `None` when there is none yet, or somebody has it.
fn alone(states: &Path) -> io::Result<Option<File>> {
    let owner = states.join("driver.pid");
    let owner = match OpenOptions::new().write(true).open(owner) {
        Ok(owner) => owner,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match fcntl_lock(&owner, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(owner)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The state with the job's name; `None` when it needs none, or could have another.
fn named(state: &str) -> Option<String> {
    let jobs = state
        .split_once("<blockjobs")?
        .1
        .split_once("</blockjobs>")?
        .0;
    let only_commits = jobs.split("<blockjob ").skip(1).all(|job| {
        job.split('>')
            .next()
            .is_some_and(|job| job.contains(" type='active-commit'"))
    });
    let mut nameless = false;
    let mut text = String::with_capacity(state.len() + NAMED.len());
    for line in state.split_inclusive('\n') {
        if line.trim_start().starts_with("<mirror ") && line.contains(NAMELESS) {
            nameless = true;
            text.push_str(&line.replace(NAMELESS, NAMED));
        } else {
            text.push_str(line);
        }
    }
    (only_commits && nameless).then_some(text)
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("mended");
    let mut file = File::create(&new)?;
    file.set_permissions(fs::metadata(path)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "<domstatus state='paused'>\n  <blockjobs active='yes'>\n    \
        <blockjob name='commit-vda' type='active-commit' state='pivoting'>\n      <disk dst='vda'/>\n    \
        </blockjob>\n  </blockjobs>\n  <domain>\n    <title>it's job=''</title>\n      \
        <mirror type='file' job=''>\n    </mirror>\n  </domain>\n</domstatus>\n";

    #[test]
    fn a_commit_without_a_name_gets_it_and_nothing_else_is_touched() {
        let mended = named(STATE).unwrap();
        let line = "<mirror type='file' job='active-commit' ready='pivot'>";
        assert_eq!(mended, STATE.replace("<mirror type='file' job=''>", line));
        assert_eq!(named(&mended), None);
        assert_eq!(named(""), None);
        let copy =
            "</blockjob>\n <blockjob name='copy-vdb' type='copy'>\n </blockjob>\n  </blockjobs>";
        let other = STATE.replace("</blockjob>\n  </blockjobs>", copy);
        assert_ne!(other, STATE);
        assert_eq!(named(&other), None);
    }

    #[test]
    fn only_a_root_of_our_own_is_looked_at() {
        assert_eq!(root("qemu:///system"), None);
        assert_eq!(root("qemu:///embed?root=/a/b"), Some(Path::new("/a/b")));
        assert_eq!(root("qemu:///embed?x=1&root=/a&y=2"), Some(Path::new("/a")));
        assert_eq!(root("qemu:///embed?root=/a%20b"), None);
        let dir = tempfile::tempdir().unwrap();
        let uri = format!("qemu:///embed?root={}", dir.path().display());
        assert_eq!(mend(&uri).unwrap(), [""; 0].map(PathBuf::from));
        let states = dir.path().join("run/qemu");
        fs::create_dir_all(&states).unwrap();
        fs::write(states.join("vm.xml"), STATE).unwrap();
        assert_eq!(mend(&uri).unwrap(), [""; 0].map(PathBuf::from));
        fs::write(states.join("driver.pid"), "1").unwrap();
        assert_eq!(mend(&uri).unwrap(), [states.join("vm.xml")]);
        let mended = fs::read_to_string(states.join("vm.xml")).unwrap();
        assert_eq!(Some(mended), named(STATE));
        assert_eq!(mend(&uri).unwrap(), [""; 0].map(PathBuf::from));
    }
}
