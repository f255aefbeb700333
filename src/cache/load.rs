//! One load: L2, PostgreSQL, and the filling of both tiers.
//!
//! Order matters and is kept here: interest in the tags is taken first, then the sequence is read, then the load
//! begins, and what it brings is stamped with that sequence. See [`super::generation`] for why.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Cache, LoadError, Loaded,
    entry::{Entry, Envelope, Stored},
    flight::{Landing, Leader},
    generation::{Generation, Interest, Required, Source, Stamp},
    key::{Key, Tag},
    l1::L1,
    l2::{L2Read, Left, Link, Lock},
    policy::Policy,
    status::{Status, TierStatus},
    trust::Verdict,
};

/// Longest that a load may take.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that a load may take while there is something else to serve.
const SOFT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long something else is served before it is tried to load again.
const RETRY: Duration = Duration::from_secs(1);
/// Larger values are served and not stored.
const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// How long to leave a load to another instance; its lock lasts no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// First pause before looking again for what another instance loads; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// One flight: everything its leader needs.
pub(super) struct Trip {
    pub(super) cache: Arc<Cache>,
    pub(super) policy: Arc<Policy>,
    pub(super) key: Key,
    pub(super) tags: Vec<Tag>,
    pub(super) required: Required,
    pub(super) generation: Arc<Generation>,
    pub(super) status: Status,
}

/// What L2 left to do.
enum AfterL2<'a> {
    /// It had the value.
    Found(Entry),
    /// Load, as of this sequence, and fill L2 through the link, if there is one.
    Load { interest: Interest, as_of: u64, link: Option<&'a Arc<Link>>, expired: Option<Entry> },
}

impl Trip {
    pub(super) async fn fly<T, F, L>(mut self, leader: Leader, interest: Interest, load: F)
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
        let (interest, as_of, link, expired) = match self.look_in_l2::<T>(&generation, interest, &owner).await
        {
            AfterL2::Found(entry) => return Ok((self.keep(entry), self.status)),
            AfterL2::Load { interest, as_of, link, expired } => (interest, as_of, link, expired),
        };
        let instead = self.instead(expired);
        let patience = if instead.is_some() { SOFT_TIMEOUT } else { LOAD_TIMEOUT };
        let loaded = match timed(&self.policy, patience, load()).await {
            Ok(loaded) => loaded,
            Err(err) => {
                if let Some(link) = link {
                    // At worst others wait until the lock's time is up.
                    let _ = link.unlock(&self.key, &owner).await;
                }
                return match instead.filter(|_| err.is_source_away()) {
                    Some(instead) => self.fall_back(instead).ok_or(err),
                    None => Err(err),
                };
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
                return AfterL2::Load { interest, as_of, link: None, expired: None };
            }
            _ => return AfterL2::Load { interest, as_of, link: None, expired: None },
        };
        let mut asks_for_lock = (self.required != Required::Load).then_some(owner);
        let patience_ends = Instant::now() + PATIENCE;
        let mut pause = FIRST_PAUSE;
        loop {
            match link.read(&self.key, &self.tags, asks_for_lock, self.policy.fail_safe()).await {
                Ok(L2Read::Hit { sequence, ttl, envelope }) if self.required != Required::Load => {
                    self.status.l2 = TierStatus::Hit(ttl);
                    if let Some(entry) =
                        self.decode::<T>(generation, interest.clone(), sequence, ttl, &envelope)
                    {
                        return AfterL2::Found(entry);
                    }
                    self.policy.stats.undecodable.inc();
                    self.status.l2 = TierStatus::Miss;
                    return AfterL2::Load { interest, as_of: sequence, link: Some(link), expired: None };
                }
                Ok(L2Read::Hit { sequence, .. }) => {
                    self.status.l2 = TierStatus::Request;
                    return AfterL2::Load { interest, as_of: sequence, link: Some(link), expired: None };
                }
                Ok(L2Read::Miss { sequence, left, lock }) => {
                    let stale = matches!(left, Left::Stale);
                    self.status.l2 = if stale { TierStatus::Stale } else { TierStatus::Miss };
                    if lock != Lock::HeldByAnother {
                        let expired = match left {
                            Left::Expired { envelope, kept } if self.required != Required::Load => self
                                .decode_expired::<T>(generation, interest.clone(), sequence, kept, &envelope),
                            _ => None,
                        };
                        return AfterL2::Load { interest, as_of: sequence, link: Some(link), expired };
                    }
                    if Instant::now() >= patience_ends {
                        // Once more, for what there is instead.
                        asks_for_lock = None;
                        continue;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(err) => {
                    log::warn!("cache.key":% = self.key, "error.chain":% = crate::telemetry::Chain(&err);
                        "L2 read failed; loading from PostgreSQL");
                    self.status.l2 = TierStatus::Unavailable;
                    return AfterL2::Load { interest, as_of, link: None, expired: None };
                }
            }
        }
    }

    /// What could serve if nothing can be loaded: what L2 has just vouched for, or what this process holds itself.
    fn instead(&self, expired: Option<Entry>) -> Option<Entry> {
        let here = || {
            let l1 = self.cache.l1.as_ref().filter(|_| self.required == Required::Nothing)?;
            Some(l1.get(&self.key)?.prolonged(Instant::now() + RETRY))
        };
        expired.or_else(here).filter(|_| !self.policy.fail_safe().is_zero())
    }

    /// Serves what there is, and for a moment does not try again. Never what was invalidated meanwhile, or what nothing
    /// vouches for.
    fn fall_back(&mut self, instead: Entry) -> Option<(Arc<Entry>, Status)> {
        let fresh =
            instead.stamp.as_ref().is_some_and(|stamp| self.cache.trust.judge(stamp) == Verdict::Fresh);
        let overdue = instead.overdue_since.map_or(Duration::ZERO, |since| since.elapsed());
        if !fresh || Instant::now() >= instead.usable_until {
            return None;
        }
        let tier = TierStatus::FailSafe(overdue);
        if self.status.l2 == TierStatus::Unused {
            self.status.l1 = tier;
        } else {
            self.status.l2 = tier;
        }
        Some((self.keep(instead), self.status))
    }

    /// An entry of L2 whose time is up, to serve for a moment.
    fn decode_expired<T: Stored>(
        &self,
        generation: &Generation,
        interest: Interest,
        sequence: u64,
        kept: Duration,
        envelope: &Bytes,
    ) -> Option<Entry> {
        let now = Instant::now();
        let mut entry = self.decode::<T>(generation, interest, sequence, Duration::ZERO, envelope)?;
        entry.usable_until = now + kept;
        entry.expires_at = now.checked_sub(self.policy.fail_safe().saturating_sub(kept))?;
        Some(entry.prolonged(now + RETRY))
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
                link.fill(&self.key, &envelope, (life, self.policy.fail_safe()), owner).await
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
        let expires_at = Instant::now() + life;
        Entry::new(value, stamp, expires_at, expires_at + self.policy.fail_safe())
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

pub(super) async fn timed<T>(
    policy: &Policy,
    limit: Duration,
    load: impl Future<Output = Result<Loaded<T>, BoxError>>,
) -> Result<Loaded<T>, LoadError> {
    let started = Instant::now();
    let outcome = match tokio::time::timeout(limit, load).await {
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
