//! L1: moka in this process, bounded by bytes.
//!
//! Knows nothing of freshness: what it returns must be judged before it is served, by its time too. Entries know when they
//! are not here any more: see [`Entry::is_settled`].

use std::{sync::Arc, time::Instant};

use moka::{policy::EvictionPolicy, sync::Cache};
use wildmatch::WildMatch;

use super::{
    entry::Entry,
    key::{KeptKey, Key},
};
use crate::sharded::RandomState;

pub(super) struct L1 {
    /// Without any time to live of moka's own, which each look would have to reckon with; see [`L1::remove_ended`].
    entries: Cache<KeptKey, Arc<Entry>, RandomState>,
}

impl L1 {
    pub(super) fn new(max_bytes: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &KeptKey, entry: &Arc<Entry>| entry.bytes.saturating_add(key.bytes_apart()))
            // By frequency, old entries that are no use any more would keep new ones out.
            .eviction_policy(EvictionPolicy::lru())
            // For whatever reason, and also if another takes its place: whoever holds it learns that it is not here.
            .eviction_listener(|_, entry: Arc<Entry>, _| entry.drop_from_l1())
            .build_with_hasher(RandomState::default());
        Self { entries }
    }

    /// Takes out what is of no use any more, not even while the database is away. Looks at all entries.
    pub(super) fn remove_ended(&self, now: Instant) {
        for (key, _) in self.entries.iter().filter(|(_, entry)| !entry.times.is_usable(now)) {
            // One that was replaced at this moment costs a load.
            self.entries.invalidate(&*key);
        }
        self.entries.run_pending_tasks();
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn put(&self, key: Key, entry: Arc<Entry>) {
        self.entries.insert(key.into(), entry);
    }

    /// Takes out all entries whose keys match one of these patterns. Returns how many.
    pub(super) fn remove_matching(&self, patterns: &[WildMatch]) -> usize {
        let matching = self.entries.iter().map(|(key, _)| key).filter(|key| {
            let text = key.key().to_string();
            patterns.iter().any(|pattern| pattern.matches(&text))
        });
        let matching: Vec<_> = matching.collect();
        matching.iter().for_each(|key| self.entries.invalidate(&**key));
        matching.len()
    }

    /// The entry whose key reads so. Looks at all of them.
    pub(super) fn find(&self, key: &str) -> Option<Arc<Entry>> {
        self.entries.iter().find(|(known, _)| known.key().to_string() == key).map(|(_, entry)| entry)
    }

    /// Entries and their bytes, as of moka's last housekeeping.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}
