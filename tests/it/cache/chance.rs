//! Things done by chance on two nodes, while Redis and what is between are hurt: nothing is ever older than promised.
//!
//! `TEST_SEED` does the same again; in what order it all meets is another matter each time.

mod harm;
mod model;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lockstep::{
    cache::{
        Cache, Item, Json, LoadError, Loaded, Policy, PolicyOptions, Question, Settings, SourceAway, Tag,
        Token, bus::Bus,
    },
    redis::Redis,
};
use prometheus::Registry;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::model::{Model, Observer};
use super::{OPTIONS, contract::Ledger, is_hit, nth_key, nth_tag};
use crate::support::{
    TestDatabase, eventually, optional_setting, proxy::Proxy, redis::PrivateRedis, unique_name,
};

const ROWS: u128 = 16;
/// Who do things, at the same time.
const ACTORS: u64 = 6;
/// What each of them does.
const STEPS: u64 = 1200;

/// One of the two instances, as a server has it.
struct Node {
    number: usize,
    cache: Arc<Cache>,
    policies: Vec<Arc<Policy>>,
    ledger: Ledger,
}

/// What the reads were, so that it can be seen that they were something.
#[derive(Default)]
struct Tally {
    reads: AtomicUsize,
    hits: AtomicUsize,
    fallbacks: AtomicUsize,
    errors: AtomicUsize,
    writes: AtomicUsize,
}

/// Rules under which everything happens often.
fn policies() -> Vec<PolicyOptions> {
    let ms = Duration::from_millis;
    let quick =
        PolicyOptions { soft: ms(10), hard: ms(3000), absent: ms(100), fail_safe: ms(5000), ..OPTIONS };
    vec![
        PolicyOptions { fail_safe: ms(5000), ..OPTIONS },
        PolicyOptions { l1: ms(40), l2: ms(120), refresh_at: 50, ..quick },
        PolicyOptions { l1: ms(200), l2: ms(100), refresh_at: 20, ..quick },
        PolicyOptions { l1: ms(5), l2: ms(1000), refresh_at: 10, ..quick },
        PolicyOptions { l1: ms(1000), l2: ms(10), fail_safe: ms(0), ..quick },
    ]
}

impl Node {
    async fn start(number: usize, url: &str, database: &TestDatabase, stop: &CancellationToken) -> Self {
        let settings = Settings {
            l1: true,
            l2: true,
            bus: true,
            l1_max_bytes: 1 << 24,
            namespace: "chance".to_owned(),
            instance: unique_name("node"),
        };
        let cache = Cache::new(settings, Handle::current(), &Registry::new()).unwrap();
        let policies = policies().into_iter().map(|options| cache.policy("row", options)).collect();
        let (ledger, marks) = Ledger::open(database).await;
        let redis = Redis::new(url, Duration::from_millis(400)).unwrap();
        let bus = Bus::new(Arc::clone(&cache), redis, ledger.before_use());
        tokio::spawn(bus.run(stop.clone()));
        ledger.relay(&cache, marks, stop);
        eventually("the cache trusts itself", Duration::from_secs(10), async || {
            (!cache.is_degraded()).then_some(())
        })
        .await;
        Self { number, cache, policies, ledger }
    }
}

/// Somebody who does things by chance.
struct Actor {
    rng: StdRng,
    nodes: Arc<[Node; 2]>,
    model: Arc<Model>,
    tally: Arc<Tally>,
}

/// How a load goes.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Well(Duration),
    Fails,
    /// The database is away: something older may serve.
    Away(Duration),
}

