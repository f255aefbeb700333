//! When this process may believe its own memory: generations and the lease.
//!
//! **Invariant.** An entry is served from L1 only if it is provably no older than every invalidation
//! this process has heard of, and this process has, within the last second, proved that it had heard of
//! all there were.
//!
//! * When trust is lost (a gap in the sequence, a new connection, another epoch), a new [`Generation`] begins:
//!   entries of the old one never count again, nor do its loads under way.
//! * The lease is the time until which the present generation may be believed; see [`Trust::renew_lease`].
//! * What this process has changed and could not announce is kept until it was, and no shared generation begins
//!   before.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{
    generation::{Beginning, Generation, Source, Stamp},
    key::Tag,
};

/// How long a proof of having heard everything lasts.
pub const LEASE: Duration = Duration::from_secs(1);

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
            present: ArcSwap::from_pointee(Generation::new(0, Beginning::UNTRUSTED)),
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

    /// Whether it is still this one.
    pub fn is_present(&self, generation: &Arc<Generation>) -> bool {
        // Not by its number, which becomes another a moment later.
        Arc::ptr_eq(&self.present.load(), generation)
    }

    /// Begins a generation without a lease. `None`: it is shared, and something of this process is unannounced. That has
    /// to be done first, and the sequence asked for again, since what L2 holds may be older.
    pub fn begin(&self, beginning: Beginning) -> Option<Arc<Generation>> {
        let unannounced = self.transition();
        let may_begin = unannounced.is_empty() || !matches!(beginning.source, Source::Shared(_));
        may_begin.then(|| self.replace(beginning))
    }

    /// Takes what is to be announced. Whoever cannot do it [puts it back](Self::put_back_unannounced).
    pub fn take_unannounced(&self) -> Vec<Tag> {
        std::mem::take(&mut *self.transition()).into_iter().collect()
    }

    /// It could not be announced.
    pub fn put_back_unannounced(&self, tags: Vec<Tag>) {
        remember(&mut self.transition(), tags);
    }

    /// Begins a generation that stands in for a better one, without a lease. `None`: there is a better one, or it is not
    /// known that there is none.
    pub fn stand_in(&self, beginning: Beginning) -> Option<Arc<Generation>> {
        let _transition = self.transition();
        let is_needed = matches!(self.present.load().source, Source::Untrusted);
        is_needed.then(|| self.replace(beginning))
    }

    /// Remembers what could not be announced, until a shared generation is to begin. `false`: the generation is over,
    /// and the present one has to be told.
    pub fn leave_unannounced(&self, generation: &Generation, tags: &[Tag]) -> bool {
        let mut unannounced = self.transition();
        if self.number.load(Ordering::Acquire) != generation.number() {
            return false;
        }
        remember(&mut unannounced, tags.iter().cloned());
        true
    }

    /// Ends trust, if the present generation is still the one in which it was lost.
    pub fn distrust(&self, lost: &Generation) {
        let _transition = self.transition();
        if self.number.load(Ordering::Acquire) == lost.number() {
            self.replace(Beginning::UNTRUSTED);
        }
    }

    fn replace(&self, beginning: Beginning) -> Arc<Generation> {
        let number = self.number.load(Ordering::Acquire) + 1;
        let generation = Arc::new(Generation::new(number, beginning));
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
        if self.number.load(Ordering::Acquire) == generation.number() {
            self.lease_until_ns.fetch_max(nanoseconds(until), Ordering::AcqRel);
        }
    }

    /// A lease without end, for a process that is alone with its database.
    pub fn renew_lease_for_ever(&self, generation: &Generation) {
        let _transition = self.transition();
        if self.number.load(Ordering::Acquire) == generation.number() {
            self.lease_until_ns.store(u64::MAX, Ordering::Release);
        }
    }

    /// Whether L1 may be used.
    pub fn has_lease(&self) -> bool {
        self.has_lease_at(Instant::now())
    }

    /// The same for whoever has just looked at the time.
    pub(super) fn has_lease_at(&self, now: Instant) -> bool {
        nanoseconds(now.saturating_duration_since(self.origin)) < self.lease_until_ns.load(Ordering::Acquire)
    }

    /// Whether a value with this stamp may be served from L1.
    pub fn judge(&self, stamp: &Stamp) -> Verdict {
        self.judge_at(stamp, Instant::now())
    }

    /// The same for whoever has just looked at the time.
    pub fn judge_at(&self, stamp: &Stamp, now: Instant) -> Verdict {
        // The lease first: seen afterwards, it might be one that was renewed because of what the tags had not yet heard.
        let has_lease = self.has_lease_at(now);
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
        stamp.is_current(self.number.load(Ordering::Acquire))
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self::new()
    }
}

fn remember(unannounced: &mut BTreeSet<Tag>, tags: impl IntoIterator<Item = Tag>) {
    unannounced.extend(tags);
    if unannounced.len() > MANY_UNANNOUNCED {
        *unannounced = BTreeSet::from([Tag::all()]);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
