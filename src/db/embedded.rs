//! An embedded PostgreSQL for `cargo run` without `DATABASE_URL`: the real thing, compiled to WebAssembly, in this
//! process, with its files in `DATA_DIR`. It serves one connection at a time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pglite_oxide::PgliteServer;
// Held at the version that `pglite-oxide` works with; see `Cargo.toml`.
use virtual_net as _;

/// A running embedded server. Stops when dropped; connections should be closed before.
#[derive(Debug)]
pub struct Embedded {
    server: PgliteServer,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The folder cannot be used.
    #[error("DATA_DIR: {} cannot be used", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// Another process has it.
    #[error("DATA_DIR: {} is in use by another lockstep; stop it, or set DATABASE_URL to share one database", .0.display())]
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
        fs::create_dir_all(data_dir).map_err(folder)?;
        let data_dir = data_dir.canonicalize().map_err(folder)?;
        let server = PgliteServer::builder()
            .path(data_dir.join("postgres"))
            .start()
            .map_err(|err| EmbeddedError::Start(data_dir, err.into()))?;
        Ok(Self { server })
    }

    /// Where to connect to.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.database_url()
    }
}