impl Actor {
    async fn act(mut self) {
        for _ in 0..STEPS {
            let node = self.rng.random_range(0..2);
            match self.rng.random_range(0..1000) {
                0..60 => self.write(node).await,
                60..63 => self.invalidate(node).await,
                63..180 => self.read_many(node).await,
                180..220 => tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..60))).await,
                _ => self.read(node).await,
            }
        }
    }

    fn mood(&mut self) -> Mood {
        let pause =
            Duration::from_millis(if self.rng.random_ratio(1, 4) { self.rng.random_range(0..40) } else { 0 });
        match self.rng.random_range(0..20) {
            0 => Mood::Fails,
            1 | 2 => Mood::Away(pause),
            _ => Mood::Well(pause),
        }
    }

    async fn write(&mut self, node: usize) {
        // Some rows more often than others: what is written all the time is never old.
        let row = self.rng.random_range(0..ROWS).min(self.rng.random_range(0..ROWS));
        let (node, model) = (&self.nodes[node], &self.model);
        // One write of a row at a time, as the database would have it.
        let writing = model.begin_write(row).await;
        let token = node.ledger.write(&node.cache, &[nth_tag(row)], || model.commit(&writing)).await;
        model.acknowledge(writing, node.number, token);
        self.tally.writes.fetch_add(1, Ordering::Relaxed);
    }

    async fn invalidate(&mut self, node: usize) {
        let pattern = Tag::pattern("row:*").unwrap();
        let tag = [Tag::all(), pattern, nth_tag(0)].choose(&mut self.rng).unwrap().clone();
        let cache = &self.nodes[node].cache;
        cache.invalidate(std::slice::from_ref(&tag), "test").await;
        cache.delete_from_l2(&[tag]).await;
    }

    fn token_of(&mut self, row: u128) -> Option<(u64, Token)> {
        if self.rng.random() { self.model.token(row) } else { None }
    }

    async fn read(&mut self, node: usize) {
        let row = self.rng.random_range(0..ROWS);
        let token = self.token_of(row);
        let mood = self.mood();
        let node = &self.nodes[node];
        let policy = node.policies.choose(&mut self.rng).unwrap();
        let observer = Observer::begin(&self.model, node.number, row, token.as_ref());
        let model = Arc::clone(&self.model);
        let load = move || async move { load(&model, &[row], mood).await.map(|mut values| values.remove(0)) };
        let question = Question { key: nth_key(row), token: token.as_ref().map(|(_, token)| token) };
        let read = node.cache.read::<Json<u64>, _, _>(policy, question, || vec![nth_tag(row)], load).await;
        match read {
            Ok(read) => self.judge(&observer, read.value.map(|value| value.0), &read.status),
            Err(err) => self.excuse(&err),
        }
    }

    async fn read_many(&mut self, node: usize) {
        let rows: Vec<u128> = (0..4).map(|_| self.rng.random_range(0..ROWS)).collect();
        let token = self.token_of(rows[0]);
        let mood = self.mood();
        let node = &self.nodes[node];
        let policy = node.policies.choose(&mut self.rng).unwrap();
        let items: Vec<_> =
            rows.iter().map(|row| Item { key: nth_key(*row), tags: vec![nth_tag(*row)] }).collect();
        let observers = rows.iter().map(|row| {
            let token = token.as_ref().filter(|_| *row == rows[0]);
            Observer::begin(&self.model, node.number, *row, token)
        });
        let observers: Vec<_> = observers.collect();
        let (model, asked) = (Arc::clone(&self.model), rows.clone());
        let load = move |positions: Vec<usize>| {
            let rows: Vec<_> = positions.into_iter().map(|position| asked[position]).collect();
            let model = Arc::clone(&model);
            async move { load(&model, &rows, mood).await }
        };
        let token = token.as_ref().map(|(_, token)| token);
        match node.cache.read_many::<Json<u64>, _, _>(policy, &items, token, load).await {
            Ok(reads) => {
                for (observer, read) in observers.iter().zip(reads) {
                    self.judge(observer, read.value.map(|value| value.0), &read.status);
                }
            }
            Err(err) => self.excuse(&err),
        }
    }

    fn judge(&self, observer: &Observer, seen: Option<u64>, status: &lockstep::cache::Status) {
        self.tally.reads.fetch_add(1, Ordering::Relaxed);
        if is_hit(status.l1) || is_hit(status.l2) {
            self.tally.hits.fetch_add(1, Ordering::Relaxed);
        }
        if status.to_string().contains("FAIL-SAFE") {
            self.tally.fallbacks.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(fault) = observer.judge(&self.model, seen) {
            panic!("{fault}: {status}");
        }
    }

    /// Some loads fail, and time may be up; nothing panics.
    fn excuse(&self, err: &LoadError) {
        assert!(!matches!(err, LoadError::Panicked), "{err:?}");
        self.tally.errors.fetch_add(1, Ordering::Relaxed);
    }
}

