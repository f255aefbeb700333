//! The cache's numbers, in the process's registry of metrics.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, Result,
};

use super::status::{Status, TierStatus};

/// Numbers of the whole cache.
pub(super) struct Stats {
    pub(super) requests: IntCounterVec,
    loads: IntCounterVec,
    load_seconds: HistogramVec,
    undecodable: IntCounterVec,
    pub(super) invalidations: IntCounterVec,
    /// Loss of trust, by cause.
    pub(super) distrusts: IntCounterVec,
    /// Entries in L1, and their bytes.
    pub(super) l1_entries: IntGauge,
    pub(super) l1_bytes: IntGauge,
    /// 1 while L1 may be used.
    pub(super) lease: IntGauge,
}

/// Numbers of one kind of data, looked up once.
pub(super) struct KindStats {
    l1: TierStats,
    l2: TierStats,
    pub(super) loaded: IntCounter,
    pub(super) load_failed: IntCounter,
    pub(super) load_seconds: Histogram,
    pub(super) undecodable: IntCounter,
}

struct TierStats {
    hit: IntCounter,
    fail_safe: IntCounter,
    miss: IntCounter,
    stale: IntCounter,
    collapsed: IntCounter,
    bypass: IntCounter,
    error: IntCounter,
}

impl Stats {
    pub(super) fn register(registry: &Registry) -> Result<Self> {
        let requests = Opts::new("lockstep_cache_requests_total", "Reads, by tier, kind of data and result.");
        let loads =
            Opts::new("lockstep_cache_loads_total", "Loads from PostgreSQL, by kind of data and result.");
        let seconds = HistogramOpts::new("lockstep_cache_load_duration_seconds", "How long loads took.")
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]);
        let undecodable = Opts::new("lockstep_cache_undecodable_total", "L2 entries that could not be read.");
        let invalidations =
            Opts::new("lockstep_cache_invalidations_total", "Invalidations of tags applied here, by source.");
        let distrusts =
            Opts::new("lockstep_cache_distrusts_total", "Times that all of L1 was given up, by cause.");
        let stats = Self {
            requests: IntCounterVec::new(requests, &["tier", "kind", "result"])?,
            loads: IntCounterVec::new(loads, &["kind", "result"])?,
            load_seconds: HistogramVec::new(seconds, &["kind"])?,
            undecodable: IntCounterVec::new(undecodable, &["kind"])?,
            invalidations: IntCounterVec::new(invalidations, &["source"])?,
            distrusts: IntCounterVec::new(distrusts, &["cause"])?,
            l1_entries: IntGauge::new("lockstep_cache_l1_entries", "Entries in L1.")?,
            l1_bytes: IntGauge::new("lockstep_cache_l1_bytes", "Bytes of the entries in L1.")?,
            lease: IntGauge::new("lockstep_cache_lease", "1 while L1 may be used.")?,
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
        KindStats {
            l1: tier("l1"),
            l2: tier("l2"),
            loaded: self.loads.with_label_values(&[kind, "ok"]),
            load_failed: self.loads.with_label_values(&[kind, "error"]),
            load_seconds: self.load_seconds.with_label_values(&[kind]),
            undecodable: self.undecodable.with_label_values(&[kind]),
        }
    }

    pub(super) fn invalidated(&self, source: &str, tags: usize) {
        self.invalidations.with_label_values(&[source]).inc_by(u64::try_from(tags).unwrap_or_default());
    }
}

impl KindStats {
    /// Counts a read in each tier that it met.
    pub(super) fn count(&self, status: &Status) {
        if status.collapsed {
            let tier = if status.l1 == TierStatus::Unused { &self.l2 } else { &self.l1 };
            return tier.collapsed.inc();
        }
        self.l1.count(status.l1);
        self.l2.count(status.l2);
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
