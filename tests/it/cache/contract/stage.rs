//! Two nodes of one kind, and the rows that both read.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use lockstep::{
    cache::{
        Cache, Item, Json, LoadError, Loaded, Policy, PolicyOptions, Question, Settings, Tag, Token,
        bus::{BeforeUse, Bus},
    },
    redis::Redis,
};
use prometheus::Registry;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    super::{Gate, OPTIONS, Place, learned_tag, nth_key, nth_tag},
    Ledger,
};
use crate::support::{
    TestDatabase, eventually,
    proxy::{Proxy, Weather},
    redis::PrivateRedis,
    unique_name,
};

/// What the cache is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// No tier.
    Off,
    L1,
    L2,
    Both,
    /// Both, and the connections on which they hear are cut all the time.
    Cut,
    /// Both, and most of what they should hear is lost.
    Lossy,
    /// L1, which hears by the journal.
    Journal,
}

/// The rows, how often they were read, and whether that fails.
#[derive(Default)]
pub struct Rows {
    values: Mutex<HashMap<u128, u64>>,
    pub loads: AtomicUsize,
    pub fails: AtomicBool,
}

impl Rows {
    /// Changes a row, or takes it away, and tells nobody.
    pub fn set(&self, number: u128, value: Option<u64>) {
        let mut values = self.values.lock().unwrap();
        match value {
            Some(value) => values.insert(number, value),
            None => values.remove(&number),
        };
    }

    pub fn get(&self, number: u128) -> Option<u64> {
        self.values.lock().unwrap().get(&number).copied()
    }

    /// How often rows were read since the last time.
    pub fn loads(&self) -> usize {
        self.loads.swap(0, Ordering::SeqCst)
    }
}

/// One of two instances.
pub struct Node {
    pub cache: Arc<Cache>,
    /// For long, and for a moment.
    usual: Arc<Policy>,
    brief: Arc<Policy>,
    ledger: Option<Ledger>,
}

/// Nodes, rows and what is between them.
pub struct Stage {
    pub combination: Combination,
    pub nodes: Vec<Node>,
    pub rows: Arc<Rows>,
    _stop: DropGuard,
    // Dropped after the nodes.
    _redis: Option<(Proxy, Arc<PrivateRedis>)>,
    _database: Option<TestDatabase>,
}

/// Of entries that end soon.
pub const BRIEF: Duration = Duration::from_millis(300);

const BRIEF_OPTIONS: PolicyOptions =
    PolicyOptions { l1: BRIEF, l2: BRIEF, absent: BRIEF, fail_safe: Duration::ZERO, jitter: 0, ..OPTIONS };

impl Stage {
    pub async fn start(combination: Combination) -> Self {
        let stop = CancellationToken::new();
        let (mut place, mut redis, mut database) = (Place::shared(), None, None);
        let is_hurt = matches!(combination, Combination::Cut | Combination::Lossy);
        if is_hurt {
            let private = Arc::new(PrivateRedis::start().await);
            let proxy = Proxy::start(&private).await;
            place.url = proxy.url.clone();
            redis = Some((proxy, private));
        }
        if is_hurt || combination == Combination::Journal {
            database = Some(TestDatabase::new().await);
        }
        let mut nodes = Vec::new();
        for _ in 0..2 {
            nodes.push(Node::start(combination, &place, database.as_ref(), &stop).await);
        }
        if let Some((proxy, private)) = &redis {
            let (weather, private) = (proxy.weather(), Arc::clone(private));
            let hurting = async move {
                match combination {
                    Combination::Cut => cut(private).await,
                    _ => lose(weather).await,
                }
            };
            tokio::spawn(stop.clone().run_until_cancelled_owned(hurting));
        }
        let rows = Arc::default();
        Self { combination, nodes, rows, _stop: stop.drop_guard(), _redis: redis, _database: database }
    }

    /// Whether what is kept stays for as long as nothing is written.
    pub fn is_steady(&self) -> bool {
        !matches!(self.combination, Combination::Off | Combination::Cut | Combination::Lossy)
    }

    /// Changes a row and says so, through one of the nodes.
    pub async fn write(&self, node: usize, number: u128, value: Option<u64>) -> Token {
        self.write_tagged(node, number, value, nth_tag(number)).await
    }

    pub async fn write_tagged(&self, node: usize, number: u128, value: Option<u64>, tag: Tag) -> Token {
        let commit = || self.rows.set(number, value);
        self.nodes[node].invalidate(&[tag], commit).await
    }

    pub async fn read(&self, node: usize, number: u128) -> Option<u64> {
        self.read_gated(node, number, None, None).await.unwrap()
    }

    /// Reads with a token, and stops at the gate after the row was read and before it is handed over.
    pub async fn read_gated(
        &self,
        node: usize,
        number: u128,
        token: Option<&Token>,
        gate: Option<Arc<Gate>>,
    ) -> Result<Option<u64>, LoadError> {
        self.nodes[node].read(&self.rows, &self.nodes[node].usual, number, token, gate).await
    }

