//! The cache as a library: two caches on one Redis, and a row that is a number.

mod coherence;
mod flights;
mod storage;
mod trust;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use lockstep::{
    cache::{
        Cache, Json, Key, LoadError, Loaded, Policy, PolicyOptions, Question, Settings, Tag, TierStatus,
        Token,
        bus::{BeforeUse, Bus},
    },
    redis::Redis,
};
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::support::{eventually, test_setting, unique_name};

/// The row behind the cache, and how often it was loaded.
#[derive(Default)]
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

/// One cache and its bus.
struct Node {
    cache: Arc<Cache>,
    policy: Arc<Policy>,
    _stop: DropGuard,
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

    async fn start_with(place: &Place, options: PolicyOptions, l1: bool, l2: bool) -> Self {
        let before_use = Box::new(|_| -> BoxFuture<'static, _> { Box::pin(async { Ok(0) }) });
        Self::start_before_use(place, options, l1, l2, before_use).await
    }

    async fn start_before_use(
        place: &Place,
        options: PolicyOptions,
        l1: bool,
        l2: bool,
        before_use: BeforeUse,
    ) -> Self {
        let settings = Settings {
            l1,
            l2,
            bus: true,
            l1_max_bytes: 1 << 24,
            namespace: place.namespace.clone(),
            instance: unique_name("node"),
        };
        let cache = Cache::new(settings, Handle::current(), &prometheus::Registry::new()).unwrap();
        let policy = cache.policy("row", options);
        let redis = Redis::new(&place.url, Duration::from_secs(2)).unwrap();
        let bus = Bus::new(Arc::clone(&cache), redis, before_use);
        let stop = CancellationToken::new();
        tokio::spawn(bus.run(stop.clone()));
        let node = Self { cache, policy, _stop: stop.drop_guard() };
        node.trusted().await;
        node
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
        let row = Arc::clone(row);
        let load = move || async move {
            row.loads.fetch_add(1, Ordering::SeqCst);
            let value = row.value.load(Ordering::SeqCst);
            if let Some(gate) = gate {
                gate.reached.notify_one();
                gate.open.notified().await;
            }
            Ok(Loaded { value: Some(Json(value)), tags: vec![learned_tag()] })
        };
        let question = Question { key: key(), token };
        let read =
            self.cache.read::<Json<u64>, _, _>(&self.policy, question, || vec![known_tag()], load).await?;
        Ok((read.value.unwrap().0, read.status.l1, read.status.l2))
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

fn is_hit(status: TierStatus) -> bool {
    matches!(status, TierStatus::Hit(_))
}
