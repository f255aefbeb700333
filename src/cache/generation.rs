//! What was heard in one period of unbroken hearing, and what that says of an entry.
//!
//! * A [`TagState`] holds the highest sequence at which a tag was invalidated, as far as *heard*. Entries
//!   and loads under way hold it by `Arc`, so that it cannot be forgotten while anything depends on it, and
//!   checking an entry follows pointers: no look-up, no lock.
//! * A [`Stamp`] is taken **before** a load begins: the sequence that the invalidations had then reached.
//!   Whatever was invalidated later has a higher sequence, so `heard <= as_of` for each tag says that the
//!   load has seen every change. One number does for all tags, also for those that the loader learns of
//!   while loading; L2 applies the same rule to the versions in Redis.
//! * A [`Generation`] owns all that was heard in it, so that numbers of two epochs cannot meet.

use std::{
    collections::{HashMap, VecDeque},
    hash::BuildHasher as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{key::Tag, l2::Link, token::Token};
use crate::sharded::{RandomState, Sharded};

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

/// What all entries of a generation depend on.
#[derive(Debug)]
struct Common {
    /// The generation's number.
    number: u64,
    /// Of the tag that every entry has.
    all: TagState,
}

/// What ties an entry to the time at which its load began.
#[derive(Debug, Clone)]
pub struct Stamp {
    common: Arc<Common>,
    as_of: u64,
    /// But for the one that every entry has.
    tags: Box<[Arc<TagState>]>,
}

impl Stamp {
    /// It is of the generation with this number, and no invalidation was heard since the load began.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.common.number == generation
            && self.common.all.heard() <= self.as_of
            && self.tags.iter().all(|tag| tag.heard() <= self.as_of)
    }

    /// The sequence before the load.
    pub const fn as_of(&self) -> u64 {
        self.as_of
    }

    /// How many bytes they take.
    pub fn tag_bytes(&self) -> usize {
        size_of_val(&*self.tags)
    }

    /// How many tags the entry has, with the one that every entry has.
    pub fn tag_count(&self) -> usize {
        self.tags.len() + 1
    }
}

/// Where sequences come from in a generation.
pub enum Source {
    /// Redis: one sequence for all instances.
    Shared(Arc<Link>),
    /// This process alone writes.
    Local,
    /// The journal, which every instance reads: there is no Redis, or none at present.
    Journal,
    /// Nothing can be trusted at present; values are loaded and not kept.
    Untrusted,
}

/// With what a generation begins.
pub struct Beginning {
    /// Where its sequences come from.
    pub source: Source,
    /// The epoch of the sequence; 0 for none.
    pub epoch: u64,
    /// Where the sequence stands.
    pub applied: u64,
    /// Everything that the journal has below this position came before; 0: nothing is known of it.
    pub horizon: u64,
}

impl Beginning {
    /// Of distrust.
    pub(super) const UNTRUSTED: Self = Self { source: Source::Untrusted, epoch: 0, applied: 0, horizon: 0 };
}

/// One period of unbroken hearing.
pub struct Generation {
    common: Arc<Common>,
    /// Where its sequences come from.
    pub source: Source,
    /// The epoch of the sequence; 0 for a local one.
    pub epoch: u64,
    /// Every invalidation up to this one has been applied.
    applied: AtomicU64,
    /// Everything that the journal has below this position was heard, or came before this generation.
    horizon: AtomicU64,
    tags: Registry,
    recent: Mutex<VecDeque<(u64, Arc<TagState>)>>,
    /// The highest sequence that has been dropped from `recent`.
    floor: AtomicU64,
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
    pub(super) fn new(number: u64, beginning: Beginning) -> Self {
        let Beginning { source, epoch, applied, horizon } = beginning;
        let common = Arc::new(Common { number, all: TagState::default() });
        let (tags, recent, floor) = (Registry::default(), Mutex::default(), AtomicU64::new(applied));
        let (applied, horizon) = (AtomicU64::new(applied), AtomicU64::new(horizon));
        Self { common, source, epoch, applied, horizon, tags, recent, floor }
    }

    /// Changes with each loss of trust.
    pub fn number(&self) -> u64 {
        self.common.number
    }

    /// Every invalidation up to this sequence has been applied here.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// From now on, invalidations of these tags are remembered for as long as the interest is held.
    pub fn interest(&self, tags: &[Tag]) -> Interest {
        let tags = tags.iter().map(|tag| Watched::new(self.tags.state(tag.as_str()))).collect();
        Interest { generation: self.number(), heard_of_all: self.common.all.heard(), tags }
    }

