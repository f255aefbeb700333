//! What became of requests, for metrics.

use prometheus::{Opts, Registry};

use crate::metrics::busy::{BusyCounter, BusyCounterVec};

/// Who decides.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Redis,
    Lease,
    Denial,
    Share,
    Process,
}

impl Source {
    /// In the order of their declaration.
    const NAMES: [&str; 5] = ["redis", "lease", "denial", "share", "process"];
}

/// Decisions of all limiters.
#[derive(Clone)]
pub struct Numbers {
    decisions: BusyCounterVec,
}

impl Numbers {
    /// Puts the numbers into a registry.
    ///
    /// # Errors
    /// When they are there already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let decisions = BusyCounterVec::new(
            Opts::new("lockstep_rate_limit_decisions_total", "Requests that were charged, and who decided."),
            &["subject", "source", "result"],
        )?;
        registry.register(Box::new(decisions.clone()))?;
        Ok(Self { decisions })
    }

    /// Those about subjects of one kind, looked up once.
    pub(super) fn of(&self, kind: &str) -> Decisions {
        let count = |source, result| self.decisions.with_label_values(&[kind, source, result]);
        Decisions(Source::NAMES.map(|source| [count(source, "granted"), count(source, "refused")]))
    }
}

/// Decisions about subjects of one kind.
pub(super) struct Decisions([[BusyCounter; 2]; 5]);

impl Decisions {
    pub(super) fn count(&self, source: Source, granted: bool) {
        if let Some([grants, refusals]) = self.0.get(source as usize) {
            if granted { grants.inc() } else { refusals.inc() }
        }
    }
}
