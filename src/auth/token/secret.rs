//! The secret of an instance that was given none, kept in a file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

const FILE: &str = "auth-secret";

/// Hexadecimal characters in the file: 256 bits.
const LENGTH: usize = 64;

/// The secret in `data_dir`, made if it is not there yet. All processes that share the directory
/// get the same one, however they race. It is the text of the file, so that `AUTH_SECRET` can be
/// set to that text later and tokens stay good.
pub fn load_or_create_secret(data_dir: &Path) -> io::Result<Vec<u8>> {
    let path = data_dir.join(FILE);
    let explain = |err: io::Error| io::Error::new(err.kind(), format!("{}: {err}", path.display()));
    match std::fs::read(&path) {
        Ok(contents) if !contents.is_empty() => {
            if let Some(secret) = complete(&contents) {
                return Ok(secret);
            }
            // Broken, or still being written: the lock will tell.
        }
        Ok(_) => {}
        Err(err) if err.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(data_dir).map_err(explain)?
        }
        Err(err) => return Err(explain(err)),
    }
    create(&path).map_err(explain)
}

/// Writes a new secret, unless another process was faster. The lock goes with the file's handle,
/// even if the process is killed.
fn create(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_private(path)?;
    file.lock()?;
    let mut contents = Vec::new();
    file.read_to_end(&mut contents)?;
    if contents.is_empty() {
        let secret = random_hex();
        file.write_all(format!("{secret}\n").as_bytes())?;
        file.sync_all()?;
        return Ok(secret.into_bytes());
    }
    complete(&contents).ok_or_else(|| {
        let text = format!("does not hold {LENGTH} hexadecimal characters; delete it to have it made anew, which ends all sessions");
        io::Error::new(ErrorKind::InvalidData, text)
    })
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

/// The secret, if the file has been written to its end.
fn complete(contents: &[u8]) -> Option<Vec<u8>> {
    let secret = contents.trim_ascii();
    (secret.len() == LENGTH && secret.iter().all(u8::is_ascii_hexdigit)).then(|| secret.to_vec())
}

fn random_hex() -> String {
    let halves: [u128; 2] = rand::random();
    halves.iter().map(|half| format!("{half:032x}")).collect()
}
