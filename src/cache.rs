//! A two-tier cache that is coherent over all instances: L1 in this process, L2 in Redis.
//!
//! A library inside the crate: it knows no table, no Diesel and no Actix. What it promises and why it can is told
//! in `docs/coherence.md`; the rules live here:
//!
//! | module | rule |
//! |---|---|
//! | [`key`] | what entries and groups of rows are called |
//! | [`generation`] | what was heard, and what that says of an entry |
//! | [`trust`] | when this process may believe what it holds |
//! | [`read`](self), `load`, `join` | L1 → L2 → PostgreSQL, one load at a time |
//! | [`recording`] | what an answer was made of, to be asked again |
//! | [`write`](self) | a change invalidates both tiers of every instance before it is acknowledged |
//! | [`bus`] | hearing what others invalidate, and noticing when one does not |
//! | [`l2`] | the scripts in Redis, one round trip each |
//! | [`operate`] | what operators see and do |
//!
//! It must never serve what [`trust`] does not vouch for, never do I/O on an L1 hit, and never hold a lock over I/O.

mod batch;
mod breaker;
pub mod bus;
mod entry;
mod envelope;
mod fill;
mod flight;
pub mod generation;
mod join;
pub mod key;
mod l1;
pub mod l2;
mod load;
mod monitor;
pub mod operate;
mod policy;
mod present;
mod read;
pub mod recording;
mod stats;
mod status;
mod times;
pub mod token;
pub mod trust;
mod write;

use std::{
    error::Error,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::Registry;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;

/// For benchmarks.
#[doc(hidden)]
pub use self::envelope::Envelope;
pub use self::{
    batch::Item,
    entry::{Json, Stored, Value},
    key::{ArgumentsHash, Key, Tag},
    policy::{Policy, PolicyOptions},
    read::{Loaded, Question, Read, Recalled, Unanswered},
    status::{Status, TierStatus},
    token::{MalformedToken, Token},
    write::Invalidated,
};
use self::{
    flight::Flights,
    l1::L1,
    l2::{LockOwner, Names},
    monitor::Samples,
    present::Latest,
    stats::Stats,
    trust::Trust,
};

/// How long entries that are of no use any more may take up memory.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// What a cache is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether values are kept in this process.
    pub l1: bool,
    /// Whether values are kept in Redis.
    pub l2: bool,
    /// Bytes that L1 may take.
    pub l1_max_bytes: u64,
    /// Whether there is a [`bus`] that announces to others, though perhaps not at present.
    pub bus: bool,
    /// Prefix of every Redis key and channel.
    pub namespace: String,
    /// Name of this instance on the bus.
    pub instance: String,
}

/// The cache of one process, as one or more threads hold it: see [`Cache::share`].
pub struct Cache {
    inner: Arc<Inner>,
    /// What readers of this share wait for.
    flights: Flights,
    /// What this process loads.
    loads: Flights,
    latest: Latest,
    /// How many locks were asked for, from a number on that no other share comes to.
    locks: AtomicU64,
}

impl Deref for Cache {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// What all threads hold.
pub struct Inner {
    trust: Trust,
    l1: Option<L1>,
    uses_l2: bool,
    has_bus: bool,
    stats: Stats,
    samples: Samples,
    names: Names,
    instance: String,
    /// Rings when something was invalidated, here or elsewhere.
    invalidated: Arc<Notify>,
    /// Distinguishes the local sequence of this process from that of any other.
    local_epoch: u64,
    /// How many shares there have been.
    shares: AtomicU64,
    /// Threads that read from L2 by connections of their own.
    threads: watch::Sender<Vec<Handle>>,
    /// Loads run here, where a busy Actix worker does not hold them up.
    main: Handle,
}

impl Cache {
    /// A cache that trusts nothing yet: [`bus`] or [`Cache::trust_alone`] has to begin a generation.
    ///
    /// # Errors
    /// When its metrics are in the registry already.
    pub fn new(settings: Settings, main: Handle, registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let inner = Arc::new(Inner {
            trust: Trust::new(),
            l1: settings.l1.then(|| L1::new(settings.l1_max_bytes)),
            uses_l2: settings.l2,
            has_bus: settings.bus,
            stats: Stats::register(registry)?,
            samples: Samples::default(),
            names: Names::new(&settings.namespace),
            instance: settings.instance,
            invalidated: Arc::default(),
            // Above those that mean something else.
            local_epoch: rand::random::<u64>() | 1 << 63,
            shares: AtomicU64::new(1),
            threads: watch::Sender::default(),
            main,
        });
        Ok(Arc::new(Self {
            inner,
            flights: Flights::default(),
            loads: Flights::default(),
            latest: Latest::default(),
            locks: AtomicU64::default(),
        }))
    }

