//! The cache's numbers, in the process's registry of metrics.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, Result,
};

use super::status::{Status, TierStatus};
use crate::metrics::busy::{BusyCounter, BusyCounterVec, BusyHistogram, BusyHistogramVec};

/// Numbers of the whole cache.
pub(super) struct Stats {
    pub(super) requests: BusyCounterVec,
    loads: IntCounterVec,
    load_seconds: HistogramVec,
    undecodable: IntCounterVec,
    oversized: IntCounterVec,
    soft_timeouts: IntCounterVec,
    refreshes: IntCounterVec,
    l2_bytes: BusyCounterVec,
    age_seconds: BusyHistogramVec,
    /// From sending an invalidation to hearing it on the bus.
    pub(super) bus_lag: BusLag,
    /// What the monitor has found, by tier and kind.
    pub(super) inconsistent: IntCounterVec,
    /// What came of its comparisons.
    pub(super) comparisons: IntCounterVec,
    pub(super) invalidations: IntCounterVec,
    /// Loss of trust, by cause.
    pub(super) distrusts: IntCounterVec,
    /// Entries in L1, and their bytes.
    pub(super) l1_entries: IntGauge,
    pub(super) l1_bytes: IntGauge,
    /// 1 while L1 may be used.
    pub(super) lease: IntGauge,
    /// 1 while Redis is not asked.
    pub(super) breaker_open: IntGauge,
}

/// Numbers of one kind of data, looked up once.
#[derive(Clone)]
pub(super) struct KindStats {
    l1: TierStats,
    l2: TierStats,
    pub(super) loaded: IntCounter,
    pub(super) load_failed: IntCounter,
    pub(super) load_seconds: Histogram,
    pub(super) undecodable: IntCounter,
    /// Values that L2 cannot keep.
    pub(super) oversized: IntCounter,
    /// Times that something older was served since the load took too long.
    pub(super) soft_timeouts: IntCounter,
    /// Entries renewed ahead of their end in L1.
    pub(super) refreshed_l1: IntCounter,
    /// In L2.
    pub(super) refreshed_l2: IntCounter,
    pub(super) l2_read_bytes: BusyCounter,
    pub(super) l2_written_bytes: BusyCounter,
    /// How old entries of L2 are when they are used.
    pub(super) age_seconds: BusyHistogram,
}

/// Measures how long the bus takes, by this process's own messages: no other clock is asked.
pub(super) struct BusLag {
    seconds: Histogram,
    under_way: Mutex<VecDeque<(u64, Instant)>>,
}

/// Messages waited for at once; more are not measured.
const UNDER_WAY: usize = 256;

impl BusLag {
    const fn new(seconds: Histogram) -> Self {
        Self { seconds, under_way: Mutex::new(VecDeque::new()) }
    }

    /// The message of this sequence was sent then, or came back then, perhaps before Redis has confirmed it: whichever is
    /// told second completes the measurement.
    pub(super) fn note(&self, sequence: u64, at: Instant) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = under_way.iter().position(|(known, _)| *known == sequence) {
            if let Some((_, other)) = under_way.remove(index) {
                let lag = at.saturating_duration_since(other).max(other.saturating_duration_since(at));
                self.seconds.observe(lag.as_secs_f64());
            }
            return;
        }
        under_way.push_back((sequence, at));
        if under_way.len() > UNDER_WAY {
            under_way.pop_front();
        }
    }
}

#[derive(Clone)]
struct TierStats {
    hit: BusyCounter,
    fail_safe: BusyCounter,
    miss: BusyCounter,
    stale: BusyCounter,
    collapsed: BusyCounter,
    bypass: BusyCounter,
    error: BusyCounter,
}

