//! What is said by `qemu-img`, which makes, changes and reads images.

use crate::program::Program;
use crate::{Format, StorageError};
use std::io;
use std::process::ExitStatus;

/// How it is called.
pub(crate) fn program() -> Program {
    Program::new("qemu-img", failure)
}

fn failure(status: ExitStatus, text: &str) -> StorageError {
    if text.contains("No space left on device") {
        return StorageError::NoSpace { needed: 0, free: 0 };
    }
    let held = ["Failed to get", "Failed to lock"]
        .iter()
        .any(|said| text.contains(said));
    if held && text.contains("lock") {
        let by = "a process that has it open".to_owned();
        return StorageError::InUse {
            what: "the image".to_owned(),
            by,
        };
    }
    unreachable(io::Error::other(format!("{status}: {text}")))
}

pub(crate) fn unreachable(source: io::Error) -> StorageError {
    StorageError::Unreachable {
        what: "qemu-img".to_owned(),
        source,
    }
}

/// A format's name on QEMU's command lines.
pub(crate) fn format_name(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "qcow2",
        Format::Raw => "raw",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_says_becomes_what_the_caller_does_next() {
        let shell = Program::new("/bin/sh", failure);
        let run = async |script: &str| shell.run(&["-c", script]).await;
        run("exit 0").await.unwrap();
        let full = run("echo 'x: No space left on device' >&2; exit 1").await;
        assert!(
            matches!(full, Err(StorageError::NoSpace { .. })),
            "{full:?}"
        );
        for said in [
            "Failed to get \\\"write\\\" lock",
            "Failed to lock byte 100",
        ] {
            let held = run(&format!("echo \"{said}\" >&2; exit 1")).await;
            assert!(matches!(held, Err(StorageError::InUse { .. })), "{held:?}");
        }
        let other = run("echo 'No such file or directory' >&2; exit 1").await;
        assert!(
            matches!(other, Err(StorageError::Unreachable { .. })),
            "{other:?}"
        );
    }
}
