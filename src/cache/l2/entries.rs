//! Entries in Redis: reading, filling, deleting. Each is done by a script.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use redis::{Cmd, Script};

use super::{Link, LinkError, VERSION_LIFE, milliseconds, reads::Asking};
use crate::cache::{
    envelope::Envelope,
    key::{Key, Tag},
    policy::Policy,
};
use crate::redis::script_call;

/// Entries of one round trip: with more, it would take longer than a call may.
pub(super) const AT_ONCE: usize = 200;
/// Keys that one step of a scan looks at.
const SCAN_STEP: usize = 500;

static FILL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../lua/fill.lua")));
static UNLOCK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../lua/unlock.lua")));

/// What L2 says to a reader.
pub(in crate::cache) enum L2Read {
    /// A valid entry. With the lock: it is near its end, and whoever reads this is to renew it.
    Hit { sequence: u64, ttl: Duration, envelope: Bytes, lock: Lock },
    /// Nothing valid; a load that begins now is as of `sequence`.
    Miss { sequence: u64, left: Left, lock: Lock },
}

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

/// The name of whoever loads something, which nobody else has: of two loads of one key neither takes the other's lock for
/// its own.
#[derive(Debug, Clone, Copy)]
pub(in crate::cache) struct LockOwner {
    pub(in crate::cache) process: u64,
    pub(in crate::cache) load: u64,
}

impl LockOwner {
    /// Without what formatting costs: each look into Redis needs it.
    pub(super) fn write_to(self, text: &mut String) {
        let mut number = itoa::Buffer::new();
        text.push_str(number.format(self.process));
        text.push('-');
        text.push_str(number.format(self.load));
    }

    fn name(self) -> String {
        let mut text = String::new();
        self.write_to(&mut text);
        text
    }
}

impl Link {
    /// The entry if it is valid, else a sequence to load under and, if there is a `lock_owner`, the lock.
    pub(in crate::cache) async fn read(
        &self,
        wanted: &Wanted<'_>,
        lock_owner: Option<LockOwner>,
    ) -> Result<L2Read, LinkError> {
        let reading = self.asking.reading(wanted, lock_owner);
        // Account is kept of the round trip, which others share.
        self.reads.ask(reading).await?.ok_or_else(|| self.other_epoch())
    }

    /// The same for many entries in one round trip, without locks. What goes wrong with one is said in its place.
    pub(in crate::cache) async fn read_many(
        &self,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<Result<L2Read, LinkError>>, LinkError> {
        let mut reads = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(AT_ONCE) {
            let readings: Vec<_> = part.iter().map(|wanted| self.asking.reading(wanted, None)).collect();
            let mut connection = self.connection.clone();
            let answers = self.watch.call_of_parts(self.asking.ask(&mut connection, &readings)).await?;
            reads.extend(answers.into_iter().map(|read| read?.ok_or_else(|| self.other_epoch())));
        }
        Ok(reads)
    }

    /// Stores an entry, and lets go of the lock if `lock_owner` has it. `false`: a newer one is there.
    pub(in crate::cache) async fn fill(
        &self,
        filling: &Filling<'_>,
        lock_owner: LockOwner,
    ) -> Result<bool, LinkError> {
        self.run(&FILL, &self.storing(filling, Some(lock_owner))).await
    }

    /// The same for many entries in one round trip.
    pub(in crate::cache) async fn fill_many(&self, filling: &[Filling<'_>]) -> Result<Vec<bool>, LinkError> {
        let mut stored = Vec::new();
        for part in filling.chunks(AT_ONCE) {
            let calls = part.iter().map(|filling| self.storing(filling, None));
            stored.extend(self.run_all::<bool>(&FILL, calls).await?);
        }
        Ok(stored)
    }

    fn storing(&self, filling: &Filling<'_>, lock_owner: Option<LockOwner>) -> Cmd {
        let Filling { key, envelope, bytes, life, fail_safe } = *filling;
        let Asking { names, marker, epoch } = &*self.asking;
        let tags = envelope.tags.len();
        let mut call = script_call(&FILL, 3, 8 + tags, 512 + bytes.len() + tags * 64);
        call.arg(names.meta()).arg(names.entry_and_lock(key).both().as_slice());
        call.arg(marker).arg(epoch).arg(envelope.as_of).arg(milliseconds(life + fail_safe));
        call.arg(names.tag_prefix()).arg(milliseconds(VERSION_LIFE + fail_safe));
        call.arg(lock_owner.map(LockOwner::name).unwrap_or_default());
        call.arg(bytes);
        for tag in &envelope.tags {
            call.arg(tag.as_str());
        }
        call
    }

    /// Lets go of the lock if `lock_owner` still has it.
    pub(in crate::cache) async fn unlock(&self, key: &Key, lock_owner: LockOwner) -> Result<(), LinkError> {
        let names = self.asking.names.entry_and_lock(key);
        let [_, lock] = names.both();
        let mut call = UNLOCK.key(lock);
        call.arg(lock_owner.name());
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
        let pattern = format!("{}:entry:{pattern}", self.asking.names.escaped());
        let mut connection = self.connection.clone();
        let (mut cursor, mut count) = (0_u64, 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_STEP);
            let (next, keys): (u64, Vec<Vec<u8>>) =
                self.watch.call(scan.query_async(&mut connection)).await?;
            if !keys.is_empty() {
                count += keys.len();
                self.watch.call(redis::cmd("UNLINK").arg(keys).exec_async(&mut connection)).await?;
            }
            if next == 0 {
                return Ok(count);
            }
            cursor = next;
        }
    }

    /// What is stored under a key, its remaining life, and the versions of its tags. Judges nothing.
    pub(in crate::cache) async fn peek(&self, key: &str) -> Result<Option<Peeked>, LinkError> {
        let name = format!("{}:entry:{key}", self.asking.names.namespace);
        let mut connection = self.connection.clone();
        let mut look = redis::pipe();
        look.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let (stored, ttl_ms): (Option<Vec<u8>>, i64) =
            self.watch.call(look.query_async(&mut connection)).await?;
        let Some(stored) = stored else { return Ok(None) };
        let (bytes, envelope) = (stored.len(), Envelope::read(&stored));
        let tags = envelope.as_ref().map(|envelope| envelope.tags.clone()).unwrap_or_default();
        let mut versions: Vec<Option<u64>> = Vec::new();
        if !tags.is_empty() {
            let mut ask = redis::cmd("MGET");
            tags.iter().for_each(|tag| {
                ask.arg(format!("{}{tag}", self.asking.names.tag_prefix()));
            });
            versions = self.watch.call(ask.query_async(&mut connection)).await?;
        }
        let left = Duration::from_millis(u64::try_from(ttl_ms).unwrap_or_default());
        let versions = tags.into_iter().zip(versions).collect();
        Ok(Some(Peeked { bytes, left, envelope, versions }))
    }
}
