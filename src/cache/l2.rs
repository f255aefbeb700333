//! L2: Redis behind one connection, and the sequence that all instances share.
//!
//! A [`Link`] is one connection and the epoch that was found on it. It never outlives the connection, and every
//! script checks the epoch's marker, so that nothing of another life of the data is ever used. Each operation is
//! one script and one round trip; none scans.

use std::{
    fmt::Write as _,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use redis::{ErrorKind, RedisError, Script, ServerErrorKind, aio::MultiplexedConnection};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    entry::Envelope,
    key::{Key, Tag},
};
use crate::redis::Redis;

/// Every name that the cache uses in Redis.
#[derive(Debug, Clone)]
pub(super) struct Names {
    namespace: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// Marker and sequence, in one key so that they are lost together.
    pub(super) fn meta(&self) -> String {
        format!("{}:meta", self.namespace)
    }

    fn entry(&self, key: &Key) -> String {
        format!("{}:entry:{key}", self.namespace)
    }

    fn lock(&self, key: &Key) -> String {
        format!("{}:lock:{key}", self.namespace)
    }

    /// The namespace as a part of a pattern.
    pub(super) fn escaped(&self) -> String {
        let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\');
        self.namespace.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
    }

    fn tag_prefix(&self) -> String {
        format!("{}:tag:", self.namespace)
    }

    fn heartbeat(&self, instance: &str) -> String {
        format!("{}:instance:{instance}", self.namespace)
    }

    pub(super) fn channel(&self) -> String {
        format!("{}:invalidations", self.namespace)
    }
}

/// How long a tag's version is kept after it was last written or depended on. Longer than entries live unless the
/// settings say otherwise, which saves misses; correctness does not depend on it.
const VERSION_LIFE: Duration = Duration::from_secs(2 * 60 * 60);
/// How long others leave a load to the instance that has begun it.
const LOCK_LIFE: Duration = Duration::from_secs(1);
const HEARTBEAT_LIFE: Duration = Duration::from_secs(5);
/// Tags that one call of the bump script takes, so that Redis is never held up.
const BUMP_TAGS: usize = 500;
/// Keys that one step of a scan looks at.
const SCAN_STEP: usize = 500;
/// Calls that may time out one after another before the connection is given up.
const TIMEOUTS: u32 = 3;

static OPEN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/open.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/renew.lua")));
static POLL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/poll.lua")));
static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/read.lua")));
static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/fill.lua")));
static UNLOCK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/unlock.lua")));
static BUMP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/bump.lua")));

/// Why L2 gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The call failed or took too long.
    #[error("the call to Redis failed")]
    Redis(#[from] RedisError),
    /// Redis was emptied or replaced.
    #[error("Redis holds another life of the data")]
    OtherEpoch,
}

/// One connection to Redis and the epoch found on it.
pub struct Link {
    connection: MultiplexedConnection,
    names: Names,
    instance: String,
    marker: String,
    epoch: u64,
    epoch_text: String,
    timeouts: AtomicU32,
    broken: CancellationToken,
}

/// What L2 says to a reader.
pub(super) enum L2Read {
    /// A valid entry.
    Hit { sequence: u64, ttl: Duration, envelope: Bytes },
    /// Nothing valid; a load that begins now is as of `sequence`.
    Miss { sequence: u64, left: Left, lock: Lock },
}

/// An entry as an operator looks at it.
pub(super) struct Peeked {
    pub(super) bytes: usize,
    pub(super) left: Duration,
    /// `None`: it cannot be read.
    pub(super) envelope: Option<Envelope>,
    pub(super) versions: Vec<(Tag, Option<u64>)>,
}

/// What was there instead of a valid entry.
pub(super) enum Left {
    Nothing,
    /// One that was invalidated, or is of another epoch.
    Stale,
    /// One whose time is up, and that is kept for this long for want of a better one.
    Expired {
        envelope: Bytes,
        kept: Duration,
    },
}

/// Who loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    NotAsked,
    Acquired,
    HeldByAnother,
}

