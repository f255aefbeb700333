//! What this process may believe of its own memory: stamps, generations and the lease.
//!
//! **Invariant.** An entry is served from L1 only if it is provably no older than every invalidation
//! this process has heard of, and this process has, within the last second, proved that it had heard of
//! all there were.
//!
//! * A [`TagState`] holds the highest sequence at which a tag was invalidated, as far as *heard*. Entries
//!   and loads under way hold it by `Arc`, so that it cannot be forgotten while anything depends on it, and
//!   checking an entry follows pointers: no look-up, no lock.
//! * A [`Stamp`] is taken **before** a load begins: the sequence that the invalidations had then reached.
//!   Whatever was invalidated later has a higher sequence, so `heard <= as_of` for each tag says that the
//!   load has seen every change. One number does for all tags, also for those that the loader learns of
//!   while loading; L2 applies the same rule to the versions in Redis.
//! * A [`Generation`] is one period of unbroken hearing. When trust is lost (a gap in the sequence, a new
//!   connection, another epoch), a new generation begins: entries of the old one never count again, nor do
//!   its loads under way. It owns all that was heard, so numbers of two epochs cannot meet.
//! * The lease is the time until which the present generation may be believed; see [`Trust::renew_lease`].

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{key::Tag, l2::Link, token::Token};

/// How long a proof of having heard everything lasts.
pub const LEASE: Duration = Duration::from_secs(1);

/// Invalidations remembered although nothing here depended on their tags when they were heard.
const RECENT: usize = 16_384;

/// The highest sequence at which a tag was invalidated, as far as this process has heard.
#[derive(Debug, Default)]
pub struct TagState {
    heard: AtomicU64,
}

impl TagState {
    fn hear(&self, sequence: u64) {
        self.heard.fetch_max(sequence, Ordering::AcqRel);
    }

    /// 0 when nothing was heard.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }
}

/// What ties an entry to the time at which its load began.
#[derive(Debug, Clone)]
pub struct Stamp {
    generation: u64,
    as_of: u64,
    tags: Box<[Arc<TagState>]>,
}

impl Stamp {
    /// No invalidation heard since the load began.
    fn is_current(&self) -> bool {
        self.tags.iter().all(|tag| tag.heard() <= self.as_of)
    }

    /// How many tags the entry has.
    pub fn tag_count(&self) -> usize {
        self.tags.len()
    }
}

/// Whether a stamped value may be used, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Provably no older than what was heard.
    Fresh,
    /// This process cannot prove that it has heard everything lately.
    NoLease,
    /// Invalidated, or from a generation that is over.
    Outdated,
}

/// Where sequences come from in a generation.
pub enum Source {
    /// Redis: one sequence for all instances.
    Shared(Arc<Link>),
    /// This process alone writes, or reads the journal of those who do.
    Local,
    /// Nothing can be trusted at present; values are loaded and not kept.
    Untrusted,
}

/// One period of unbroken hearing.
pub struct Generation {
    number: u64,
    /// Where its sequences come from.
    pub source: Source,
    /// The epoch of the sequence; 0 for a local one.
    pub epoch: u64,
    /// Every invalidation up to this one has been applied.
    applied: AtomicU64,
    tags: Registry,
    recent: Mutex<VecDeque<(u64, Arc<TagState>)>>,
    /// The highest sequence that has been dropped from `recent`.
    floor: AtomicU64,
    all: Arc<TagState>,
}

/// What a message of the bus meant for the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The next one, or one that was applied before.
    InOrder,
    /// At least one was lost.
    Gap,
}

impl Generation {
    fn new(number: u64, source: Source, epoch: u64, applied: u64) -> Self {
        let tags = Registry::default();
        let all = tags.state(&Tag::all());
        let (recent, floor) = (Mutex::default(), AtomicU64::new(applied));
        Self { number, source, epoch, applied: AtomicU64::new(applied), tags, recent, floor, all }
    }

    /// Changes with each loss of trust.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Every invalidation up to this sequence has been applied here.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// From now on, invalidations of these tags are remembered for as long as the interest is held.
    pub fn interest(&self, tags: &[Tag]) -> Interest {
        let mut states = Vec::with_capacity(tags.len() + 1);
        states.push(Arc::clone(&self.all));
        states.extend(tags.iter().map(|tag| self.tags.state(tag)));
        let heard = states.iter().map(|state| state.heard()).collect();
        Interest { generation: self.number, states, heard }
    }

