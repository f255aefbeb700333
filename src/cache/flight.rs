//! Single flight: one load per key at a time in this process, and one look into L2 in each share of the cache. To look
//! takes less time than to wake another thread, so no thread waits for what another only looks for.
//!
//! **Invariant.** A reader never receives a value from a load that began before an invalidation that this process
//! had heard of when the reader came. Two checks see to it: a reader joins only a flight of the same generation
//! for whose tags nothing was heard since, and what the first flight brings is judged again on arrival (the reader
//! does this), because it may have tags that were not known before. A flight that is joined after that began
//! after the reader came, so that whatever it brings is new enough, and a storm of invalidations causes no more loads
//! than one after the other.
//!
//! Readers of a share wait for a flight of their own, which waits for that of the process where something has to be loaded
//! (see [`super::join`]). What it brings was then judged on arrival by its leader, or is of a load that began after he did;
//! and it counts as no younger than the load that it waits for.
//!
//! A flight does not depend on anybody: a reader that goes away stops nothing (see [`InPlace`]), and a load that panics
//! ends its flight, which wakes those who wait.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, Hasher},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::sync::SetOnce;

use super::{
    Cache, LoadError,
    entry::Entry,
    generation::{Generation, Interest, Required},
    key::Key,
    status::Status,
    trust::{LEASE, Trust},
};
use crate::{
    sharded::{RandomState, Sharded, Share},
    telemetry::in_this_request,
};

/// What a load brought.
pub(super) type Landing = Result<(Arc<Entry>, Status), LoadError>;

/// A flight's end, once it has come. `None`: it ended without a landing.
pub(super) type End = Arc<SetOnce<Option<Landing>>>;

/// The flights under way, by key.
#[derive(Clone)]
pub(super) struct Flights(Share<Table>);

#[derive(Default)]
struct Table {
    shards: Sharded<HashMap<HashedKey, Flight, RandomState>>,
    hasher: RandomState,
}

/// A key with its hash: to work it out takes longer than all else that is done with it here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct HashedKey {
    hash: u64,
    key: Key,
}

impl HashedKey {
    pub(super) const fn key(&self) -> Key {
        self.key
    }
}

impl Hash for HashedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

struct Flight {
    interest: Interest,
    depth: Required,
    began: Instant,
    end: End,
}

/// A flight under way that serves.
pub(super) struct Joined {
    pub(super) end: End,
    began: Instant,
}

/// What a reader is to do.
pub(super) enum Boarding {
    /// Load, and tell the others.
    Lead(Leader),
    /// Wait for the load that is under way.
    Join(Joined),
}

/// The right and the duty to load. When dropped, with or without a landing, the flight is over.
pub(super) struct Leader {
    flights: Flights,
    key: HashedKey,
    end: End,
}

impl Default for Flights {
    fn default() -> Self {
        Self(Share::new(Arc::default()))
    }
}

impl Flights {
    /// The same for another share of the cache.
    pub(super) fn another(&self) -> Self {
        Self(self.0.another())
    }

    /// The flight for `key` that is under way, if it serves. It does if nothing was heard of its tags since it began, if it
    /// reaches as deep as is `required`, and, without a lease, where hearing cannot be relied on, if it began within the time
    /// of one.
    pub(super) fn join(
        &self,
        key: &HashedKey,
        generation: &Generation,
        required: Required,
        trust: &Trust,
    ) -> Option<Joined> {
        let flights = self.0.shards.of(key);
        flights.get(key)?.joined(generation, required, trust, Instant::now())
    }

    /// The same, and begins one if there is none. It takes the place of one that does not serve, unless that is of a newer
    /// generation: then nobody can join it.
    pub(super) fn board(
        &self,
        key: HashedKey,
        generation: &Generation,
        interest: &Interest,
        required: Required,
        trust: &Trust,
    ) -> Boarding {
        let began = Instant::now();
        let mut flights = self.0.shards.of(&key);
        let there = flights.get(&key);
        if let Some(joined) = there.and_then(|flight| flight.joined(generation, required, trust, began)) {
            return Boarding::Join(joined);
        }
        let end = End::default();
        if there.is_none_or(|flight| !flight.interest.is_newer_than(generation)) {
            let (interest, end) = (interest.clone(), Arc::clone(&end));
            flights.insert(key, Flight { interest, depth: required, began, end });
        }
        Boarding::Lead(Leader { flights: self.clone(), key, end })
    }

    /// To be asked for once by whoever looks several times.
    pub(super) fn hashed(&self, key: Key) -> HashedKey {
        HashedKey { hash: self.0.hasher.hash_one(key), key }
    }
}

