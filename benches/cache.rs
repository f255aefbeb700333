//! The cache core by itself: `cargo bench --bench cache`.
//!
//! Compare within one run; machines differ, and differ from minute to minute.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot be set up may panic"
)]

use std::{hash::BuildHasher as _, hint::black_box, sync::Arc, time::Duration};

use bytes::Bytes;
use divan::Bencher;
use foldhash::quality::RandomState;
use lockstep::cache::{
    ArgumentsHash, Cache, Envelope, Json, Key, Loaded, Policy, PolicyOptions, Question, Settings, Tag,
};
use moka::policy::EvictionPolicy;
use tokio::runtime::Runtime;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    divan::main();
}

/// A cache that is alone with its data, as one with the embedded database is.
struct Setup {
    runtime: Runtime,
    cache: Arc<Cache>,
    policy: Arc<Policy>,
}

impl Setup {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let settings = Settings {
            l1: true,
            l2: false,
            bus: false,
            l1_max_bytes: 4 << 30,
            namespace: "bench".to_owned(),
            instance: "bench".to_owned(),
        };
        let cache = Cache::new(settings, runtime.handle().clone(), &prometheus::Registry::new()).unwrap();
        cache.trust_alone();
        let policy = cache.policy("bench", PolicyOptions::new(HOUR, HOUR));
        Self { runtime, cache, policy }
    }

    /// Reads an entry with these tags.
    async fn read(&self, key: Key, tags: &[Tag]) -> u64 {
        let question = Question { key, token: None };
        let load = || async { Ok(Loaded { value: Some(Json(7_u64)), tags: vec![] }) };
        let read = self.cache.read(&self.policy, question, || tags.to_vec(), load).await.unwrap();
        read.value.unwrap().0
    }
}

fn key(number: u128) -> Key {
    Key::new("thing", Uuid::from_u128(number), 1)
}

fn tags(count: u128) -> Vec<Tag> {
    (0..count).map(|number| Tag::new("tag", Uuid::from_u128(number))).collect()
}

/// More keys than fit into the caches of a processor. All of them are asked for twice: 100 samples of 200.
const MANY: u128 = 10_000;

/// What there is to compare with: keys, values and settings are those of L1, and nothing is judged. Of so many keys in
/// turn.
#[divan::bench(args = [1, MANY], sample_size = 200)]
fn plain_moka_get(bencher: Bencher<'_, '_>, keys: u128) {
    let builder = moka::sync::Cache::builder().max_capacity(4 << 30).weigher(|_, _| 1000);
    let cache = builder.eviction_policy(EvictionPolicy::lru()).build_with_hasher(RandomState::default());
    (0..keys).for_each(|number| cache.insert(key(number), Arc::new(7_u64)));
    let mut turns = (0..keys).cycle();
    bencher.bench_local(|| cache.get(&black_box(key(turns.next().unwrap()))));
}

/// As a request has it, before it makes anything ready for a load.
#[divan::bench(args = [1, 3, 8, 51], sample_size = 200)]
fn l1_hit(bencher: Bencher<'_, '_>, tag_count: u128) {
    hits_in_turn(bencher, 1, tag_count);
}

/// The same of many keys in turn, with 3 tags.
#[divan::bench(args = [MANY], sample_size = 200)]
fn l1_hit_among(bencher: Bencher<'_, '_>, keys: u128) {
    hits_in_turn(bencher, keys, 3);
}

fn hits_in_turn(bencher: Bencher<'_, '_>, keys: u128, tag_count: u128) {
    let (setup, tags) = (Setup::new(), tags(tag_count));
    for number in 0..keys {
        setup.runtime.block_on(setup.read(key(number), &tags));
    }
    let mut turns = (0..keys).cycle();
    bencher.bench_local(|| {
        let question = Question { key: black_box(key(turns.next().unwrap())), token: None };
        setup.cache.recall::<Json<u64>>(&setup.policy, question).unwrap()
    });
}

/// As a cached function has it.
#[divan::bench(args = [3])]
fn l1_hit_of_read(bencher: Bencher<'_, '_>, tag_count: u128) {
    let (setup, tags) = (Setup::new(), tags(tag_count));
    setup.runtime.block_on(setup.read(key(1), &tags));
    // Polled by hand: a hit is ready at once, and a runtime's entry would be most of what is measured.
    bencher.bench(|| {
        let hit = std::pin::pin!(setup.read(black_box(key(1)), &tags));
        futures_util::FutureExt::now_or_never(hit).unwrap()
    });
}

#[divan::bench(args = [1_000, 100_000, 1_000_000])]
fn invalidate_one_tag_among_entries(bencher: Bencher<'_, '_>, entries: u128) {
    let setup = Setup::new();
    let shared = [Tag::new("tag", Uuid::nil())];
    setup.runtime.block_on(async {
        for number in 0..entries {
            setup.read(key(number), &shared).await;
        }
    });
    bencher.bench(|| setup.runtime.block_on(setup.cache.invalidate(&shared, "bench")));
}

#[divan::bench]
fn miss(bencher: Bencher<'_, '_>) {
    let (setup, tags) = (Setup::new(), tags(3));
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        setup.runtime.block_on(setup.read(key(number), &tags))
    });
}

/// So many ask for the same at once; one load serves them all.
#[divan::bench(args = [1, 32])]
fn miss_with_waiters(bencher: Bencher<'_, '_>, readers: usize) {
    let (setup, tags) = (Setup::new(), tags(3));
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        let reads = (0..readers).map(|_| setup.read(key(number), &tags));
        setup.runtime.block_on(futures_util::future::join_all(reads))
    });
}

#[divan::bench]
fn hash_key(bencher: Bencher<'_, '_>) {
    let hasher = RandomState::default();
    let key = key(1).suffix("members").arguments(ArgumentsHash::of(&50));
    bencher.bench(|| hasher.hash_one(black_box(key)));
}

#[divan::bench]
fn hash_arguments(bencher: Bencher<'_, '_>) {
    bencher.bench(|| ArgumentsHash::of(&black_box((50, Some("cursor")))));
}

/// Header, tags and, from 1 KB on, the decompression of what is as plain as JSON is.
#[divan::bench(args = [0, 700, 1_100, 20_000])]
fn read_an_envelope(bencher: Bencher<'_, '_>, bytes: usize) {
    let people: String =
        (0..).map(|number| format!(r#"{{"id":{number},"name":"Ada","active":true}},"#)).take(700).collect();
    let payload = (bytes > 0).then(|| people.as_bytes()[..bytes].to_vec());
    let envelope = Envelope {
        epoch: 0xfeed,
        as_of: 41,
        created_ms: 1_790_000_000_000,
        origin: "bench".to_owned(),
        kept_ms: 3_600_000,
        tags: tags(3),
        payload,
    };
    let bytes = Bytes::from(envelope.write());
    bencher.bench(|| Envelope::read(black_box(&bytes)).unwrap());
}