impl Link {
    /// Connects, and finds out the epoch. To be called on the main runtime.
    pub(super) async fn open(redis: &Redis, names: &Names, instance: &str) -> Result<Self, RedisError> {
        let mut connection = redis.connect().await?;
        let info: redis::InfoDict = redis::cmd("INFO").arg("everything").query_async(&mut connection).await?;
        // The run id changes with a restart, the replication id with each promotion, also of a server that was primary
        // before and had been given up.
        let identity = info.get::<String>("run_id").zip(info.get::<String>("master_replid"));
        let no_identity = (ErrorKind::UnexpectedReturnType, "INFO has no run_id or master_replid");
        let (run_id, replication_id) = identity.ok_or(no_identity)?;
        let (marker, _): (String, u64) =
            OPEN.key(names.meta()).arg(fresh_marker()).invoke_async(&mut connection).await?;
        let digest = Sha256::new().chain_update(format!("{run_id}/{replication_id}/{marker}")).finalize();
        let epoch = digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
        let mut epoch_text = String::new();
        let _ = write!(epoch_text, "{epoch:016x}");
        Ok(Self {
            connection,
            names: names.clone(),
            instance: instance.to_owned(),
            marker,
            epoch,
            epoch_text,
            timeouts: AtomicU32::new(0),
            broken: CancellationToken::new(),
        })
    }

    /// The epoch that this connection has found.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Ends when the connection should be given up.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// Ends this life of the data for everybody.
    pub(super) async fn renew(&self) -> Result<(), LinkError> {
        let mut call = RENEW.key(self.names.meta());
        call.arg(&self.marker).arg(fresh_marker());
        self.note(call.invoke_async(&mut self.connection.clone()).await)
    }

    /// Gives the connection up; a new one will be opened.
    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Announces what others have left unannounced.
    ///
    /// # Errors
    /// When Redis does not confirm it.
    pub async fn announce(&self, tags: &[Tag]) -> Result<(), LinkError> {
        self.bump(tags, |_, _| ()).await.map(drop)
    }

    /// Where the sequence stands.
    pub(super) async fn poll(&self) -> Result<u64, LinkError> {
        let mut call = POLL.key(self.names.meta());
        call.key(self.names.heartbeat(&self.instance)).arg(&self.marker).arg(milliseconds(HEARTBEAT_LIFE));
        let sequence: i64 = self.note(call.invoke_async(&mut self.connection.clone()).await)?;
        self.sequence(sequence)
    }

    /// The entry if it is valid, else a sequence to load under and, if there is a `lock_owner`, the lock.
    pub(super) async fn read(
        &self,
        key: &Key,
        tags: &[Tag],
        lock_owner: Option<&str>,
        fail_safe: Duration,
    ) -> Result<L2Read, LinkError> {
        let mut call = READ.key(self.names.meta());
        call.key(self.names.entry(key)).key(self.names.lock(key)).arg(&self.marker).arg(&self.epoch_text);
        call.arg(self.names.tag_prefix()).arg(milliseconds(VERSION_LIFE + fail_safe));
        call.arg(lock_owner.unwrap_or_default()).arg(milliseconds(LOCK_LIFE)).arg(milliseconds(fail_safe));
        for tag in tags {
            call.arg(tag.as_str());
        }
        let answer = call.invoke_async(&mut self.connection.clone()).await;
        let (outcome, sequence, number, data, kept): (String, u64, i64, Vec<u8>, i64) = self.note(answer)?;
        match outcome.as_str() {
            "HIT" => {
                let ttl = Duration::from_millis(u64::try_from(number).unwrap_or_default());
                Ok(L2Read::Hit { sequence, ttl, envelope: data.into() })
            }
            "MISS" => {
                let lock = match number {
                    1 => Lock::Acquired,
                    2 => Lock::HeldByAnother,
                    _ => Lock::NotAsked,
                };
                let left = match &*data {
                    b"" => Left::Nothing,
                    b"stale" => Left::Stale,
                    _ => {
                        let kept = Duration::from_millis(u64::try_from(kept).unwrap_or_default());
                        Left::Expired { envelope: data.into(), kept }
                    }
                };
                Ok(L2Read::Miss { sequence, left, lock })
            }
            _ => Err(self.other_epoch()),
        }
    }

    /// Stores an entry, and lets go of the lock if `lock_owner` has it. `false`: a newer one is there.
    pub(super) async fn fill(
        &self,
        key: &Key,
        envelope: &Envelope,
        (ttl, fail_safe): (Duration, Duration),
        lock_owner: &str,
    ) -> Result<bool, LinkError> {
        let mut call = FILL.key(self.names.meta());
        call.key(self.names.entry(key)).key(self.names.lock(key)).arg(&self.marker).arg(&self.epoch_text);
        call.arg(envelope.as_of).arg(milliseconds(ttl + fail_safe)).arg(self.names.tag_prefix());
        call.arg(milliseconds(VERSION_LIFE + fail_safe)).arg(lock_owner).arg(envelope.write());
        for tag in &envelope.tags {
            call.arg(tag.as_str());
        }
        self.note(call.invoke_async(&mut self.connection.clone()).await)
    }

