//! How long a kind of data is kept, and how it is renewed.

use std::time::Duration;

use super::stats::{KindStats, Stats};

/// The rules of one kind of data. Times to live bound memory, never staleness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyOptions {
    /// Time to live in the process.
    pub l1: Duration,
    /// In Redis.
    pub l2: Duration,
    /// In either, of the knowledge that there is nothing.
    pub absent: Duration,
    /// Percentage of a time to live that chance may take away, so that what was stored together does not end together.
    pub jitter: u8,
    /// How long entries may serve beyond their time while the database is away.
    pub fail_safe: Duration,
    /// Percentage of its life after which an entry that is asked for is renewed behind; 100 or more: never.
    pub refresh_at: u8,
    /// How long a load may take while there is something older to serve. It then goes on behind.
    pub soft: Duration,
    /// How long a load may take at all.
    pub hard: Duration,
    /// Entries end with their time, whatever is written meanwhile: their tags do not cover all that they show. Whoever has
    /// a token gets past them.
    pub ends_by_time: bool,
}

impl PolicyOptions {
    /// What is usual, for data that lives so long.
    #[must_use]
    pub const fn new(l1: Duration, l2: Duration) -> Self {
        Self {
            l1,
            l2,
            absent: Duration::from_secs(30),
            jitter: 10,
            fail_safe: Duration::from_secs(60 * 60),
            refresh_at: 80,
            soft: Duration::from_secs(1),
            hard: Duration::from_secs(10),
            ends_by_time: false,
        }
    }
}

/// One kind of data: its rules and its numbers.
pub struct Policy {
    /// Name in metrics.
    pub kind: &'static str,
    pub(super) options: PolicyOptions,
    pub(super) stats: KindStats,
}

impl Policy {
    pub(super) const fn new(kind: &'static str, options: PolicyOptions, stats: KindStats) -> Self {
        Self { kind, options, stats }
    }

    /// The same with other rules. Counts with the other.
    #[must_use]
    pub fn with(&self, change: impl FnOnce(&mut PolicyOptions)) -> Self {
        let mut options = self.options;
        change(&mut options);
        Self { kind: self.kind, options, stats: self.stats.clone() }
    }

    /// The same for another thread, which counts by itself.
    pub(super) fn share(&self, stats: &Stats) -> Self {
        Self { stats: self.stats.share(stats.age_of(self.kind)), ..*self }
    }

    /// Life in L1 of something found (or known to be absent); never longer than L2 would keep it.
    pub(super) fn l1_life(&self, absent: bool, l2_left: Duration) -> Duration {
        let PolicyOptions { l1, absent: of_absent, .. } = self.options;
        self.jittered(if absent { l1.min(of_absent) } else { l1 }).min(l2_left)
    }

    /// Life in L2.
    pub(super) fn l2_life(&self, absent: bool) -> Duration {
        let PolicyOptions { l2, absent: of_absent, .. } = self.options;
        self.jittered(if absent { l2.min(of_absent) } else { l2 })
    }

    /// When something that lives for so long is to be renewed if it is asked for. `None`: never.
    pub(super) fn refresh_after(&self, life: Duration) -> Option<Duration> {
        let refresh_at = self.options.refresh_at;
        (refresh_at < 100).then(|| life * u32::from(refresh_at) / 100)
    }

    /// What is left of an entry's life in L2 when it is to be renewed; zero: never.
    pub(super) fn refresh_below(&self) -> Duration {
        self.refresh_after(self.options.l2).map_or(Duration::ZERO, |after| self.options.l2 - after)
    }

    fn jittered(&self, life: Duration) -> Duration {
        let most = f64::from(self.options.jitter.min(100)) / 100.0;
        life.mul_f64(1.0 - most * rand::random::<f64>())
    }
}
