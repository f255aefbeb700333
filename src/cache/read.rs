//! The read path: L1, L2, load.
//!
//! Order matters and is kept here: interest in the tags is taken first, then the sequence is read, then the load
//! begins, and what it brings is stamped with that sequence. See [`super::trust`] for why.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Cache, LoadError,
    entry::{Entry, Envelope, Stored},
    flight::{Boarding, Landing, Leader, landed},
    key::{Key, Tag},
    l1::L1,
    l2::{L2Read, Link, Lock},
    policy::Policy,
    status::{Status, TierStatus},
    token::Token,
    trust::{Generation, Interest, Required, Source, Stamp, Verdict},
};
use crate::telemetry::in_this_request;

/// Longest that a load may take.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Larger values are served and not stored.
const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// How long to leave a load to another instance; its lock lasts no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// First pause before looking again for what another instance loads; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The entry.
    pub key: Key,
    /// A write that the answer must not be older than.
    pub token: Option<&'a Token>,
}

/// What a loader brings.
#[derive(Debug)]
pub struct Loaded<T> {
    /// `None`: there is no such thing, which is kept as well.
    pub value: Option<T>,
    /// Tags that were not known before loading.
    pub tags: Vec<Tag>,
}

/// The answer.
#[derive(Debug)]
pub struct Read<T> {
    /// `None`: there is no such thing.
    pub value: Option<Arc<T>>,
    /// How it was had.
    pub status: Status,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Cache {
    /// Reads through both tiers. `tags` are those that are known before loading; they and `load` are asked for
    /// only on a miss. The load runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// When the load fails. Errors are never cached.
    pub async fn read<T, F, L>(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        question: Question<'_>,
        tags: impl FnOnce() -> Vec<Tag>,
        load: F,
    ) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let required = required_by(&self.trust.generation(), question.token);
        let l1 = match self.look_in_l1(&question.key, required) {
            Ok(read) => {
                policy.stats.count(&read.status);
                return Ok(read);
            }
            Err(status) => status,
        };
        let read = if self.l1.is_none() && !self.uses_l2 {
            self.load_only(policy, load).await
        } else {
            self.read_through(policy, question, l1, tags(), load).await
        }?;
        policy.stats.count(&read.status);
        Ok(read)
    }

    fn look_in_l1<T: Stored>(&self, key: &Key, required: Required) -> Result<Read<T>, TierStatus> {
        let Some(l1) = &self.l1 else { return Err(TierStatus::Unused) };
        if required != Required::Nothing {
            return Err(TierStatus::Request);
        }
        let Some(entry) = l1.get(key) else {
            return Err(if self.trust.has_lease() { TierStatus::Miss } else { TierStatus::NoLease });
        };
        let verdict = entry.stamp.as_ref().map_or(Verdict::Outdated, |stamp| self.trust.judge(stamp));
        match (verdict, entry.value()) {
            (Verdict::Fresh, Some(value)) => {
                let left = entry.expires_at.saturating_duration_since(Instant::now());
                Ok(Read { value, status: Status::new(TierStatus::Hit(left)) })
            }
            (Verdict::Fresh, None) => Err(TierStatus::Miss),
            (Verdict::NoLease, _) => Err(TierStatus::NoLease),
            (Verdict::Outdated, _) => Err(TierStatus::Stale),
        }
    }

    async fn load_only<T, F, L>(&self, policy: &Policy, load: F) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L,
        L: Future<Output = Result<Loaded<T>, BoxError>>,
    {
        let loaded = timed(policy, load()).await?;
        Ok(Read { value: loaded.value.map(Arc::new), status: Status::new(TierStatus::Unused) })
    }

