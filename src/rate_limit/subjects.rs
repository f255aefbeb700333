//! All who are limited, as far as they were here lately.
//!
//! Every request looks one up, so this is as plain as can be. Whoever has been idle for long is forgotten when there are
//! twice as many as there were left the last time: memory is bounded by how many come within that time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::subject::Subject;
use crate::sharded::{RandomState, Sharded};

/// Fewer are not worth looking through.
const FEW: usize = 256;

pub(super) struct Subjects {
    shards: Sharded<Shard>,
    idle: Duration,
}

struct Shard {
    /// With the time at which somebody was here last.
    known: HashMap<u128, (Arc<Subject>, Instant), RandomState>,
    sweep_at: usize,
}

impl Subjects {
    /// Who was idle for this long may be forgotten.
    pub(super) fn new(idle: Duration) -> Self {
        Self { shards: Sharded::new(|| Shard { known: HashMap::default(), sweep_at: FEW }), idle }
    }

    /// The one that is known, or a new one.
    pub(super) fn get(&self, id: u128, now: Instant, new: impl FnOnce() -> Subject) -> Arc<Subject> {
        let mut shard = self.shards.of(&id);
        if let Some((subject, last)) = shard.known.get_mut(&id) {
            *last = now;
            return Arc::clone(subject);
        }
        if shard.known.len() >= shard.sweep_at {
            shard.known.retain(|_, (_, last)| now.saturating_duration_since(*last) < self.idle);
            shard.sweep_at = (shard.known.len() * 2).max(FEW);
        }
        let subject = Arc::new(new());
        shard.known.insert(id, (Arc::clone(&subject), now));
        subject
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sharded::SHARDS;

    fn known(subjects: &Subjects) -> usize {
        subjects.shards.iter().map(|shard| shard.known.len()).sum()
    }

    #[test]
    fn who_was_here_lately_is_known_and_who_was_not_is_forgotten_in_time() {
        let (minute, now) = (Duration::from_secs(60), Instant::now());
        let subjects = Subjects::new(minute);
        let get = |id, at| subjects.get(id, at, || Subject::new(String::new(), 1, 1));
        let first = get(0, now);
        for id in 1..100_000 {
            get(id, now + Duration::from_millis(id as u64 * 10));
            assert!(Arc::ptr_eq(&first, &get(0, now + Duration::from_millis(id as u64 * 10))));
        }
        // 6,000 come within a minute.
        let left = known(&subjects);
        assert!((6_000..=2 * 6_000 + SHARDS * FEW).contains(&left), "{left}");
    }
}