    /// The same cache for another thread. Each read counts who holds what it needs; if all threads did so in the same
    /// memory, they would take it away from each other all the time.
    #[must_use]
    pub fn share(&self) -> Arc<Self> {
        // More locks than a share will ever ask for.
        let first_lock = self.shares.fetch_add(1, Ordering::Relaxed) << 48;
        Arc::new(Self {
            inner: Arc::clone(&self.inner),
            flights: Flights::default(),
            loads: self.loads.another(),
            latest: Latest::default(),
            locks: AtomicU64::new(first_lock),
        })
    }

    /// A policy with its numbers, to be made once for each kind of data.
    #[must_use]
    pub fn policy(&self, kind: &'static str, options: PolicyOptions) -> Arc<Policy> {
        Arc::new(Policy::new(kind, options, self.stats.kind(kind)))
    }

    /// The same policy for another thread.
    #[must_use]
    pub fn share_policy(&self, policy: &Policy) -> Arc<Policy> {
        Arc::new(policy.share(&self.stats))
    }

    /// From now on the thread whose runtime this is called on reads from L2 by a connection of its own.
    pub fn add_thread(&self) {
        self.threads.send_modify(|threads| threads.push(Handle::current()));
    }

    /// For whoever loads something.
    fn lock_owner(&self) -> LockOwner {
        LockOwner { process: self.local_epoch, load: self.locks.fetch_add(1, Ordering::Relaxed) }
    }

    /// Rings when something was invalidated, by whichever instance. One listener; several rings may be one.
    #[must_use]
    pub fn invalidated(&self) -> Arc<Notify> {
        Arc::clone(&self.invalidated)
    }

    /// Whether values are kept in this process.
    #[must_use]
    pub fn has_l1(&self) -> bool {
        self.l1.is_some()
    }

    /// Whether values are kept anywhere.
    #[must_use]
    pub fn keeps_anything(&self) -> bool {
        self.has_l1() || self.uses_l2
    }

    /// L1 cannot be used at present, since nothing proves that it is current; or there is no way to Redis.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        !self.trust.has_lease() || self.is_cut_off()
    }

    /// There should be a way to Redis, and there is none.
    fn is_cut_off(&self) -> bool {
        self.has_bus && self.relay_epoch().is_none()
    }

    /// Frees the memory of entries that are of no use any more, now and then, until stopped.
    pub async fn tidy_up(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(TIDY_EVERY)).await.is_some() {
            let cache = Arc::clone(&self);
            // It takes as long as there are entries.
            let _ = self.main.spawn_blocking(move || cache.remove_ended()).await;
        }
    }

    /// The same once.
    pub fn remove_ended(&self) {
        if let Some(l1) = &self.l1 {
            l1.remove_ended(Instant::now());
        }
    }

    /// Brings the gauges up to date, before they are read.
    pub fn measure(&self) {
        let (entries, bytes) = self.l1.as_ref().map_or((0, 0), L1::size);
        self.stats.l1_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.stats.l1_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.stats.lease.set(self.trust.has_lease().into());
        self.stats.breaker_open.set(self.is_cut_off().into());
    }
}

/// The loader failed because what it reads from is away, not because of what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the source is away")]
pub struct SourceAway(#[source] pub Box<dyn Error + Send + Sync>);

/// Why a value could not be had. Shared by all who waited for the same load.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// The loader failed.
    #[error("the load failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
    /// The loader took too long.
    #[error("the load took longer than {0:?}")]
    TimedOut(Duration),
    /// The loader ended without a result.
    #[error("the load panicked")]
    Panicked,
}

impl LoadError {
    /// Whether something older may be served instead: what is loaded from is away, which is no fault of the load.
    pub(crate) fn is_source_away(&self) -> bool {
        match self {
            Self::Failed(cause) => cause.is::<SourceAway>(),
            Self::TimedOut(_) => true,
            Self::Panicked => false,
        }
    }
}
