use std::time::Duration;

use prometheus::Registry;
use tokio::{runtime::Handle, task::yield_now};
use uuid::Uuid;

use super::*;
use crate::cache::{Json, Key, Loaded, PolicyOptions, Question, Settings, Tag, Token};

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
        self.ask(None, number).await
    }

    /// The same, past whatever is not as new as this.
    async fn read_after(&self, token: &Token, number: u128) -> u128 {
        self.ask(Some(token), number).await
    }

    async fn ask(&self, token: Option<&Token>, number: u128) -> u128 {
        let load = move || async move { Ok(Loaded { value: Some(Json(number)), tags: vec![] }) };
        let question = Question { key: key(number), token };
        let read = self.cache.read(&self.policy, question, || vec![tag(number)], load).await;
        read.unwrap().value.unwrap().0
    }

    /// What was recorded of reading these, which L1 has.
    async fn recorded(&self, numbers: &[u128]) -> Vec<Recall> {
        let reading = recorded(async {
            for number in numbers {
                self.read(*number).await;
            }
            take().unwrap()
        });
        reading.await
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
}

#[tokio::test]
async fn what_took_its_time_or_asked_anything_else_is_not_and_nothing_outside() {
    let setup = Setup::holding(&[1]).await;
    setup.read(1).await;
    assert!(take().is_none());
    let missing = async {
        setup.read(1).await;
        setup.read(2).await;
        take()
    };
    assert!(recorded(missing).await.is_none());
    let slow = async {
        setup.read(1).await;
        yield_now().await;
        take()
    };
    assert!(recorded(slow).await.is_none());
    let beside = async {
        spoil();
        setup.read(1).await;
        take()
    };
    assert!(recorded(beside).await.is_none());
    recorded(setup.read(1)).await;
    assert!(take().is_none());
}

#[tokio::test]
async fn what_waits_after_its_answer_was_made_is_recorded() {
    let setup = Setup::holding(&[1]).await;
    let charged_afterwards = async {
        setup.read(1).await;
        let reads = take();
        yield_now().await;
        reads
    };
    assert_eq!(recorded(charged_afterwards).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_panic_ends_the_recording() {
    let panicking = recorded(async { panic!("as a handler might") });
    let caught = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(panicking)).await;
    assert!(caught.is_err() && take().is_none());
}

#[tokio::test]
async fn a_read_that_is_counted_once_more_is_a_hit() {
    let setup = Setup::holding(&[1]).await;
    let reads = setup.recorded(&[1]).await;
    let before = setup.hits();
    assert!(setup.cache.repeats(&reads, Instant::now()));
    assert_eq!(setup.hits(), before);
    reads[0].count();
    assert_eq!(setup.hits() - before, 1.0);
}

#[tokio::test]
async fn what_was_invalidated_is_not_repeated_nor_is_anything_that_was_read_beside_it() {
    let setup = Setup::holding(&[1, 2]).await;
    let (both, one) = (setup.recorded(&[1, 2]).await, setup.recorded(&[1]).await);
    setup.cache.invalidate(&[tag(2)], "test").await;
    assert!(!setup.cache.repeats(&both, Instant::now()));
    assert!(setup.cache.repeats(&one, Instant::now()));
}

#[tokio::test]
async fn what_l1_has_let_go_of_is_not_repeated() {
    let setup = Setup::holding(&[1]).await;
    let reads = setup.recorded(&[1]).await;
    setup.cache.forget_matching(&[Tag::pattern("thing:*").unwrap()]);
    assert!(!setup.cache.repeats(&reads, Instant::now()));

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
async fn what_l1_is_told_to_be_in_use_it_keeps() {
    let setup = Setup::with(10_000);
    setup.read(1).await;
    let reads = setup.recorded(&[1]).await;
    for number in 2..1_000 {
        setup.read(number).await;
        setup.cache.touch(&reads);
        setup.cache.remove_ended();
    }
    assert!(setup.cache.repeats(&reads, Instant::now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_thread_has_replaced_is_not_repeated_though_nothing_was_invalidated() {
    let setup = Arc::new(Setup::holding(&[1]).await);
    let reads = setup.recorded(&[1]).await;
    let replacing = Arc::clone(&setup);
    tokio::spawn(async move { replacing.read_after(&Token::unknown(), 1).await }).await.unwrap();
    assert!(!setup.cache.repeats(&reads, Instant::now()));
    assert!(setup.cache.repeats(&setup.recorded(&[1]).await, Instant::now()));
}

#[tokio::test]
async fn what_has_to_be_renewed_is_not_repeated() {
    let setup = Setup::holding(&[1]).await;
    let (reads, now) = (setup.recorded(&[1]).await, Instant::now());
    assert!(setup.cache.repeats(&reads, now + MINUTE * 7 / 10));
    assert!(!setup.cache.repeats(&reads, now + MINUTE * 8 / 10));
}