    /// A stamp for what was read as of sequence `as_of`: with the tags of `interest`, taken before the
    /// reading, and with `learned` ones, which the reading brought to light.
    ///
    /// `None` if so much was invalidated meanwhile that an invalidation of a learned tag may have been
    /// forgotten.
    pub fn stamp(&self, interest: Interest, learned: &[Tag], as_of: u64) -> Option<Stamp> {
        let mut states = interest.states;
        if !learned.is_empty() {
            states.extend(learned.iter().map(|tag| self.tags.state(tag)));
            // Looked at after the states were taken: what was heard before is still in `recent`, which
            // keeps its state alive; what is heard from now on meets the state just taken.
            if self.floor.load(Ordering::Acquire) > as_of {
                return None;
            }
        }
        Some(Stamp { generation: self.number, as_of, tags: states.into() })
    }

    /// Applies an invalidation that another instance sent.
    pub fn hear(&self, sequence: u64, tags: &[Tag]) -> Heard {
        self.apply(sequence, tags);
        match self.advance(sequence) {
            Ok(()) => Heard::InOrder,
            Err(applied) if sequence <= applied => Heard::InOrder,
            Err(_) => Heard::Gap,
        }
    }

    /// Applies an invalidation that this process has made in Redis, ahead of its echo.
    pub fn hear_own(&self, sequence: u64, tags: &[Tag]) {
        self.apply(sequence, tags);
        // Earlier ones of others may still be on their way: only the next in order may be counted.
        let _ = self.advance(sequence);
    }

    /// Applies an invalidation under the next local sequence.
    pub fn hear_local(&self, tags: &[Tag]) {
        // The number is reserved before it is published as applied; a load that begins in between takes
        // the older number and is refused, which costs one more load.
        let mut recent = self.recent();
        let sequence = self.applied() + 1;
        self.apply_locked(&mut recent, sequence, tags);
        self.applied.store(sequence, Ordering::Release);
    }

    /// What must be passed over so that nothing older than the token's write is served.
    pub fn required_by(&self, token: &Token) -> Required {
        match &self.source {
            Source::Shared(_) if token.epoch() == self.epoch => {
                if token.sequence() <= self.applied() {
                    Required::Nothing
                } else {
                    Required::L2
                }
            }
            // A local generation hears of its own writes before they are acknowledged.
            Source::Local if token.epoch() == self.epoch => Required::Nothing,
            _ => Required::Load,
        }
    }