async fn load(
    model: &Model,
    rows: &[u128],
    mood: Mood,
) -> Result<Vec<Loaded<Json<u64>>>, Box<dyn std::error::Error + Send + Sync>> {
    let values = rows.iter().map(|row| Loaded { value: model.look(*row).map(Json), tags: vec![] }).collect();
    match mood {
        Mood::Fails => Err("a query that is wrong".into()),
        Mood::Away(pause) => {
            tokio::time::sleep(pause).await;
            Err(SourceAway("the database is away".into()).into())
        }
        Mood::Well(pause) => {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Ok(values)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_and_whatever_goes_wrong_nothing_is_older_than_promised() {
    let seed = optional_setting("TEST_SEED").map_or_else(rand::random::<u64>, |seed| seed.parse().unwrap());
    println!("to be repeated with TEST_SEED={seed}");
    let redis = Arc::new(PrivateRedis::start().await);
    let (proxy, database) = (Proxy::start(&redis).await, TestDatabase::new().await);
    let stop = CancellationToken::new();
    let _stopped = stop.clone().drop_guard();
    let a = Node::start(0, &proxy.url, &database, &stop).await;
    let b = Node::start(1, &proxy.url, &database, &stop).await;
    let (nodes, model, tally) = (Arc::new([a, b]), Arc::new(Model::new(ROWS)), Arc::new(Tally::default()));
    model.watch_the_clock(&stop);
    let harming = harm::harm(StdRng::seed_from_u64(seed), Arc::clone(&redis), proxy.weather());
    let harming = tokio::spawn(stop.clone().run_until_cancelled_owned(harming));
    let actors = (0..ACTORS).map(|number| {
        let rng = StdRng::seed_from_u64(seed.wrapping_add(1 + number));
        let (nodes, model, tally) = (Arc::clone(&nodes), Arc::clone(&model), Arc::clone(&tally));
        tokio::spawn(Actor { rng, nodes, model, tally }.act())
    });
    let done = join_all(actors).await;
    let faults: Vec<_> = done.into_iter().filter_map(Result::err).map(model::told).collect();
    assert!(faults.is_empty(), "TEST_SEED={seed}: {faults:#?}");
    assert!(!harming.is_finished(), "nothing was harmed any more");

    // In the end all is well again, and everybody sees the same.
    harming.abort();
    let _ = harming.await;
    harm::heal(&redis, &proxy.weather());
    for node in &*nodes {
        eventually("trust is won back", Duration::from_secs(15), async || {
            (!node.cache.is_degraded()).then_some(())
        })
        .await;
    }
    tokio::time::sleep(model::BOUND).await;
    let mut last = Actor { rng: StdRng::seed_from_u64(seed), nodes, model, tally: Arc::clone(&tally) };
    for _ in 0..200 {
        let node = last.rng.random_range(0..2);
        last.read(node).await;
    }
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let [reads, hits, fallbacks] = [&tally.reads, &tally.hits, &tally.fallbacks].map(count);
    let [errors, writes] = [&tally.errors, &tally.writes].map(count);
    println!("{reads} reads, {hits} hits, {fallbacks} of something older, {errors} errors; {writes} writes");
    // Else it would be no wonder.
    assert!(
        hits > reads / 20 && fallbacks > 0 && writes > 100,
        "TEST_SEED={seed}: the cache was hardly used"
    );
}
