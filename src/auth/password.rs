//! Password hashes: Argon2id, away from the async workers, and never more at once than the
//! machine can bear.
//!
//! A hash takes tens of milliseconds of a core and 19 MiB. It runs on the blocking pool, at most
//! `concurrency` at a time; at most `queue` callers wait, and whoever comes then is turned away
//! at once. An unknown account costs the same work as a known one. Passwords and hashes never
//! reach a log or an error's text.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::password_hash::{self, PasswordHasher as _, PasswordVerifier as _};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, Version};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinError;

use crate::domain::text::Password;

/// Memory of one hash in KiB, passes over it, and lanes: the middle of the settings that OWASP
/// holds equally strong.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Why a password was not hashed or checked.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many callers wait already; worth another try in a moment.
    #[error("too many passwords are being checked")]
    Busy,
    /// The hash in the database is none.
    #[error("a stored password hash cannot be read")]
    StoredHash(#[source] password_hash::Error),
    /// Argon2 or the random source failed.
    #[error("a password cannot be hashed")]
    Hash(#[source] password_hash::Error),
    /// The blocking work did not end, because the runtime is shutting down.
    #[error("hashing a password was interrupted")]
    Interrupted(#[source] JoinError),
}

/// Hashes and checks passwords. Clones share their limits.
#[derive(Clone)]
pub struct PasswordHasher {
    runtime: Handle,
    concurrency: usize,
    queue: usize,
    /// A permit for everybody inside, whether at work or waiting.
    admission: Arc<Semaphore>,
    /// A permit for everybody at work.
    work: Arc<Semaphore>,
    /// Stands in for the hash of an account that does not exist.
    dummy: Arc<str>,
}

impl PasswordHasher {
    /// Works on the blocking pool of `runtime`: at most `concurrency` hashes at once, one per
    /// core being right, while at most `queue` callers wait.
    pub fn new(runtime: Handle, concurrency: usize, queue: usize) -> Result<Self, PasswordError> {
        let concurrency = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let queue = queue.min(Semaphore::MAX_PERMITS - concurrency);
        Ok(Self {
            runtime,
            concurrency,
            queue,
            admission: Arc::new(Semaphore::new(concurrency + queue)),
            work: Arc::new(Semaphore::new(concurrency)),
            dummy: made_up_hash()?.into(),
        })
    }

    /// The PHC string of a password, with a salt of its own.
    pub async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        self.run(move || hash_blocking(&password)).await?
    }

    /// Whether a password is the one of an account, given the account's PHC string. `None` is an
    /// account that does not exist: false, after the same work.
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, PasswordError> {
        let exists = stored.is_some();
        let dummy = Arc::clone(&self.dummy);
        let matches =
            self.run(move || verify_blocking(&password, stored.as_deref().unwrap_or(&dummy))).await??;
        Ok(exists && matches)
    }

    /// How many callers wait for their turn.
    pub fn waiting(&self) -> usize {
        let inside = (self.concurrency + self.queue).saturating_sub(self.admission.available_permits());
        let working = self.concurrency.saturating_sub(self.work.available_permits());
        inside.saturating_sub(working)
    }

    /// Runs work when its turn comes. A caller that goes away while waiting leaves the queue; the
    /// work of one that goes away later holds its permits to its end, as it uses the core.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let admitted = Arc::clone(&self.admission).try_acquire_owned().or(Err(PasswordError::Busy))?;
        // Never closed, so this does not fail; if it did, turning away would be right.
        let working = Arc::clone(&self.work).acquire_owned().await.or(Err(PasswordError::Busy))?;
        let permits: [OwnedSemaphorePermit; 2] = [working, admitted];
        let task = self.runtime.spawn_blocking(move || {
            let result = work();
            drop(permits);
            result
        });
        task.await.map_err(PasswordError::Interrupted)
    }
}

impl fmt::Debug for PasswordHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHasher")
            .field("concurrency", &self.concurrency)
            .field("queue", &self.queue)
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// The PHC string of a password, computed on this thread and without a limit: for commands.
pub fn hash_blocking(password: &Password) -> Result<String, PasswordError> {
    let hash = argon2()?.hash_password(password.as_str().as_bytes()).map_err(PasswordError::Hash)?;
    Ok(hash.to_string())
}

/// Whether a hash was made with less than today's parameters, or by something else, and should be
/// replaced at the next log-in.
pub fn needs_rehash(stored: &str) -> bool {
    let Ok(hash) = PasswordHash::new(stored) else { return true };
    let Ok(params) = Params::try_from(&hash) else { return true };
    hash.algorithm != ARGON2ID_IDENT
        || hash.version != Some(Version::V0x13.into())
        || params.m_cost() < MEMORY_KIB
        || params.t_cost() < PASSES
        || params.p_cost() < LANES
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.map_err(|err| PasswordError::Hash(err.into()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// What looks like the hash of a password and is of none. To check one against it takes the usual work.
fn made_up_hash() -> Result<String, PasswordError> {
    let salt = Salt::new(&rand::random::<[u8; Salt::RECOMMENDED_LENGTH]>());
    let output = Output::new(&rand::random::<[u8; Params::DEFAULT_OUTPUT_LEN]>());
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: argon2()?.params().try_into().map_err(PasswordError::Hash)?,
        salt: Some(salt.map_err(|err| PasswordError::Hash(err.into()))?),
        hash: Some(output.map_err(|err| PasswordError::Hash(err.into()))?),
    };
    Ok(hash.to_string())
}

/// Checks a password with the parameters that its hash was made with.
fn verify_blocking(password: &Password, stored: &str) -> Result<bool, PasswordError> {
    let hash = PasswordHash::new(stored).map_err(|err| PasswordError::StoredHash(err.into()))?;
    match argon2()?.verify_password(password.as_str().as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(err) => Err(PasswordError::StoredHash(err)),
    }
}

#[cfg(test)]
mod tests;
