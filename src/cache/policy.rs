//! How long a kind of data is kept.

use std::time::Duration;

use super::stats::KindStats;

/// Times to live of one kind of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// In the process. Bounds memory, never staleness.
    pub l1: Duration,
    /// In Redis.
    pub l2: Duration,
    /// In either, of the knowledge that there is nothing.
    pub absent: Duration,
    /// How long entries may serve beyond their time while the database is away.
    pub fail_safe: Duration,
    /// Entries end with their time, whatever is written meanwhile: their tags do not cover all that they show. Whoever has
    /// a token gets past them.
    pub ends_by_time: bool,
}

/// One kind of data: its times and its numbers.
pub struct Policy {
    /// Name in metrics.
    pub kind: &'static str,
    times: Times,
    pub(super) stats: KindStats,
}

/// Part of a time to live that chance may take away, so that what was stored together does not end together.
const JITTER: f64 = 0.1;

impl Policy {
    pub(super) const fn new(kind: &'static str, times: Times, stats: KindStats) -> Self {
        Self { kind, times, stats }
    }

    /// See [`Times::ends_by_time`].
    pub(super) const fn ends_by_time(&self) -> bool {
        self.times.ends_by_time
    }

    /// Life in L1 of something found (or known to be absent); never longer than L2 would keep it.
    pub(super) fn l1_life(&self, absent: bool, l2_left: Duration) -> Duration {
        let life = if absent { self.times.l1.min(self.times.absent) } else { self.times.l1 };
        jittered(life).min(l2_left)
    }

    /// See [`Times::fail_safe`].
    pub(super) const fn fail_safe(&self) -> Duration {
        self.times.fail_safe
    }

    pub(super) fn l2_life(&self, absent: bool) -> Duration {
        jittered(if absent { self.times.l2.min(self.times.absent) } else { self.times.l2 })
    }
}

fn jittered(life: Duration) -> Duration {
    life.mul_f64(1.0 - JITTER * rand::random::<f64>())
}
