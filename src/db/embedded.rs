//! An embedded PostgreSQL for `cargo run` without `DATABASE_URL`: the real thing, compiled to WebAssembly, in this
//! process, with its files in `DATA_DIR`. It serves one connection at a time, and nobody but this user.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use pglite_oxide::PgliteServer;
// Held at the version that `pglite-oxide` works with; see `Cargo.toml`.
use virtual_net as _;

/// A running embedded server. Stops when dropped; connections have to be closed before.
#[derive(Debug)]
pub struct Embedded {
    // Dropped in this order.
    server: PgliteServer,
    _lock: File,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The folder cannot be used.
    #[error("DATA_DIR: {} cannot be used", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// Another process has it.
    #[error("DATA_DIR: {} is in use by another lockstep; stop that one, or set DATABASE_URL to share a database", .0.display())]
    InUse(PathBuf),
    /// The server did not come up.
    #[error("the embedded PostgreSQL did not start in {}", .0.display())]
    Start(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Embedded {
    /// Starts the server, and makes its database when there is none. Takes a second or two, blocking.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process uses it.
    pub fn start(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let folder = |err| EmbeddedError::Folder(data_dir.to_owned(), err);
        // It holds the database and the secret of access tokens.
        DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(folder)?;
        let path = data_dir.canonicalize().map_err(folder)?;
        let lock = File::create(path.join("lock")).map_err(folder)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EmbeddedError::InUse(path)),
            Err(TryLockError::Error(err)) => return Err(folder(err)),
        }
        let server = PgliteServer::builder().path(path.join("postgres"));
        let server = match socket(&path).map_err(folder)? {
            Some(socket) => server.unix(socket),
            None => server,
        };
        let server = server.start().map_err(|err| EmbeddedError::Start(path, err.into()))?;
        Ok(Self { server, _lock: lock })
    }

    /// Where to connect to.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.database_url()
    }
}

/// A socket inside the folder, where only its owner comes; `None` if its path were too long for one, which leaves a port
/// on loopback.
fn socket(data_dir: &Path) -> io::Result<Option<PathBuf>> {
    const LONGEST: usize = 100;
    let socket = data_dir.join(".s.PGSQL.5432");
    if socket.as_os_str().len() > LONGEST {
        return Ok(None);
    }
    // Left behind by a process that was killed; the lock says that it is gone.
    match fs::remove_file(&socket) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(Some(socket)),
    }
}