impl Flight {
    /// This flight, if it serves.
    fn joined(
        &self,
        generation: &Generation,
        required: Required,
        trust: &Trust,
        now: Instant,
    ) -> Option<Joined> {
        // The lease first, as for entries: see `Trust::judge_at`.
        let is_heard_of = trust.has_lease_at(now) || now.saturating_duration_since(self.began) < LEASE;
        let serves = is_heard_of && self.interest.holds_in(generation) && self.depth >= required;
        serves.then(|| Joined { end: Arc::clone(&self.end), began: self.began })
    }
}

impl Leader {
    /// For the reader on whose behalf the flight was begun.
    pub(super) fn passenger(&self) -> End {
        Arc::clone(&self.end)
    }

    /// It will end with what the other brings: from now on it counts as no younger.
    pub(super) fn wait_for(&self, other: &Joined) {
        let mut flights = self.flights.0.shards.of(&self.key);
        if let Some(flight) = flights.get_mut(&self.key).filter(|flight| Arc::ptr_eq(&flight.end, &self.end))
        {
            flight.began = flight.began.min(other.began);
        }
    }

    /// Ends the flight with its result. By then the tiers have it, so that whoever comes next needs no flight.
    pub(super) fn land(self, landing: Landing) {
        self.leave();
        // Nobody else sets it before the leader is dropped, which comes now.
        let _ = self.end.set(Some(landing));
    }

    /// From now on nobody joins it.
    pub(super) fn leave(&self) {
        let mut flights = self.flights.0.shards.of(&self.key);
        // A newer flight may have taken the place.
        if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(&flight.end, &self.end)) {
            flights.remove(&self.key);
        }
    }
}

/// Leads a load of this process, for which the readers of one share wait by a flight of their own.
pub(super) struct Leaders {
    pub(super) of_process: Leader,
    pub(super) of_share: Leader,
}

impl Leaders {
    /// Ends both flights.
    pub(super) fn land(self, landing: Landing) {
        self.of_process.land(landing.clone());
        self.of_share.land(landing);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.end.initialized() {
            self.leave();
            let _ = self.end.set(None);
        }
    }
}

/// What a reader does for all who wait, in his own task, so that no other thread has to be woken for it. If he goes away
/// before its end, it goes on on the main runtime.
pub(super) struct InPlace<F: Future<Output = ()> + Send + 'static> {
    work: Option<Pin<Box<F>>>,
    cache: Arc<Cache>,
}

impl<F: Future<Output = ()> + Send + 'static> InPlace<F> {
    pub(super) fn new(work: F, cache: &Arc<Cache>) -> Self {
        Self { work: Some(Box::pin(work)), cache: Arc::clone(cache) }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Future for InPlace<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Taken out meanwhile: work that has panicked does not go on.
        if let Some(mut work) = self.work.take()
            && work.as_mut().poll(context).is_pending()
        {
            self.work = Some(work);
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl<F: Future<Output = ()> + Send + 'static> Drop for InPlace<F> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.cache.main.spawn(in_this_request(work));
        }
    }
}

/// Waits for a flight's end. `None`: it ended without a landing.
pub(super) async fn landed(flight: End) -> Option<Landing> {
    flight.wait().await.clone()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cache::generation::{Beginning, Source};

    #[test]
    fn a_flight_of_an_old_generation_takes_no_place_of_one_of_the_present() {
        let (flights, trust) = (Flights::default(), Trust::new());
        let begin = || {
            let beginning = Beginning { source: Source::Local, epoch: 1, applied: 0, horizon: 0 };
            trust.begin(beginning).unwrap()
        };
        let [old, present] = [begin(), begin()];
        trust.renew_lease_for_ever(&present);
        let key = flights.hashed(Key::new("row", Uuid::nil(), 1));
        let board = |generation: &Generation| {
            flights.board(key, generation, &generation.interest(&[]), Required::Nothing, &trust)
        };
        let joins = || flights.join(&key, &present, Required::Nothing, &trust).is_some();
        let Boarding::Lead(first) = board(&old) else { panic!("there was none before") };
        let Boarding::Lead(leader) = board(&present) else { panic!("of another generation") };
        assert!(joins(), "it has taken the place of the old one");
        let Boarding::Lead(late) = board(&old) else { panic!("of another generation") };
        assert!(joins());
        drop((first, late));
        assert!(joins(), "whoever ends takes out his own");
        drop(leader);
        assert!(!joins());
    }
}