    async fn read_through<T, F, L>(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        question: Question<'_>,
        l1: TierStatus,
        tags: Vec<Tag>,
        load: F,
    ) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let key = question.key;
        for attempt in 0.. {
            let generation = self.trust.generation();
            let required = required_by(&generation, question.token);
            let interest = generation.interest(&tags);
            let flight = match self.flights.board(key, &interest, required, !self.trust.has_lease()) {
                Boarding::Join(flight) => flight,
                Boarding::Lead(leader) => {
                    // Whoever was loading it may have landed since this reader looked.
                    if let Ok(read) = self.look_in_l1(&key, required) {
                        return Ok(read);
                    }
                    let passenger = leader.passenger();
                    let trip = Trip {
                        cache: Arc::clone(self),
                        policy: Arc::clone(policy),
                        key,
                        tags,
                        required,
                        generation,
                        status: Status::new(l1),
                    };
                    self.main.spawn(in_this_request(trip.fly(leader, interest, load)));
                    let (entry, status) = landed(passenger).await.ok_or(LoadError::Panicked)??;
                    return Ok(Read { value: entry.value().ok_or(LoadError::Panicked)?, status });
                }
            };
            if let Some(landing) = landed(flight).await {
                // What began before this reader came may be older than what he must see.
                let serves = |entry: &Entry| {
                    let current = entry.stamp.as_ref().is_some_and(|stamp| self.trust.is_current(stamp));
                    attempt > 0 || (required == Required::Nothing && current)
                };
                match landing {
                    Ok((entry, _)) if serves(&entry) => {
                        let value = entry.value().ok_or(LoadError::Panicked)?;
                        return Ok(Read { value, status: Status::collapsed(l1) });
                    }
                    Err(err) if attempt > 0 || required == Required::Nothing => return Err(err),
                    _ => {}
                }
            }
        }
        Err(LoadError::Panicked)
    }
}

fn required_by(generation: &Generation, token: Option<&Token>) -> Required {
    token.map_or(Required::Nothing, |token| generation.required_by(token))
}

/// One flight: everything its leader needs.
struct Trip {
    cache: Arc<Cache>,
    policy: Arc<Policy>,
    key: Key,
    tags: Vec<Tag>,
    required: Required,
    generation: Arc<Generation>,
    status: Status,
}

/// What L2 left to do.
enum AfterL2<'a> {
    /// It had the value.
    Found(Entry),
    /// Load, as of this sequence, and fill L2 through the link, if there is one.
    Load { interest: Interest, as_of: u64, link: Option<&'a Arc<Link>> },
}

