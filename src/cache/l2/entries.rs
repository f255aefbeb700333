//! Entries in Redis: reading, filling, deleting. Each reading and filling is one script.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use redis::{Cmd, ErrorKind, RedisError, Script};

use super::{Link, LinkError, VERSION_LIFE, milliseconds};
use crate::cache::{
    envelope::{Envelope, words},
    key::{Key, Tag},
    policy::Policy,
};
use crate::redis::{is_unknown_script, run_script, script_call};

/// How long others leave a load to the instance that has begun it.
const LOCK_LIFE: Duration = Duration::from_secs(1);
/// Entries of one round trip: with more, it would take longer than a call may.
pub(super) const AT_ONCE: usize = 200;
/// Keys that one step of a scan looks at.
const SCAN_STEP: usize = 500;

static READ: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../lua/read.lua")));
static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../lua/fill.lua")));
static UNLOCK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../lua/unlock.lua")));

/// What L2 says to a reader.
pub(in crate::cache) enum L2Read {
    /// A valid entry. With the lock: it is near its end, and whoever reads this is to renew it.
    Hit { sequence: u64, ttl: Duration, envelope: Bytes, lock: Lock },
    /// Nothing valid; a load that begins now is as of `sequence`.
    Miss { sequence: u64, left: Left, lock: Lock },
}

/// What the script answers to a read: `OUTCOME SEQUENCE LOCK MS\nENTRY`.
pub(super) type Answer = Vec<u8>;

/// What to look for in L2.
#[derive(Clone, Copy)]
pub(in crate::cache) struct Wanted<'a> {
    pub(in crate::cache) key: &'a Key,
    /// Those that are known before loading.
    pub(in crate::cache) tags: &'a [Tag],
    /// How long entries of this kind are kept beyond their time.
    pub(in crate::cache) fail_safe: Duration,
    /// What may be left of an entry's life for it to be renewed; zero: never.
    pub(in crate::cache) refresh_below: Duration,
}

impl<'a> Wanted<'a> {
    pub(in crate::cache) fn new(key: &'a Key, tags: &'a [Tag], policy: &Policy) -> Self {
        Self { key, tags, fail_safe: policy.options.fail_safe, refresh_below: policy.refresh_below() }
    }
}

/// What to store in L2.
#[derive(Clone, Copy)]
pub(in crate::cache) struct Filling<'a> {
    pub(in crate::cache) key: &'a Key,
    pub(in crate::cache) envelope: &'a Envelope,
    /// The envelope, written.
    pub(in crate::cache) bytes: &'a [u8],
    pub(in crate::cache) life: Duration,
    pub(in crate::cache) fail_safe: Duration,
}

/// An entry as an operator looks at it.
pub(in crate::cache) struct Peeked {
    pub(in crate::cache) bytes: usize,
    pub(in crate::cache) left: Duration,
    /// `None`: it cannot be read.
    pub(in crate::cache) envelope: Option<Envelope>,
    pub(in crate::cache) versions: Vec<(Tag, Option<u64>)>,
}

/// What was there instead of a valid entry.
pub(in crate::cache) enum Left {
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
pub(in crate::cache) enum Lock {
    NotAsked,
    Acquired,
    HeldByAnother,
}

impl Link {
    /// The entry if it is valid, else a sequence to load under and, if there is a `lock_owner`, the lock.
    pub(in crate::cache) async fn read(
        &self,
        wanted: &Wanted<'_>,
        lock_owner: Option<&str>,
    ) -> Result<L2Read, LinkError> {
        let call = self.reading(wanted, lock_owner);
        let answer = self.watch(async {
            match self.reads.ask(call).await {
                Err(err) if is_unknown_script(&err) => {
                    run_script(&mut self.connection.clone(), &READ, &self.reading(wanted, lock_owner)).await
                }
                outcome => outcome,
            }
        });
        self.understand(answer.await?)
    }

