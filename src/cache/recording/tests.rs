use std::time::Duration;

use prometheus::Registry;
use tokio::{runtime::Handle, task::yield_now};
use uuid::Uuid;

use super::*;
use crate::cache::{Json, Key, Loaded, PolicyOptions, Question, Settings, Tag};

const MINUTE: Duration = Duration::from_secs(60);

/// A cache that is alone with its data.
struct Setup {
    cache: Arc<Cache>,
    policy: Arc<Policy>,
    registry: Registry,
}

impl Setup {
    /// With these in L1.
    async fn holding(numbers: &[u128]) -> Self {
        let setup = Self::with(1 << 20);
        for number in numbers {
            setup.read(*number).await;
        }
        setup
    }

    fn with(l1_max_bytes: u64) -> Self {
        let registry = Registry::new();
        let (namespace, instance) = (String::new(), String::new());
        let settings = Settings { l1: true, l2: false, bus: false, l1_max_bytes, namespace, instance };
        let cache = Cache::new(settings, Handle::current(), &registry).unwrap();
        cache.trust_alone();
        let options = PolicyOptions { jitter: 0, ..PolicyOptions::new(MINUTE, MINUTE) };
        let policy = cache.policy("thing", options);
        Self { cache, policy, registry }
    }

    /// Reads a number, which has a tag of its own.
    async fn read(&self, number: u128) -> u128 {
        let load = move || async move { Ok(Loaded { value: Some(Json(number)), tags: vec![] }) };
        let question = Question { key: key(number), token: None };
        let read = self.cache.read(&self.policy, question, || vec![tag(number)], load).await;
        read.unwrap().value.unwrap().0
    }

    /// What was recorded of reading these, which L1 has.
    async fn recorded(&self, numbers: &[u128]) -> Vec<Recall> {
        let reading = recorded(async {
            for number in numbers {
                self.read(*number).await;
            }
        });
        reading.await.1.unwrap()
    }

    fn hits(&self) -> f64 {
        let families = self.registry.gather();
        let requests = families.iter().find(|it| it.name() == "lockstep_cache_requests_total").unwrap();
        let is_hit = |it: &&prometheus::proto::Metric| {
            ["hit", "l1"].iter().all(|wanted| it.get_label().iter().any(|label| label.value() == *wanted))
        };
        requests.get_metric().iter().find(is_hit).unwrap().get_counter().get_value()
    }
}

fn key(number: u128) -> Key {
    Key::new("thing", Uuid::from_u128(number), 1)
}

fn tag(number: u128) -> Tag {
    Tag::new("thing", Uuid::from_u128(number))
}

#[tokio::test]
async fn what_was_read_from_l1_at_once_is_recorded_with_its_values() {
    let setup = Setup::holding(&[1, 2]).await;
    let reads = setup.recorded(&[2, 1]).await;
    let values: Vec<_> = reads.iter().map(|read| read.value::<Json<u128>>().unwrap().0).collect();
    assert_eq!(values, [2, 1]);
    assert!(reads[0].value::<Json<String>>().is_none());
    assert!(!is_recording());
}

#[tokio::test]
async fn what_took_its_time_or_asked_anything_else_is_not() {
    let setup = Setup::holding(&[1]).await;
    assert!(recorded(async { (setup.read(1).await, setup.read(2).await) }).await.1.is_none());
    let slow = async {
        setup.read(1).await;
        yield_now().await;
    };
    assert!(recorded(slow).await.1.is_none());
    let beside = async {
        spoil();
        setup.read(1).await;
    };
    assert!(recorded(beside).await.1.is_none());
    assert!(!is_recording());
}

#[tokio::test]
async fn a_panic_ends_the_recording() {
    let panicking = recorded(async { panic!("as a handler might") });
    let caught = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panicking)).await;
    assert!(caught.is_err() && !is_recording());
}

#[tokio::test]
async fn repeated_reads_count_as_reads() {
    let setup = Setup::holding(&[1, 2]).await;
    let reads = setup.recorded(&[1, 2]).await;
    let before = setup.hits();
    assert!(setup.cache.repeats(&reads, Instant::now()));
    assert_eq!(setup.hits() - before, 2.0);
}

#[tokio::test]
async fn what_was_invalidated_is_not_repeated_nor_is_anything_that_was_read_beside_it() {
    let setup = Setup::holding(&[1, 2]).await;
    let (both, one) = (setup.recorded(&[1, 2]).await, setup.recorded(&[1]).await);
    setup.cache.invalidate(&[tag(2)], "test").await;
    let before = setup.hits();
    assert!(!setup.cache.repeats(&both, Instant::now()));
    assert_eq!(setup.hits(), before);
    assert!(setup.cache.repeats(&one, Instant::now()));
}

#[tokio::test]
async fn what_l1_has_let_go_of_is_not_repeated() {
    let setup = Setup::holding(&[1]).await;
    let reads = setup.recorded(&[1]).await;
    setup.cache.forget_matching(&[Tag::pattern("thing:*").unwrap()]);
    assert!(reads[0].is_over(Instant::now()) && !setup.cache.repeats(&reads, Instant::now()));

    let setup = Setup::with(10_000);
    setup.read(1).await;
    let reads = setup.recorded(&[1]).await;
    for number in 2..1_000 {
        setup.read(number).await;
    }
    setup.cache.remove_ended();
    assert!(!setup.cache.repeats(&reads, Instant::now()));
}

#[tokio::test]
async fn what_has_to_be_renewed_is_not_repeated() {
    let setup = Setup::holding(&[1]).await;
    let (reads, now) = (setup.recorded(&[1]).await, Instant::now());
    assert!(setup.cache.repeats(&reads, now + MINUTE * 7 / 10));
    assert!(!setup.cache.repeats(&reads, now + MINUTE * 8 / 10));
}