impl Trip {
    async fn fly<T, F, L>(mut self, leader: Leader, interest: Interest, load: F)
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let landing = self.obtain(interest, load).await;
        leader.land(landing);
    }

    async fn obtain<T, F, L>(&mut self, interest: Interest, load: F) -> Landing
    where
        T: Stored,
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        // Unique, so that of two loads of one key neither takes the other's lock for its own.
        let owner = Uuid::new_v4().simple().to_string();
        let generation = Arc::clone(&self.generation);
        let (interest, as_of, link) = match self.look_in_l2::<T>(&generation, interest, &owner).await {
            AfterL2::Found(entry) => return Ok((self.keep(entry), self.status)),
            AfterL2::Load { interest, as_of, link } => (interest, as_of, link),
        };
        let loaded = match timed(&self.policy, load()).await {
            Ok(loaded) => loaded,
            Err(err) => {
                if let Some(link) = link {
                    // At worst others wait until the lock's time is up.
                    let _ = link.unlock(&self.key, &owner).await;
                }
                return Err(err);
            }
        };
        let l2_life = self.policy.l2_life(loaded.value.is_none());
        if let Some(link) = link {
            self.fill_l2(link, &loaded, as_of, l2_life, &owner).await;
        }
        let stamp = generation.stamp(interest, &loaded.tags, as_of);
        let entry = self.entry(loaded.value, stamp, l2_life);
        Ok((self.keep(entry), self.status))
    }

    async fn look_in_l2<'g, T: Stored>(
        &mut self,
        generation: &'g Generation,
        interest: Interest,
        owner: &str,
    ) -> AfterL2<'g> {
        // Every invalidation up to here was applied before the interest was taken or is remembered by it.
        let as_of = generation.applied();
        let link = match &generation.source {
            Source::Shared(link) if self.cache.uses_l2 => link,
            Source::Untrusted if self.cache.uses_l2 => {
                self.status.l2 = TierStatus::Unavailable;
                return AfterL2::Load { interest, as_of, link: None };
            }
            _ => return AfterL2::Load { interest, as_of, link: None },
        };
        let asks_for_lock = (self.required != Required::Load).then_some(owner);
        let patience_ends = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            match link.read(&self.key, &self.tags, asks_for_lock).await {
                Ok(L2Read::Hit { sequence, ttl, envelope }) if self.required != Required::Load => {
                    self.status.l2 = TierStatus::Hit(ttl);
                    if let Some(entry) =
                        self.decode::<T>(generation, interest.clone(), sequence, ttl, &envelope)
                    {
                        return AfterL2::Found(entry);
                    }
                    self.policy.stats.undecodable.inc();
                    self.status.l2 = TierStatus::Miss;
                    return AfterL2::Load { interest, as_of: sequence, link: Some(link) };
                }
                Ok(L2Read::Hit { sequence, .. }) => {
                    self.status.l2 = TierStatus::Request;
                    return AfterL2::Load { interest, as_of: sequence, link: Some(link) };
                }
                Ok(L2Read::Miss { sequence, stale, lock }) => {
                    self.status.l2 = if stale { TierStatus::Stale } else { TierStatus::Miss };
                    if lock != Lock::HeldByAnother || Instant::now() >= patience_ends {
                        return AfterL2::Load { interest, as_of: sequence, link: Some(link) };
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(err) => {
                    log::warn!("cache.key":% = self.key, "error.chain":% = crate::telemetry::Chain(&err);
                        "L2 read failed; loading from PostgreSQL");
                    self.status.l2 = TierStatus::Unavailable;
                    return AfterL2::Load { interest, as_of, link: None };
                }
            }
        }
    }

    fn decode<T: Stored>(
        &self,
        generation: &Generation,
        interest: Interest,
        sequence: u64,
        ttl: Duration,
        envelope: &Bytes,
    ) -> Option<Entry> {
        let envelope = Envelope::read(envelope)?;
        let value = match envelope.payload {
            Some(payload) => Some(T::decode(payload)?),
            None => None,
        };
        let learned: Vec<_> = envelope.tags.into_iter().filter(|tag| !self.tags.contains(tag)).collect();
        // Redis has just vouched for it as of `sequence`, whatever the time of its load.
        let stamp = generation.stamp(interest, &learned, sequence);
        Some(self.entry(value, stamp, ttl))
    }

    async fn fill_l2<T: Stored>(
        &mut self,
        link: &Link,
        loaded: &Loaded<T>,
        as_of: u64,
        life: Duration,
        owner: &str,
    ) {
        let payload = match &loaded.value {
            None => Some(None),
            Some(value) => {
                value.encode().filter(|payload| payload.len() <= MAX_VALUE_BYTES).map(Bytes::from).map(Some)
            }
        };
        let outcome = match payload {
            Some(payload) => {
                let mut tags = vec![Tag::all()];
                tags.extend(self.tags.iter().chain(&loaded.tags).cloned());
                let epoch = link.epoch();
                let envelope = Envelope { epoch, as_of, created_ms: unix_milliseconds(), tags, payload };
                link.fill(&self.key, &envelope, life, owner).await
            }
            None => link.unlock(&self.key, owner).await.map(|()| false),
        };
        match outcome {
            Ok(stored) => self.status.stored_l2 = stored,
            Err(err) => {
                log::warn!("cache.key":% = self.key, "error.chain":% = crate::telemetry::Chain(&err);
                    "L2 was not filled");
            }
        }
    }

    fn entry<T: Stored>(&self, value: Option<T>, stamp: Option<Stamp>, l2_left: Duration) -> Entry {
        let life = self.policy.l1_life(value.is_none(), l2_left);
        Entry::new(value, stamp, Instant::now() + life)
    }

    /// Puts the entry into L1 if anything could vouch for it there.
    fn keep(&mut self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let trusted = !matches!(self.generation.source, Source::Untrusted);
        let current = entry.stamp.as_ref().is_some_and(|stamp| self.cache.trust.is_current(stamp));
        let small = usize::try_from(entry.bytes).is_ok_and(|bytes| bytes <= MAX_VALUE_BYTES);
        if let (true, true, true, Some(l1)) = (trusted, current, small, &self.cache.l1) {
            L1::put(l1, self.key, Arc::clone(&entry));
            self.status.stored_l1 = true;
        }
        entry
    }
}

async fn timed<T>(
    policy: &Policy,
    load: impl Future<Output = Result<Loaded<T>, BoxError>>,
) -> Result<Loaded<T>, LoadError> {
    let started = Instant::now();
    let outcome = match tokio::time::timeout(LOAD_TIMEOUT, load).await {
        Ok(Ok(loaded)) => Ok(loaded),
        Ok(Err(err)) => Err(LoadError::Failed(err.into())),
        Err(_elapsed) => Err(LoadError::TimedOut),
    };
    match &outcome {
        Ok(_) => policy.stats.loaded.inc(),
        Err(_) => policy.stats.load_failed.inc(),
    }
    policy.stats.load_seconds.observe(started.elapsed().as_secs_f64());
    outcome
}

fn unix_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
