//! State in parts, each behind a lock of its own, so that those who ask for different things, or from different threads,
//! seldom wait for each other. Locks are held for a look at memory, never over I/O.

use std::{
    hash::{BuildHasher, Hash},
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix_web::http::header::{HeaderValue, InvalidHeaderValue};
use bytes::Bytes;
pub(crate) use foldhash::quality::RandomState;

/// How many parts there are.
pub(crate) const SHARDS: usize = 16;

/// So many of a kind, of which a key chooses one.
pub(crate) struct Sharded<T> {
    shards: [Apart<Mutex<T>>; SHARDS],
    /// Seeded anew in each process, and quicker than that of the standard library, which every request would feel.
    hasher: RandomState,
}

impl<T> Sharded<T> {
    pub(crate) fn new(shard: impl Fn() -> T) -> Self {
        Self { shards: std::array::from_fn(|_| Apart(Mutex::new(shard()))), hasher: RandomState::default() }
    }

    /// The part that is a key's, always the same.
    pub(crate) fn of(&self, key: &impl Hash) -> MutexGuard<'_, T> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS")]
        lock(&self.shards[index].0)
    }

    /// Every part, one after another.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.shards.iter().map(|shard| lock(&shard.0))
    }
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

/// How many parts there are for threads. They are given out in turn, also to threads that have ended since, so that two
/// may have the same.
const LANES: usize = 32;

/// One of a kind for each thread, or nearly so.
pub(crate) struct PerThread<T> {
    lanes: [Apart<T>; LANES],
}

/// Far enough from the others that threads do not take their memory away from each other.
#[repr(align(128))]
struct Apart<T>(T);

impl<T> PerThread<T> {
    pub(crate) fn new(lane: impl Fn() -> T) -> Self {
        Self { lanes: std::array::from_fn(|_| Apart(lane())) }
    }

    /// That of this thread.
    pub(crate) fn mine(&self) -> &T {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static LANE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % LANES;
        }
        #[expect(clippy::indexing_slicing, reason = "the index is below LANES")]
        &self.lanes[LANE.with(|lane| *lane)].0
    }

    /// Those of all threads.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.lanes.iter().map(|lane| &lane.0)
    }
}

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

/// Something that all threads have, as one of them holds it. Its clones are counted in a place of their own: where all count
/// in the same, they take it away from each other all the time.
pub(crate) struct Share<T>(Arc<Whole<T>>);

struct Whole<T>(Arc<T>);

impl<T> Share<T> {
    /// The first one, or another one of what others have already.
    pub(crate) fn new(whole: Arc<T>) -> Self {
        Self(Arc::new(Whole(whole)))
    }

    /// One that is counted apart from this.
    pub(crate) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.0.0))
    }
}

impl<T> Clone for Share<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Share<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// The value of a header that goes with every answer. It is kept for as long as the process lives, so that no thread has to
/// count who has it: to be made once for each setting, never for a request.
///
/// # Errors
/// When no header may hold the text.
pub(crate) fn lasting_header(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    // Looked at first: what no header may hold need not be kept.
    HeaderValue::from_str(text)?;
    HeaderValue::from_maybe_shared(Bytes::from_static(Box::leak(Box::<[u8]>::from(text.as_bytes()))))
}

/// What a panic elsewhere has left is whole: nothing that is done under these locks panics half-way.
pub(crate) fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
