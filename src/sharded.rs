//! State in parts, each behind a lock of its own, so that those who ask for different things seldom wait for each other.
//! Locks are held for a look at memory, never over I/O.

use std::{
    hash::{BuildHasher, Hash},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub(crate) use foldhash::quality::RandomState;

/// How many parts there are.
pub(crate) const SHARDS: usize = 16;

/// So many of a kind, of which a key chooses one.
pub(crate) struct Sharded<T> {
    shards: [Mutex<T>; SHARDS],
    /// Seeded anew in each process, and quicker than that of the standard library, which every request would feel.
    hasher: RandomState,
}

impl<T> Sharded<T> {
    pub(crate) fn new(shard: impl Fn() -> T) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(shard())), hasher: RandomState::default() }
    }

    /// The part that is a key's, always the same.
    pub(crate) fn of(&self, key: &impl Hash) -> MutexGuard<'_, T> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of the hash will do")]
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "the index is below SHARDS")]
        lock(&self.shards[index])
    }

    /// Every part, one after another.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.shards.iter().map(lock)
    }
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

/// What a panic elsewhere has left is whole: nothing that is done under these locks panics half-way.
fn lock<T>(shard: &Mutex<T>) -> MutexGuard<'_, T> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