    /// The same for many entries in one round trip, without locks.
    pub(in crate::cache) async fn read_many(&self, wanted: &[Wanted<'_>]) -> Result<Vec<L2Read>, LinkError> {
        let mut answers: Vec<Answer> = Vec::new();
        for part in wanted.chunks(AT_ONCE) {
            let calls = part.iter().map(|wanted| self.reading(wanted, None));
            answers.extend(self.run_all::<Answer>(&READ, calls).await?);
        }
        answers.into_iter().map(|answer| self.understand(answer)).collect()
    }

    /// Written in one piece: of all there is, Redis is asked this most.
    fn reading(&self, wanted: &Wanted<'_>, lock_owner: Option<&str>) -> Cmd {
        let Wanted { key, tags, fail_safe, refresh_below } = *wanted;
        let names = self.names.entry_and_lock(key);
        let mut call = script_call(&READ, 3, 512 + tags.len() * 64);
        call.arg(self.names.meta()).arg(&names);
        call.arg(&self.marker).arg(&self.epoch_text).arg(self.names.tag_prefix());
        call.arg(milliseconds(VERSION_LIFE + fail_safe)).arg(lock_owner.unwrap_or_default());
        call.arg(milliseconds(LOCK_LIFE)).arg(milliseconds(fail_safe)).arg(milliseconds(refresh_below));
        for tag in tags {
            call.arg(tag.as_str());
        }
        call
    }

    fn understand(&self, answer: Answer) -> Result<L2Read, LinkError> {
        let answer = Bytes::from(answer);
        let (header, entry) = split_header(&answer).ok_or_else(unexpected)?;
        let mut words = words(header);
        let outcome = words.next();
        let [sequence, lock, ms] =
            [(); 3].map(|()| words.next().and_then(|word| word.parse::<u64>().ok()).ok_or_else(unexpected));
        let (sequence, time) = (sequence?, Duration::from_millis(ms?));
        let lock = match lock? {
            1 => Lock::Acquired,
            2 => Lock::HeldByAnother,
            _ => Lock::NotAsked,
        };
        match outcome {
            Some("HIT") => Ok(L2Read::Hit { sequence, ttl: time, envelope: entry, lock }),
            Some("MISS") => {
                let left = match &*entry {
                    b"" => Left::Nothing,
                    b"stale" => Left::Stale,
                    _ => Left::Expired { envelope: entry, kept: time },
                };
                Ok(L2Read::Miss { sequence, left, lock })
            }
            _ => Err(self.other_epoch()),
        }
    }

    /// Stores an entry, and lets go of the lock if `lock_owner` has it. `false`: a newer one is there.
    pub(in crate::cache) async fn fill(
        &self,
        filling: &Filling<'_>,
        lock_owner: &str,
    ) -> Result<bool, LinkError> {
        self.run(&FILL, &self.storing(filling, lock_owner)).await
    }

    /// The same for many entries in one round trip.
    pub(in crate::cache) async fn fill_many(&self, filling: &[Filling<'_>]) -> Result<Vec<bool>, LinkError> {
        let mut stored = Vec::new();
        for part in filling.chunks(AT_ONCE) {
            let calls = part.iter().map(|filling| self.storing(filling, ""));
            stored.extend(self.run_all::<bool>(&FILL, calls).await?);
        }
        Ok(stored)
    }

    fn storing(&self, filling: &Filling<'_>, lock_owner: &str) -> Cmd {
        let Filling { key, envelope, bytes, life, fail_safe } = *filling;
        let names = self.names.entry_and_lock(key);
        let mut call = script_call(&FILL, 3, 512 + bytes.len() + envelope.tags.len() * 64);
        call.arg(self.names.meta()).arg(&names);
        call.arg(&self.marker).arg(&self.epoch_text).arg(envelope.as_of).arg(milliseconds(life + fail_safe));
        call.arg(self.names.tag_prefix()).arg(milliseconds(VERSION_LIFE + fail_safe)).arg(lock_owner);
        call.arg(bytes);
        for tag in &envelope.tags {
            call.arg(tag.as_str());
        }
        call
    }

    /// Lets go of the lock if `lock_owner` still has it.
    pub(in crate::cache) async fn unlock(&self, key: &Key, lock_owner: &str) -> Result<(), LinkError> {
        let [_, lock] = self.names.entry_and_lock(key);
        let mut call = UNLOCK.key(lock);
        call.arg(lock_owner);
        self.call(&call).await
    }

    /// Deletes the entries whose keys an operator has named. They may be loaded again at any time: what is deleted here is
    /// not stale.
    pub async fn delete_named(&self, tags: &[Tag]) {
        for pattern in tags.iter().filter_map(Tag::as_pattern) {
            match self.delete_matching(pattern).await {
                Ok(count) => log::info!(entries = count; "entries were deleted from L2 by pattern"),
                Err(err) => {
                    log::warn!("error.chain":% = crate::telemetry::Chain(&err);
                        "L2 entries were not all deleted");
                }
            }
        }
    }

    /// Deletes the entries whose keys match, in bounded steps and without holding Redis up. Returns how many.
    pub(in crate::cache) async fn delete_matching(&self, pattern: &str) -> Result<usize, LinkError> {
        let pattern = format!("{}:entry:{pattern}", self.names.escaped());
        let mut connection = self.connection.clone();
        let (mut cursor, mut count) = (0_u64, 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.watch(scan.query_async(&mut connection)).await?;
            if !keys.is_empty() {
                count += keys.len();
                self.watch(redis::cmd("UNLINK").arg(keys).exec_async(&mut connection)).await?;
            }
            if next == 0 {
                return Ok(count);
            }
            cursor = next;
        }
    }

    /// What is stored under a key, its remaining life, and the versions of its tags. Judges nothing.
    pub(in crate::cache) async fn peek(&self, key: &str) -> Result<Option<Peeked>, LinkError> {
        let name = format!("{}:entry:{key}", self.names.namespace);
        let mut connection = self.connection.clone();
        let mut look = redis::pipe();
        look.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let (stored, ttl_ms): (Option<Vec<u8>>, i64) = self.watch(look.query_async(&mut connection)).await?;
        let Some(stored) = stored else { return Ok(None) };
        let (bytes, envelope) = (stored.len(), Envelope::read(&stored));
        let tags = envelope.as_ref().map(|envelope| envelope.tags.clone()).unwrap_or_default();
        let mut versions: Vec<Option<u64>> = Vec::new();
        if !tags.is_empty() {
            let mut ask = redis::cmd("MGET");
            tags.iter().for_each(|tag| {
                ask.arg(format!("{}{tag}", self.names.tag_prefix()));
            });
            versions = self.watch(ask.query_async(&mut connection)).await?;
        }
        let left = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default());
        let versions = tags.into_iter().zip(versions).collect();
        Ok(Some(Peeked { bytes, left, envelope, versions }))
    }
}

fn split_header(answer: &Bytes) -> Option<(&str, Bytes)> {
    let end = memchr::memchr(b'\n', answer)?;
    Some((std::str::from_utf8(answer.get(..end)?).ok()?, answer.slice(end + 1..)))
}

fn unexpected() -> RedisError {
    (ErrorKind::UnexpectedReturnType, "a script has answered in another form than its own").into()
}
