//! The cache as a library: two caches on one Redis, and a row that is a number.

mod chance;
mod coherence;
mod contract;
mod cost;
mod flights;
mod many;
mod messages;
mod outage;
mod refresh;
mod runtime;
mod shares;
mod storage;
mod threads;
mod timeouts;
mod together;
mod trust;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lockstep::{
    cache::{
        Cache, Json, Key, LoadError, Loaded, Policy, PolicyOptions, Question, Read, Recalled, Settings,
        Stored, Tag, TierStatus, Token,
        bus::{BeforeUse, Bus},
    },
    redis::Redis,
};
use prometheus::Registry;
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::support::{eventually, test_setting, unique_name};

/// The row behind the cache, and how often it was loaded.
#[derive(Debug, Default)]
struct Row {
    value: AtomicU64,
    loads: AtomicUsize,
}

/// A point at which a load stops until it is told to go on.
#[derive(Default)]
struct Gate {
    reached: Notify,
    open: Notify,
}

impl Gate {
    /// To be called by the load that is to stop here.
    async fn pass(&self) {
        self.reached.notify_one();
        self.open.notified().await;
    }
}

/// One cache and its bus.
struct Node {
    cache: Arc<Cache>,
    policy: Arc<Policy>,
    registry: Registry,
    _stop: DropGuard,
}

/// What a node is made with.
struct Setup {
    options: PolicyOptions,
    l1: bool,
    l2: bool,
    l1_max_bytes: u64,
    redis_timeout: Duration,
    before_use: BeforeUse,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            options: OPTIONS,
            l1: true,
            l2: true,
            l1_max_bytes: 1 << 24,
            redis_timeout: Duration::from_secs(2),
            before_use: Box::new(|_| Box::pin(async { Ok(0) })),
        }
    }
}

/// Where a node's Redis is, and under which names.
#[derive(Clone)]
struct Place {
    url: String,
    namespace: String,
}

impl Place {
    fn shared() -> Self {
        Self { url: test_setting("TEST_REDIS_URL"), namespace: unique_name("cache") }
    }
}

const OPTIONS: PolicyOptions = PolicyOptions {
    absent: Duration::from_secs(10),
    refresh_at: 100,
    ..PolicyOptions::new(Duration::from_secs(30), Duration::from_secs(60))
};

impl Node {
    async fn start(place: &Place) -> Self {
        Self::start_with(place, OPTIONS, true, true).await
    }

    /// Two on one Redis, with L2 and perhaps L1.
    async fn start_two(place: &Place, options: PolicyOptions, l1: bool) -> [Self; 2] {
        [Self::start_with(place, options, l1, true).await, Self::start_with(place, options, l1, true).await]
    }

    async fn start_with(place: &Place, options: PolicyOptions, l1: bool, l2: bool) -> Self {
        Self::start_as(place, Setup { options, l1, l2, ..Setup::default() }).await
    }

    async fn start_as(place: &Place, setup: Setup) -> Self {
        let settings = Settings {
            l1: setup.l1,
            l2: setup.l2,
            bus: true,
            l1_max_bytes: setup.l1_max_bytes,
            namespace: place.namespace.clone(),
            instance: unique_name("node"),
        };
        let registry = Registry::new();
        let cache = Cache::new(settings, Handle::current(), &registry).unwrap();
        let policy = cache.policy("row", setup.options);
        let redis = Redis::new(&place.url, setup.redis_timeout).unwrap();
        let bus = Bus::new(Arc::clone(&cache), redis, setup.before_use);
        let stop = CancellationToken::new();
        tokio::spawn(bus.run(stop.clone()));
        let node = Self { cache, policy, registry, _stop: stop.drop_guard() };
        node.trusted().await;
        node
    }

    /// The same cache with other rules for the row.
    fn policy(&self, options: PolicyOptions) -> Arc<Policy> {
        self.cache.policy("row", options)
    }

    async fn trusted(&self) {
        eventually("the cache trusts itself", Duration::from_secs(10), async || {
            (!self.cache.is_degraded()).then_some(())
        })
        .await;
    }

