//! L1: moka in this process, bounded by bytes.
//!
//! Knows nothing of freshness: what it returns must be judged before it is served, by its time too.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, policy::EvictionPolicy, sync::Cache};
use wildmatch::WildMatch;

use super::{entry::Entry, key::Key};

pub(super) struct L1 {
    entries: Cache<Key, Arc<Entry>>,
}

struct ByEntry;

impl Expiry<Key, Arc<Entry>> for ByEntry {
    fn expire_after_create(&self, _: &Key, entry: &Arc<Entry>, now: Instant) -> Option<Duration> {
        // Not its time to live, by which readers go: while the database is away it may be all there is.
        Some(entry.usable_until.saturating_duration_since(now))
    }

    /// A newer entry lives by its own time, not by what was left to the older one.
    fn expire_after_update(
        &self,
        key: &Key,
        entry: &Arc<Entry>,
        now: Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, now)
    }
}

impl L1 {
    pub(super) fn new(max_bytes: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|_, entry: &Arc<Entry>| entry.bytes)
            // By frequency, old entries that are no use any more would keep new ones out.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(ByEntry)
            .build();
        Self { entries }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn put(&self, key: Key, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    /// Takes out all entries whose keys match one of these patterns. Returns how many.
    pub(super) fn remove_matching(&self, patterns: &[WildMatch]) -> usize {
        let keys = self.entries.iter().map(|(key, _)| *key);
        let matching = keys.filter(|key| {
            let text = key.to_string();
            patterns.iter().any(|pattern| pattern.matches(&text))
        });
        let matching: Vec<_> = matching.collect();
        matching.iter().for_each(|key| self.entries.invalidate(key));
        matching.len()
    }

    /// The entry whose key reads so. Looks at all of them.
    pub(super) fn find(&self, key: &str) -> Option<Arc<Entry>> {
        self.entries.iter().find(|(known, _)| known.to_string() == key).map(|(_, entry)| entry)
    }

    /// Entries and their bytes, as of moka's last housekeeping.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}
