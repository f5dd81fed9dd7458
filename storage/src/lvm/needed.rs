//! What a path in a header means to a group: one of its volumes, something else, or what nobody can
//! tell.
//!
//! ```text
//!   /dev/VG/NAME  /dev/mapper/VG-NAME  a link to one of them      a volume, active or not
//!   /dev/dm-3  /dev/disk/…  /dev/block/…                          what they lead to; nobody can tell
//!                                                                 while that is nothing
//!   /dev/OTHER/NAME  /dev/mapper/OTHER-NAME  /images/base         something else
//! ```
//!
//! While a volume is not active none of its links is there, so each is read as it is written.

use super::name::GroupName;
use crate::StorageError;
use crate::image::backing::{Target, normal};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;
/// Names that say nothing of what they lead to.
const NAMELESS: [&str; 3] = ["/dev/disk", "/dev/block", "/dev/char"];

/// What a path of a header leads to, as this group spells it where it is one of its volumes.
///
/// # Errors
/// `Unreachable` when nobody can tell: it may be a volume of this group that is not active.
pub(super) fn target(group: &GroupName, path: &Path) -> Result<Target, StorageError> {
    let target = Target::of(&group.canonical(path))?;
    if target.place.is_some() || group.spelled(path).is_some() {
        return Ok(target);
    }
    let end = end_of(path);
    if group.spelled(&end).is_some() {
        return Target::of(&group.canonical(&end));
    }
    if is_nameless(&end) {
        let text = "it leads nowhere, and may be any logical volume that is not active";
        return Err(StorageError::Unreachable {
            what: format!("device {}", path.display()),
            source: io::Error::new(io::ErrorKind::NotFound, text),
        });
    }
    Ok(target)
}

/// Where a path ends that leads nowhere: its links by hand.
fn end_of(path: &Path) -> PathBuf {
    let mut path = normal(path);
    for _link in 0..MOST_LINKS {
        let Ok(next) = fs::read_link(&path) else {
            break;
        };
        let dir = path.parent().unwrap_or(Path::new("/"));
        path = normal(
            &fs::canonicalize(dir)
                .unwrap_or_else(|_| dir.into())
                .join(next),
        );
    }
    path
}

fn is_nameless(path: &Path) -> bool {
    let device = path.strip_prefix("/dev").ok();
    let number = device.and_then(|name| name.to_str()?.strip_prefix("dm-"));
    number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
        || NAMELESS.iter().any(|dir| path.starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_that_leads_nowhere_is_read_as_it_is_written() {
        let group: GroupName = "no-such-vg".parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (link, second) = (dir.path().join("link"), dir.path().join("second"));
        symlink("/dev/mapper/no--such--vg-base", &link).unwrap();
        symlink("link", &second).unwrap();
        for path in [
            "/dev/no-such-vg/base",
            "/dev/mapper/no--such--vg-base",
            "/dev/disk/by-id/dm-name-no--such--vg-base",
            link.to_str().unwrap(),
            second.to_str().unwrap(),
        ] {
            let found = target(&group, Path::new(path)).unwrap();
            assert_eq!(found.path, Path::new("/dev/no-such-vg/base"), "{path}");
        }
        for path in [
            "/dev/dm-100000",
            "/dev/disk/by-id/dm-uuid-LVM-x",
            "/dev/disk/../disk/by-path/x",
            "/dev/block/1:2:3",
        ] {
            let untold = target(&group, Path::new(path));
            assert!(
                matches!(untold, Err(StorageError::Unreachable { .. })),
                "{path}"
            );
        }
        for path in ["/dev/other/base", "/dev/mapper/other-base", "/no/base"] {
            let found = target(&group, Path::new(path)).unwrap();
            assert_eq!(found.path, Path::new(path));
        }
    }
}