    fn advance(&self, sequence: u64) -> Result<(), u64> {
        let previous = sequence.saturating_sub(1);
        self.applied.compare_exchange(previous, sequence, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }

    fn apply(&self, sequence: u64, tags: &[Tag]) {
        self.apply_locked(&mut self.recent(), sequence, tags);
    }

    fn apply_locked(&self, recent: &mut VecDeque<(u64, Arc<TagState>)>, sequence: u64, tags: &[Tag]) {
        for tag in tags {
            let state = self.tags.state(tag);
            state.hear(sequence);
            recent.push_back((sequence, state));
        }
        while recent.len() > RECENT {
            if let Some((dropped, _)) = recent.front() {
                // Before the state is let go, so that nobody finds neither.
                self.floor.fetch_max(*dropped, Ordering::AcqRel);
            }
            recent.pop_front();
        }
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<TagState>)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tags whose invalidations are remembered, and what had been heard of them when that began.
pub struct Interest {
    generation: u64,
    states: Vec<Arc<TagState>>,
    heard: Vec<u64>,
}

impl Interest {
    /// Nothing was heard of these tags between the two: a load begun for `self` serves `later` too.
    pub fn still_serves(&self, later: &Self) -> bool {
        self.generation == later.generation && self.heard == later.heard
    }
}

impl Clone for Interest {
    fn clone(&self) -> Self {
        Self { generation: self.generation, states: self.states.clone(), heard: self.heard.clone() }
    }
}

/// The present generation and its lease.
pub struct Trust {
    present: ArcSwap<Generation>,
    /// `present`'s number, to be read without counting references.
    number: AtomicU64,
    /// Nanoseconds after `origin`.
    lease_until_ns: AtomicU64,
    origin: Instant,
    /// What this process has changed and could not announce. Held over every change of generation or lease.
    transition: Mutex<BTreeSet<Tag>>,
}

/// More tags than this are remembered as "everything".
const MANY_UNANNOUNCED: usize = 1000;

impl Trust {
    /// Trusts nothing until a generation begins.
    #[must_use]
    pub fn new() -> Self {
        Self {
            present: ArcSwap::from_pointee(Generation::new(0, Source::Untrusted, 0, 0)),
            number: AtomicU64::new(0),
            lease_until_ns: AtomicU64::new(0),
            origin: Instant::now(),
            transition: Mutex::default(),
        }
    }

    /// The present generation.
    pub fn generation(&self) -> Arc<Generation> {
        self.present.load_full()
    }

    /// Begins a generation without a lease. `applied`: where its sequence stands.
    ///
    /// # Errors
    /// What this process has changed and not announced, if the generation is shared: it has to be announced first, and
    /// the sequence asked for again, since what L2 holds may be older. What is returned counts as announced.
    pub fn begin(&self, source: Source, epoch: u64, applied: u64) -> Result<Arc<Generation>, Vec<Tag>> {
        let mut unannounced = self.transition();
        if matches!(source, Source::Shared(_)) && !unannounced.is_empty() {
            return Err(std::mem::take(&mut *unannounced).into_iter().collect());
        }
        Ok(self.replace(source, epoch, applied))
    }

    /// Remembers what could not be announced, until a shared generation is to begin. `false`: the generation is over,
    /// and the present one has to be told.
    pub fn leave_unannounced(&self, generation: &Generation, tags: &[Tag]) -> bool {
        let mut unannounced = self.transition();
        if self.number.load(Ordering::Acquire) != generation.number {
            return false;
        }
        unannounced.extend(tags.iter().cloned());
        if unannounced.len() > MANY_UNANNOUNCED {
            *unannounced = BTreeSet::from([Tag::all()]);
        }
        true
    }

    /// Ends trust, if the present generation is still the one in which it was lost.
    pub fn distrust(&self, lost: &Generation) {
        let _transition = self.transition();
        if self.number.load(Ordering::Acquire) == lost.number {
            self.replace(Source::Untrusted, 0, 0);
        }
    }

    fn replace(&self, source: Source, epoch: u64, applied: u64) -> Arc<Generation> {
        let number = self.number.load(Ordering::Acquire) + 1;
        let generation = Arc::new(Generation::new(number, source, epoch, applied));
        self.lease_until_ns.store(0, Ordering::Release);
        self.present.store(Arc::clone(&generation));
        self.number.store(number, Ordering::Release);
        generation
    }

    /// One change of generation or lease at a time.
    fn transition(&self) -> MutexGuard<'_, BTreeSet<Tag>> {
        self.transition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// L1 may be used until [`LEASE`] after `proved_at`, the time at which the proof was *asked for*: what
    /// happened since then is not part of it.
    pub fn renew_lease(&self, generation: &Generation, proved_at: Instant) {
        let until = proved_at.saturating_duration_since(self.origin) + LEASE;
        let _transition = self.transition();
        if self.number.load(Ordering::Acquire) == generation.number {
            self.lease_until_ns.fetch_max(nanoseconds(until), Ordering::AcqRel);
        }
    }

    /// A lease without end, for a process that is alone with its database.
    pub fn renew_lease_for_ever(&self, generation: &Generation) {
        let _transition = self.transition();
        if self.number.load(Ordering::Acquire) == generation.number {
            self.lease_until_ns.store(u64::MAX, Ordering::Release);
        }
    }

    /// Whether L1 may be used.
    pub fn has_lease(&self) -> bool {
        nanoseconds(self.origin.elapsed()) < self.lease_until_ns.load(Ordering::Acquire)
    }

    /// Whether a value with this stamp may be served from L1.
    pub fn judge(&self, stamp: &Stamp) -> Verdict {
        // The lease first: seen afterwards, it might be one that was renewed because of what the tags had not yet heard.
        let has_lease = self.has_lease();
        if !self.is_current(stamp) {
            Verdict::Outdated
        } else if has_lease {
            Verdict::Fresh
        } else {
            Verdict::NoLease
        }
    }

    /// Whether nothing was heard that outdates the value. Enough for one that was loaded just now.
    pub fn is_current(&self, stamp: &Stamp) -> bool {
        stamp.generation == self.number.load(Ordering::Acquire) && stamp.is_current()
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self::new()
    }
}

/// How deep a request with a `Consistency-Token` has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Required {
    /// L1 has heard of the write.
    Nothing,
    /// L1 and loads under way may not have; L2 has.
    L2,
    /// Only the database is sure to have it.
    Load,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The states of all tags that something depends on.
struct Registry {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

const SHARDS: usize = 16;

struct Shard {
    states: HashMap<Tag, Weak<TagState>>,
    sweep_at: usize,
}

impl Default for Registry {
    fn default() -> Self {
        let shard = |_| Mutex::new(Shard { states: HashMap::new(), sweep_at: 1024 });
        Self { shards: std::array::from_fn(shard), hasher: RandomState::new() }
    }
}

impl Registry {
    fn state(&self, tag: &Tag) -> Arc<TagState> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let index = self.hasher.hash_one(tag) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS")]
        let mut shard = self.shards[index].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = shard.states.get(tag).and_then(Weak::upgrade) {
            return state;
        }
        if shard.states.len() >= shard.sweep_at {
            shard.states.retain(|_, state| state.strong_count() > 0);
            shard.sweep_at = (shard.states.len() * 2).max(1024);
        }
        let state = Arc::new(TagState::default());
        shard.states.insert(tag.clone(), Arc::downgrade(&state));
        state
    }
}
