//! Numbers that every request counts, on whichever thread. Each thread counts in memory of its own, for if all counted in
//! the same place, each would have to fetch it from the others first; when the numbers are asked for, they are added up.
//!
//! **Invariant.** Whoever asks is told all that was counted before he asked.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Result,
    core::{Collector, Desc},
    local::LocalHistogram,
    proto::MetricFamily,
};

use crate::sharded::{PerThread, lock};

/// Counters of one name, by their labels.
#[derive(Clone)]
pub struct BusyCounterVec {
    totals: IntCounterVec,
    counts: Arc<Counts>,
}

/// How many counters of one name have places of their own; what goes beyond is counted in one place.
const PLACES: usize = 256;

struct Counts {
    /// What was counted since it was last added up.
    places: PerThread<[AtomicU64; PLACES]>,
    /// To which totals it is added, in the order of the places.
    totals: Mutex<Vec<IntCounter>>,
}

/// One of them.
#[derive(Clone)]
pub struct BusyCounter {
    counts: Arc<Counts>,
    place: usize,
    total: IntCounter,
}

impl BusyCounterVec {
    /// Counters that differ in these labels.
    ///
    /// # Errors
    /// When the name or a label is none.
    pub fn new(opts: Opts, labels: &[&str]) -> Result<Self> {
        let places = PerThread::new(|| [const { AtomicU64::new(0) }; PLACES]);
        let counts = Counts { places, totals: Mutex::default() };
        Ok(Self { totals: IntCounterVec::new(opts, labels)?, counts: Arc::new(counts) })
    }

    /// The counter with these values of the labels, which is to be kept: each call takes a place.
    #[must_use]
    pub fn with_label_values(&self, values: &[&str]) -> BusyCounter {
        let total = self.totals.with_label_values(values);
        let mut totals = lock(&self.counts.totals);
        totals.push(total.clone());
        BusyCounter { counts: Arc::clone(&self.counts), place: totals.len() - 1, total }
    }
}

impl BusyCounter {
    /// Counts one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Counts so many.
    pub fn inc_by(&self, number: u64) {
        match self.counts.places.mine().get(self.place) {
            Some(place) => {
                place.fetch_add(number, Ordering::Relaxed);
            }
            None => self.total.inc_by(number),
        }
    }
}

impl Collector for BusyCounterVec {
    fn desc(&self) -> Vec<&Desc> {
        self.totals.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // One at a time, so that nobody finds what another has taken and not yet added.
        let totals = lock(&self.counts.totals);
        for places in self.counts.places.all() {
            for (place, total) in places.iter().zip(&*totals) {
                total.inc_by(place.swap(0, Ordering::Relaxed));
            }
        }
        self.totals.collect()
    }
}

/// Histograms of one name, by their labels.
#[derive(Clone)]
pub struct BusyHistogramVec {
    totals: HistogramVec,
    parts: Arc<Mutex<Vec<Arc<Part>>>>,
}

type Part = Mutex<LocalHistogram>;

/// What one thread has seen of one of them.
#[derive(Debug, Clone)]
pub struct BusyHistogram(Arc<Part>);

impl BusyHistogramVec {
    /// Histograms that differ in these labels.
    ///
    /// # Errors
    /// When the name or a label is none.
    pub fn new(opts: HistogramOpts, labels: &[&str]) -> Result<Self> {
        Ok(Self { totals: HistogramVec::new(opts, labels)?, parts: Arc::default() })
    }

    /// For one thread, to be kept there.
    #[must_use]
    pub fn part(&self, values: &[&str]) -> BusyHistogram {
        let part = Arc::new(Mutex::new(self.totals.with_label_values(values).local()));
        lock(&self.parts).push(Arc::clone(&part));
        BusyHistogram(part)
    }

    /// Observes a value that is seldom seen.
    pub fn observe(&self, values: &[&str], value: f64) {
        self.totals.with_label_values(values).observe(value);
    }
}

impl BusyHistogram {
    pub fn observe(&self, value: f64) {
        lock(&self.0).observe(value);
    }
}

impl Collector for BusyHistogramVec {
    fn desc(&self) -> Vec<&Desc> {
        self.totals.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut parts = lock(&self.parts);
        parts.retain(|part| {
            // Whoever holds it besides may still count; nobody else ever will.
            let is_in_use = Arc::strong_count(part) > 1;
            lock(part).flush();
            is_in_use
        });
        self.totals.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn total(family: &[MetricFamily], of: impl Fn(&prometheus::proto::Metric) -> u64) -> u64 {
        family.iter().flat_map(|family| family.get_metric()).map(of).sum()
    }

    #[test]
    fn all_that_all_threads_have_counted_is_told_while_they_go_on_counting() {
        let vec = BusyCounterVec::new(Opts::new("things", "Things."), &["kind"]).unwrap();
        let counters: Vec<_> =
            (0..PLACES + 2).map(|kind| vec.with_label_values(&[&kind.to_string()])).collect();
        let told = || total(&vec.collect(), |metric| metric.get_counter().get_value() as u64);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| counters.iter().cycle().take(10_000).for_each(BusyCounter::inc));
            }
            let mut last = 0;
            while last < 40_000 {
                let now = told();
                assert!((last..=40_000).contains(&now));
                last = now;
            }
        });
        assert_eq!(told(), 40_000);
    }

    #[test]
    fn all_that_all_threads_have_observed_is_told_also_of_those_that_have_ended() {
        let vec = BusyHistogramVec::new(HistogramOpts::new("times", "Times."), &["kind"]).unwrap();
        let told = || total(&vec.collect(), |metric| metric.get_histogram().get_sample_count());
        let mine = vec.part(&["one"]);
        mine.observe(1.0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let part = vec.part(&["one"]);
                    (0..1_000).for_each(|_| part.observe(0.5));
                });
            }
        });
        assert_eq!(told(), 4_001);
        mine.observe(1.0);
        vec.observe(&["two"], 2.0);
        assert_eq!((told(), lock(&vec.parts).len()), (4_003, 1));
    }
}
