//! The socket by which the command line reaches the daemon on the same machine.
//!
//! `<store>/facelatch.sock`, mode 0600: whoever can open it may do everything, because they could
//! read the store as well. The mode is set before the socket listens, so there is no moment at
//! which somebody else could connect.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::time::timeout;

/// Name of the socket in the store's directory.
pub const SOCKET_NAME: &str = "facelatch.sock";

/// Connections that wait in the kernel for the daemon.
const BACKLOG: u32 = 16;

/// Longest wait to learn whether a socket that exists is alive; a full backlog looks like this.
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);

/// Why the socket cannot be opened.
#[derive(Debug, Error)]
pub enum LocalSocketError {
    /// Somebody answers there.
    #[error(
        "another facelatch daemon answers on {path}; stop it first, or give this one another \
         `store.dir`"
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket has its name.
    #[error("{path} is not a socket and was left alone; move it away")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error(
        "the local socket {path} cannot be opened: {reason}. `store.dir` must be writable and its \
         path short (a socket's path has at most 107 bytes)"
    )]
    Open {
        /// The socket.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

/// A listening socket; its file is removed when it is dropped.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

impl LocalSocket {
    /// Opens the socket in `dir`. A socket that a dead daemon left is replaced.
    pub async fn bind(dir: &Path) -> Result<Self, LocalSocketError> {
        let path = dir.join(SOCKET_NAME);
        remove_stale(&path).await?;
        let open = || -> io::Result<(UnixListener, (u64, u64))> {
            let socket = UnixSocket::new_stream()?;
            socket.bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            let metadata = fs::symlink_metadata(&path)?;
            Ok((socket.listen(BACKLOG)?, (metadata.dev(), metadata.ino())))
        };
        match open() {
            Ok((listener, identity)) => Ok(Self { listener, path, identity }),
            Err(error) => Err(LocalSocketError::Open { path, reason: error.to_string() }),
        }
    }

    /// Waits for the next client.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Only our own: an administrator may have moved things while we ran.
        let own = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if own && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "local socket not removed");
        }
    }
}

async fn remove_stale(path: &Path) -> Result<(), LocalSocketError> {
    let in_use = || LocalSocketError::InUse { path: path.to_path_buf() };
    let failed = |error: &io::Error| LocalSocketError::Open {
        path: path.to_path_buf(),
        reason: error.to_string(),
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(&error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(LocalSocketError::NotASocket { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match timeout(PROBE_TIME_MAX, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| failed(&error))
        }
        Ok(Err(error)) => Err(failed(&error)),
        Ok(Ok(_)) | Err(_) => Err(in_use()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let socket = LocalSocket::bind(dir.path()).await.unwrap();
        let mode = fs::metadata(socket.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let path = socket.path().to_path_buf();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a listener of std leaves its file, like a killed daemon");
        let live = LocalSocket::bind(dir.path()).await.unwrap();
        let refused = LocalSocket::bind(dir.path()).await.err().unwrap().to_string();
        assert!(refused.contains("another facelatch daemon"), "{refused}");
        assert!(path.exists());
        drop(live);
    }

    #[tokio::test]
    async fn a_file_of_that_name_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET_NAME);
        fs::write(&path, "precious").unwrap();
        let refused = LocalSocket::bind(dir.path()).await.err().unwrap().to_string();
        assert!(refused.contains("not a socket"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_successor_keeps_its_socket_when_the_predecessor_ends() {
        let dir = tempfile::tempdir().unwrap();
        let old = LocalSocket::bind(dir.path()).await.unwrap();
        fs::remove_file(old.path()).unwrap();
        let new = LocalSocket::bind(dir.path()).await.unwrap();
        drop(old);
        assert!(new.path().exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        fs::create_dir(&deep).unwrap();
        let refused = LocalSocket::bind(&deep).await.err().unwrap().to_string();
        assert!(refused.contains("107 bytes"), "{refused}");
    }
}