    /// What is read so ends soon.
    pub async fn read_for_a_moment(&self, node: usize, number: u128) -> Option<u64> {
        let node = &self.nodes[node];
        node.read(&self.rows, &node.brief, number, None, None).await.unwrap()
    }

    pub async fn read_many(&self, node: usize, numbers: &[u128], token: Option<&Token>) -> Vec<Option<u64>> {
        let node = &self.nodes[node];
        let items: Vec<_> = numbers
            .iter()
            .map(|number| Item { key: nth_key(*number), tags: vec![nth_tag(*number)] })
            .collect();
        let (rows, asked) = (Arc::clone(&self.rows), numbers.to_vec());
        let load = move |positions: Vec<usize>| {
            rows.loads.fetch_add(1, Ordering::SeqCst);
            let found = positions.iter().map(|position| rows.get(asked[*position]));
            let found = found.map(|value| Loaded { value: value.map(Json), tags: vec![learned_tag()] });
            let found: Vec<_> = found.collect();
            async move { Ok(found) }
        };
        let reads = node.cache.read_many::<Json<u64>, _, _>(&node.usual, &items, token, load).await.unwrap();
        reads.into_iter().map(|read| read.value.map(|value| value.0)).collect()
    }

    /// Waits until a node shows this, for as long as is promised.
    pub async fn shows(&self, node: usize, number: u128, value: Option<u64>) {
        eventually(&format!("node {node} shows {value:?}"), Duration::from_millis(1500), async || {
            (self.read(node, number).await == value).then_some(())
        })
        .await;
    }
}

impl Node {
    async fn start(
        combination: Combination,
        place: &Place,
        database: Option<&TestDatabase>,
        stop: &CancellationToken,
    ) -> Self {
        use Combination::{Both, Cut, Journal, L1, L2, Lossy};
        let settings = Settings {
            l1: matches!(combination, L1 | Both | Cut | Lossy | Journal),
            l2: matches!(combination, L2 | Both | Cut | Lossy),
            bus: combination != Journal,
            l1_max_bytes: 1 << 24,
            namespace: place.namespace.clone(),
            instance: unique_name("node"),
        };
        let cache = Cache::new(settings, Handle::current(), &Registry::new()).unwrap();
        let (usual, brief) = (cache.policy("row", OPTIONS), cache.policy("row", BRIEF_OPTIONS));
        let mut before_use: BeforeUse = Box::new(|_| Box::pin(async { Ok(0) }));
        let mut ledger = None;
        if let Some(database) = database {
            let (opened, own) = Ledger::open(database).await;
            before_use = opened.before_use();
            match combination {
                Journal => opened.listen(&cache, own, stop),
                _ => opened.relay(&cache, own, stop),
            }
            ledger = Some(opened);
        }
        if combination != Journal {
            let redis = Redis::new(&place.url, Duration::from_secs(2)).unwrap();
            tokio::spawn(Bus::new(Arc::clone(&cache), redis, before_use).run(stop.clone()));
        }
        eventually("the cache trusts itself", Duration::from_secs(10), async || {
            (!cache.is_degraded()).then_some(())
        })
        .await;
        Self { cache, usual, brief, ledger }
    }

    /// Invalidates what `commit` changes.
    pub async fn invalidate(&self, tags: &[Tag], commit: impl FnOnce()) -> Token {
        match &self.ledger {
            Some(ledger) => ledger.write(&self.cache, tags, commit).await,
            None => {
                commit();
                let invalidated = self.cache.invalidate(tags, "test").await;
                assert!(invalidated.announced);
                invalidated.token
            }
        }
    }

    async fn read(
        &self,
        rows: &Arc<Rows>,
        policy: &Arc<Policy>,
        number: u128,
        token: Option<&Token>,
        gate: Option<Arc<Gate>>,
    ) -> Result<Option<u64>, LoadError> {
        let rows = Arc::clone(rows);
        let load = move || async move {
            rows.loads.fetch_add(1, Ordering::SeqCst);
            let value = rows.get(number);
            if let Some(gate) = gate {
                gate.pass().await;
            }
            if rows.fails.load(Ordering::SeqCst) {
                return Err("the database is away".into());
            }
            Ok(Loaded { value: value.map(Json), tags: vec![learned_tag()] })
        };
        let question = Question { key: nth_key(number), token };
        let tags = || vec![nth_tag(number)];
        let read = self.cache.read::<Json<u64>, _, _>(policy, question, tags, load).await?;
        Ok(read.value.map(|value| value.0))
    }
}

/// Cuts what listens, for ever.
async fn cut(redis: Arc<PrivateRedis>) {
    loop {
        let _: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..400))).await;
    }
}

/// Loses what is published, for ever, but for a moment now and then.
async fn lose(weather: Weather) {
    loop {
        weather.lose_messages(true);
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..1000))).await;
        weather.lose_messages(false);
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..100))).await;
    }
}
