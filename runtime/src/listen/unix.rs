//! A unix socket that only its owner can reach, and that survives a crash of its last owner.
//!
//! A killed server leaves its socket file behind, and `bind` fails on any existing file. The file
//! is removed only when it is certainly nobody's: this process holds the lock `<path>.lock`, the
//! file is a socket, and connecting to it is refused. Whenever that cannot be told, binding fails.
//! The lock file stays: removing it would let two servers hold "the" lock.

use super::accept::Accept;
use rustix::fs::{Mode, fchmod};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

const BACKLOG: u32 = 1024;

/// A bound unix socket, mode 0600. Dropping it removes the socket file.
#[derive(Debug)]
pub(crate) struct UnixSocketListener {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl UnixSocketListener {
    pub(crate) async fn bind(path: &Path) -> io::Result<Self> {
        let lock = lock(path)?;
        remove_stale(path).await?;
        let socket = UnixSocket::new_stream()?;
        // Linux gives the file the mode of the socket: there is no moment at which it is open
        // to others, as there would be with a chmod after bind.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(path)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(UnixSocketListener {
            listener,
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Accept for UnixSocketListener {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for UnixSocketListener {
    fn drop(&mut self) {
        // Still under the lock, so this is our file and not a successor's.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the socket file stays behind");
        }
    }
}

fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(in_use()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                ErrorKind::AlreadyExists,
                "a file that is not a socket is in the way",
            ));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(in_use()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn in_use() -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, "another process serves this socket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        (dir, path)
    }

    #[tokio::test]
    async fn only_the_owner_may_connect_and_the_file_goes_with_the_listener() {
        let (_dir, path) = place();
        let listener = UnixSocketListener::bind(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_a_dead_server_is_replaced() {
        let (_dir, path) = place();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = UnixSocketListener::bind(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_in_use_is_left_alone() {
        let (_dir, path) = place();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = UnixSocketListener::bind(&path).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_second_server_is_refused_while_the_first_holds_the_lock() {
        let (_dir, path) = place();
        let _first = UnixSocketListener::bind(&path).await.unwrap();
        let refused = UnixSocketListener::bind(&path).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let (_dir, path) = place();
        std::fs::write(&path, "precious").unwrap();
        let refused = UnixSocketListener::bind(&path).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