    /// Reads the row through the cache.
    async fn read(&self, row: &Arc<Row>) -> (u64, TierStatus, TierStatus) {
        self.read_gated(row, None, None).await.unwrap()
    }

    async fn read_value(&self, row: &Arc<Row>) -> u64 {
        self.read(row).await.0
    }

    /// Reads with a token, and stops at the gate after the row was read and before it is handed over.
    async fn read_gated(
        &self,
        row: &Arc<Row>,
        token: Option<&Token>,
        gate: Option<Arc<Gate>>,
    ) -> Result<(u64, TierStatus, TierStatus), LoadError> {
        self.read_by(&self.policy, row, token, gate).await
    }

    /// The same by other rules.
    async fn read_by(
        &self,
        policy: &Arc<Policy>,
        row: &Arc<Row>,
        token: Option<&Token>,
        gate: Option<Arc<Gate>>,
    ) -> Result<(u64, TierStatus, TierStatus), LoadError> {
        let row = Arc::clone(row);
        let load = move || async move {
            row.loads.fetch_add(1, Ordering::SeqCst);
            let value = row.value.load(Ordering::SeqCst);
            if let Some(gate) = gate {
                gate.pass().await;
            }
            Ok(Loaded { value: Some(Json(value)), tags: vec![learned_tag()] })
        };
        let question = Question { key: key(), token };
        // As queries do it.
        let read = match self.cache.recall_or_join::<Json<u64>>(policy, &question).await {
            Recalled::Answered(read) => read?,
            Recalled::Unanswered(unanswered) => {
                self.cache.read_on(policy, &question, unanswered, || vec![known_tag()], load).await?
            }
        };
        Ok((read.value.unwrap().0, read.status.l1, read.status.l2))
    }

    /// Reads any entry under the tag of the row, with a load that brings this.
    async fn read_key<T: Send + Sync + 'static>(&self, key: Key, value: Option<T>) -> Read<Json<T>>
    where
        Json<T>: Stored,
    {
        let load = move || async move { Ok(Loaded { value: value.map(Json), tags: vec![] }) };
        let question = Question { key, token: None };
        self.cache.read(&self.policy, question, || vec![known_tag()], load).await.unwrap()
    }

    /// The sum of a metric's samples with these labels.
    fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let families = self.registry.gather();
        let metrics = families.iter().filter(|family| family.name() == name).flat_map(|f| f.get_metric());
        let wanted = metrics.filter(|metric| {
            labels.iter().all(|(name, value)| {
                metric.get_label().iter().any(|label| label.name() == *name && label.value() == *value)
            })
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        wanted.map(|metric| metric.get_counter().get_value() as u64).sum()
    }

    /// Where invalidations come from at present.
    fn source(&self) -> &'static str {
        self.cache.report().source
    }

    /// Waits until this node has heard all that the other one has announced.
    async fn has_heard(&self, other: &Self) {
        let announced = other.cache.report().sequence;
        eventually("it has heard", Duration::from_secs(2), async || {
            (self.cache.report().sequence >= announced).then_some(())
        })
        .await;
    }

    /// Changes the row, then invalidates, as a committed write does.
    async fn write(&self, row: &Row, value: u64) -> Token {
        self.write_tag(row, value, known_tag()).await
    }

    async fn write_tag(&self, row: &Row, value: u64, tag: Tag) -> Token {
        row.value.store(value, Ordering::SeqCst);
        let invalidated = self.cache.invalidate(&[tag], "test").await;
        assert!(invalidated.announced);
        invalidated.token
    }
}

fn key() -> Key {
    Key::new("row", Uuid::nil(), 1)
}

/// Known before loading.
fn known_tag() -> Tag {
    Tag::new("row", Uuid::nil())
}

/// Known only once the row is loaded.
fn learned_tag() -> Tag {
    Tag::new("person", Uuid::nil())
}

/// One of many entries.
fn nth_key(number: u128) -> Key {
    Key::new("row", Uuid::from_u128(number), 1)
}

fn nth_tag(number: u128) -> Tag {
    Tag::new("row", Uuid::from_u128(number))
}

fn is_hit(status: TierStatus) -> bool {
    matches!(status, TierStatus::Hit(_))
}