    /// Lets go of the lock if `lock_owner` still has it.
    pub(super) async fn unlock(&self, key: &Key, lock_owner: &str) -> Result<(), LinkError> {
        let mut call = UNLOCK.key(self.names.lock(key));
        call.arg(lock_owner);
        self.note(call.invoke_async(&mut self.connection.clone()).await)
    }

    /// Invalidates tags for all instances. Returns the (last) sequence.
    ///
    /// `heard` is told each part that was done, so that this process need not wait for the echo.
    pub(super) async fn bump(&self, tags: &[Tag], heard: impl Fn(u64, &[Tag])) -> Result<u64, LinkError> {
        let mut last = 0;
        for part in tags.chunks(BUMP_TAGS) {
            last = match self.bump_part(part).await {
                // One more try: a bump done twice costs a miss, one not done has to wait for the relay.
                Err(LinkError::Redis(err)) if err.is_timeout() => self.bump_part(part).await?,
                outcome => outcome?,
            };
            heard(last, part);
        }
        Ok(last)
    }

    async fn bump_part(&self, tags: &[Tag]) -> Result<u64, LinkError> {
        let mut call = BUMP.key(self.names.meta());
        call.arg(&self.marker).arg(&self.epoch_text).arg(self.names.channel()).arg(&self.instance);
        call.arg(self.names.tag_prefix()).arg(milliseconds(VERSION_LIFE));
        for tag in tags {
            call.arg(tag.as_str());
        }
        let sequence: i64 = self.note(call.invoke_async(&mut self.connection.clone()).await)?;
        self.sequence(sequence)
    }

    /// Deletes the entries whose keys match, in bounded steps and without holding Redis up. Returns how many.
    pub(super) async fn delete_matching(&self, pattern: &str) -> Result<usize, LinkError> {
        let pattern = format!("{}:entry:{pattern}", self.names.escaped());
        let mut connection = self.connection.clone();
        let (mut cursor, mut count) = (0_u64, 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.note(scan.query_async(&mut connection).await)?;
            if !keys.is_empty() {
                count += keys.len();
                let deleted = redis::cmd("UNLINK").arg(keys).exec_async(&mut connection).await;
                self.note(deleted)?;
            }
            if next == 0 {
                return Ok(count);
            }
            cursor = next;
        }
    }

    /// What is stored under a key, its remaining life, and the versions of its tags. Judges nothing.
    pub(super) async fn peek(&self, key: &str) -> Result<Option<Peeked>, LinkError> {
        let name = format!("{}:entry:{key}", self.names.namespace);
        let mut connection = self.connection.clone();
        let mut look = redis::pipe();
        look.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let (stored, ttl_ms): (Option<Vec<u8>>, i64) = self.note(look.query_async(&mut connection).await)?;
        let Some(stored) = stored else { return Ok(None) };
        let (bytes, envelope) = (stored.len(), Envelope::read(&stored.into()));
        let tags = envelope.as_ref().map(|envelope| envelope.tags.clone()).unwrap_or_default();
        let mut versions: Vec<Option<u64>> = Vec::new();
        if !tags.is_empty() {
            let mut ask = redis::cmd("MGET");
            tags.iter().for_each(|tag| {
                ask.arg(format!("{}{tag}", self.names.tag_prefix()));
            });
            versions = self.note(ask.query_async(&mut connection).await)?;
        }
        let left = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default());
        let versions = tags.into_iter().zip(versions).collect();
        Ok(Some(Peeked { bytes, left, envelope, versions }))
    }

    fn sequence(&self, answer: i64) -> Result<u64, LinkError> {
        u64::try_from(answer).map_err(|_negative| self.other_epoch())
    }

    fn other_epoch(&self) -> LinkError {
        self.broken.cancel();
        LinkError::OtherEpoch
    }

    /// Keeps account of failures. A slow answer may be an accident, a lost connection or a server that has
    /// become a replica is not.
    fn note<T>(&self, outcome: Result<T, RedisError>) -> Result<T, LinkError> {
        match &outcome {
            Ok(_) => self.timeouts.store(0, Ordering::Relaxed),
            Err(err) if err.is_timeout() => {
                if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS {
                    self.broken.cancel();
                }
            }
            Err(err) => {
                let wrong_server = matches!(
                    err.kind(),
                    ErrorKind::Server(
                        ServerErrorKind::ReadOnly
                            | ServerErrorKind::MasterDown
                            | ServerErrorKind::BusyLoading
                    )
                );
                if wrong_server || err.is_io_error() || err.is_connection_dropped() {
                    self.broken.cancel();
                }
            }
        }
        Ok(outcome?)
    }
}

fn fresh_marker() -> String {
    Uuid::new_v4().simple().to_string()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