    /// A stamp for what was read as of sequence `as_of`: with the tags of `interest`, taken before the
    /// reading, and with `learned` ones, which the reading brought to light.
    ///
    /// `None` if so much was invalidated meanwhile that an invalidation of a learned tag may have been
    /// forgotten.
    pub fn stamp<'t>(
        &self,
        interest: &Interest,
        learned: impl IntoIterator<Item = &'t str>,
        as_of: u64,
    ) -> Option<Stamp> {
        let mut tags: Vec<_> = interest.tags.iter().map(|tag| Arc::clone(&tag.state)).collect();
        let known = tags.len();
        tags.extend(learned.into_iter().map(|tag| self.tags.state(tag)));
        if tags.len() > known {
            // Looked at after the states were taken: what was heard before is still in `recent`, which
            // keeps its state alive; what is heard from now on meets the state just taken.
            if self.floor.load(Ordering::Acquire) > as_of {
                return None;
            }
        }
        Some(Stamp { common: Arc::clone(&self.common), as_of, tags: tags.into() })
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

    /// Everything that the journal has below this position was heard.
    pub fn read_up_to(&self, horizon: u64) {
        self.horizon.fetch_max(horizon, Ordering::AcqRel);
    }

    /// What must be passed over so that nothing older than the token's write is served.
    pub fn required_by(&self, token: &Token) -> Required {
        if let Some(position) = token.position() {
            let heard = position < self.horizon.load(Ordering::Acquire);
            return if heard { Required::Nothing } else { Required::Load };
        }
        match &self.source {
            Source::Shared(_) if token.epoch() == self.epoch => {
                if token.sequence() <= self.applied() {
                    Required::Nothing
                } else {
                    Required::L2
                }
            }
            // The process hears of its own writes before they are acknowledged.
            Source::Local | Source::Journal if token.epoch() == self.epoch => Required::Nothing,
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
            if tag.as_str() == Tag::ALL {
                self.common.all.hear(sequence);
            }
            let state = self.tags.state(tag.as_str());
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
#[derive(Debug, Clone)]
pub struct Interest {
    generation: u64,
    /// What had been heard of the tag that everything has, which each generation holds itself: were it held here, all
    /// threads would count references in its place all the time.
    heard_of_all: u64,
    tags: Arc<[Watched]>,
}

/// One of them.
#[derive(Debug)]
struct Watched {
    state: Arc<TagState>,
    /// As of when it was watched.
    heard: u64,
}

impl Watched {
    fn new(state: Arc<TagState>) -> Self {
        let heard = state.heard();
        Self { state, heard }
    }
}

impl Interest {
    /// Nothing was heard of these tags since: a load begun for this serves whoever comes now.
    pub fn holds_in(&self, present: &Generation) -> bool {
        self.generation == present.number()
            && self.heard_of_all == present.common.all.heard()
            && self.tags.iter().all(|tag| tag.state.heard() == tag.heard)
    }

    /// It was taken in a generation after this one.
    pub fn is_newer_than(&self, generation: &Generation) -> bool {
        self.generation > generation.number()
    }

    /// Nothing was heard of these tags between the two: a load begun for `self` serves `later` too.
    pub fn still_serves(&self, later: &Self) -> bool {
        let heard = self.tags.iter().map(|tag| tag.heard);
        self.generation == later.generation
            && self.heard_of_all == later.heard_of_all
            && heard.eq(later.tags.iter().map(|tag| tag.heard))
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

/// The states of all tags that something depends on, by a hash of their names, which are much longer. Should two names
/// ever share one, then to invalidate one is to invalidate both, which costs a load.
#[derive(Default)]
struct Registry {
    shards: Sharded<Shard>,
    hasher: RandomState,
}

struct Shard {
    states: HashMap<u64, Weak<TagState>, RandomState>,
    sweep_at: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { states: HashMap::default(), sweep_at: 1024 }
    }
}

impl Registry {
    fn state(&self, tag: &str) -> Arc<TagState> {
        let name = self.hasher.hash_one(tag);
        let mut shard = self.shards.of(&name);
        if let Some(state) = shard.states.get(&name).and_then(Weak::upgrade) {
            return state;
        }
        if shard.states.len() >= shard.sweep_at {
            shard.states.retain(|_, state| state.strong_count() > 0);
            shard.sweep_at = (shard.states.len() * 2).max(1024);
        }
        let state = Arc::new(TagState::default());
        shard.states.insert(name, Arc::downgrade(&state));
        state
    }
}