impl Stats {
    pub(super) fn register(registry: &Registry) -> Result<Self> {
        let requests = Opts::new("lockstep_cache_requests_total", "Reads, by tier, kind of data and result.");
        let loads =
            Opts::new("lockstep_cache_loads_total", "Loads from PostgreSQL, by kind of data and result.");
        let seconds = HistogramOpts::new("lockstep_cache_load_duration_seconds", "How long loads took.")
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]);
        let undecodable = Opts::new("lockstep_cache_undecodable_total", "L2 entries that could not be read.");
        let oversized = Opts::new("lockstep_cache_oversized_total", "Values served and not stored in L2.");
        let soft = Opts::new(
            "lockstep_cache_soft_timeouts_total",
            "Loads that took so long that something older was served.",
        );
        let refreshes =
            Opts::new("lockstep_cache_refreshes_total", "Entries renewed ahead of their end, by tier.");
        let l2_bytes = Opts::new("lockstep_cache_l2_bytes_total", "Bytes of entries, by direction.");
        let age = HistogramOpts::new("lockstep_cache_entry_age_seconds", "Age of L2 entries that were used.")
            .buckets(vec![0.1, 1.0, 5.0, 15.0, 60.0, 120.0, 300.0, 600.0, 900.0, 3600.0]);
        let lag = HistogramOpts::new(
            "lockstep_cache_bus_lag_seconds",
            "From sending an invalidation to hearing it on the bus.",
        )
        .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]);
        let inconsistent = Opts::new(
            "lockstep_cache_inconsistent_total",
            "Times that a tier was found to answer otherwise than the database. Must stay 0.",
        );
        let comparisons =
            Opts::new("lockstep_cache_comparisons_total", "Comparisons of the monitor, by kind and result.");
        let invalidations =
            Opts::new("lockstep_cache_invalidations_total", "Invalidations of tags applied here, by source.");
        let distrusts =
            Opts::new("lockstep_cache_distrusts_total", "Times that all of L1 was given up, by cause.");
        let stats = Self {
            requests: BusyCounterVec::new(requests, &["tier", "kind", "result"])?,
            loads: IntCounterVec::new(loads, &["kind", "result"])?,
            load_seconds: HistogramVec::new(seconds, &["kind"])?,
            undecodable: IntCounterVec::new(undecodable, &["kind"])?,
            inconsistent: IntCounterVec::new(inconsistent, &["tier", "kind"])?,
            comparisons: IntCounterVec::new(comparisons, &["kind", "result"])?,
            oversized: IntCounterVec::new(oversized, &["kind"])?,
            soft_timeouts: IntCounterVec::new(soft, &["kind"])?,
            refreshes: IntCounterVec::new(refreshes, &["tier", "kind"])?,
            l2_bytes: BusyCounterVec::new(l2_bytes, &["direction", "kind"])?,
            age_seconds: BusyHistogramVec::new(age, &["kind"])?,
            bus_lag: BusLag::new(Histogram::with_opts(lag)?),
            invalidations: IntCounterVec::new(invalidations, &["source"])?,
            distrusts: IntCounterVec::new(distrusts, &["cause"])?,
            l1_entries: IntGauge::new("lockstep_cache_l1_entries", "Entries in L1.")?,
            l1_bytes: IntGauge::new("lockstep_cache_l1_bytes", "Bytes of the entries in L1.")?,
            lease: IntGauge::new("lockstep_cache_lease", "1 while L1 may be used.")?,
            breaker_open: IntGauge::new("lockstep_cache_breaker_open", "1 while Redis is not asked.")?,
        };
        registry.register(Box::new(stats.requests.clone()))?;
        registry.register(Box::new(stats.loads.clone()))?;
        registry.register(Box::new(stats.load_seconds.clone()))?;
        registry.register(Box::new(stats.undecodable.clone()))?;
        registry.register(Box::new(stats.invalidations.clone()))?;
        registry.register(Box::new(stats.distrusts.clone()))?;
        registry.register(Box::new(stats.l1_entries.clone()))?;
        registry.register(Box::new(stats.l1_bytes.clone()))?;
        registry.register(Box::new(stats.lease.clone()))?;
        registry.register(Box::new(stats.breaker_open.clone()))?;
        registry.register(Box::new(stats.oversized.clone()))?;
        registry.register(Box::new(stats.inconsistent.clone()))?;
        registry.register(Box::new(stats.comparisons.clone()))?;
        registry.register(Box::new(stats.soft_timeouts.clone()))?;
        registry.register(Box::new(stats.refreshes.clone()))?;
        registry.register(Box::new(stats.l2_bytes.clone()))?;
        registry.register(Box::new(stats.age_seconds.clone()))?;
        registry.register(Box::new(stats.bus_lag.seconds.clone()))?;
        Ok(stats)
    }

    pub(super) fn kind(&self, kind: &str) -> KindStats {
        let tier = |tier| {
            let result = |result| self.requests.with_label_values(&[tier, kind, result]);
            TierStats {
                hit: result("hit"),
                fail_safe: result("fail_safe"),
                miss: result("miss"),
                stale: result("stale"),
                collapsed: result("collapsed"),
                bypass: result("bypass"),
                error: result("error"),
            }
        };
        for tier in ["l1", "l2"] {
            // Shown although it is nothing.
            let _ = self.inconsistent.with_label_values(&[tier, kind]);
        }
        KindStats {
            l1: tier("l1"),
            l2: tier("l2"),
            loaded: self.loads.with_label_values(&[kind, "ok"]),
            load_failed: self.loads.with_label_values(&[kind, "error"]),
            load_seconds: self.load_seconds.with_label_values(&[kind]),
            undecodable: self.undecodable.with_label_values(&[kind]),
            oversized: self.oversized.with_label_values(&[kind]),
            soft_timeouts: self.soft_timeouts.with_label_values(&[kind]),
            refreshed_l1: self.refreshes.with_label_values(&["l1", kind]),
            refreshed_l2: self.refreshes.with_label_values(&["l2", kind]),
            l2_read_bytes: self.l2_bytes.with_label_values(&["read", kind]),
            l2_written_bytes: self.l2_bytes.with_label_values(&["written", kind]),
            age_seconds: self.age_of(kind),
        }
    }

    /// How old entries of a kind are, for one thread.
    pub(super) fn age_of(&self, kind: &str) -> BusyHistogram {
        self.age_seconds.part(&[kind])
    }

    pub(super) fn invalidated(&self, source: &str, tags: usize) {
        self.invalidations.with_label_values(&[source]).inc_by(u64::try_from(tags).unwrap_or_default());
    }
}

impl KindStats {
    /// The same for another thread, which has its own view of ages.
    pub(super) fn share(&self, age_seconds: BusyHistogram) -> Self {
        Self { age_seconds, ..self.clone() }
    }

    /// Counts a read in each tier that it met.
    pub(super) fn count(&self, status: &Status) {
        if status.collapsed {
            let tier = if status.l1 == TierStatus::Unused { &self.l2 } else { &self.l1 };
            return tier.collapsed.inc();
        }
        self.l1.count(status.l1);
        self.l2.count(status.l2);
    }

    /// Counts a read that L1 has answered.
    pub(super) fn l1_hit(&self) {
        self.l1.hit.inc();
    }
}

impl TierStats {
    fn count(&self, status: TierStatus) {
        match status {
            TierStatus::Unused => {}
            TierStatus::Hit(_) => self.hit.inc(),
            TierStatus::FailSafe(_) => self.fail_safe.inc(),
            TierStatus::Miss => self.miss.inc(),
            TierStatus::Stale => self.stale.inc(),
            TierStatus::NoLease | TierStatus::Request => self.bypass.inc(),
            TierStatus::Unavailable => self.error.inc(),
        }
    }
}
