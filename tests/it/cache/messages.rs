//! What instances tell each other: late, twice, unreadable, all at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use lockstep::cache::{Json, Loaded, Question, Tag, Token};
use uuid::Uuid;

use super::{Gate, Node, OPTIONS, Place, Row, is_hit, key, known_tag, learned_tag, nth_key, nth_tag};
use crate::support::{
    eventually,
    proxy::Proxy,
    redis::{self, PrivateRedis},
};

/// The message that `invalidate` publishes, caught on its way.
async fn message_of(place: &Place, redis: &PrivateRedis, invalidate: impl Future<Output = Token>) -> String {
    let listening = lockstep::redis::Redis::new(&place.url, Duration::from_secs(2)).unwrap();
    let listening = listening.listen(&format!("{}:invalidations", place.namespace)).await.unwrap();
    invalidate.await;
    let message = listening.into_on_message().next().await.unwrap();
    assert!(redis.url == place.url, "on the same Redis");
    message.get_payload().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_reads_that_race_with_a_write_leave_nothing_stale_in_memory() {
    const KEYS: u128 = 3000;
    for (l2, filled) in [(true, false), (true, true), (false, false)] {
        let place = Place::shared();
        let (a, b) = (
            Node::start_with(&place, OPTIONS, true, l2).await,
            Node::start_with(&place, OPTIONS, true, l2).await,
        );
        let rows: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
        let read = async |node: &Node, number: u128| {
            let rows = Arc::clone(&rows);
            let index = usize::try_from(number).unwrap();
            let load = move || async move {
                let value = rows[index].load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(Loaded { value: Some(Json(value)), tags: vec![] })
            };
            let question = Question { key: nth_key(number), token: None };
            let tags = || vec![nth_tag(number)];
            node.cache.read::<Json<u64>, _, _>(&node.policy, question, tags, load).await.unwrap()
        };
        if filled {
            stream::iter(0..KEYS).for_each_concurrent(64, async |number| drop(read(&b, number).await)).await;
        }
        stream::iter(0..KEYS)
            .for_each_concurrent(64, async |number| {
                let write = async {
                    rows[usize::try_from(number).unwrap()].store(1, Ordering::SeqCst);
                    b.cache.invalidate(&[nth_tag(number)], "test").await;
                };
                let ((), _, _) = tokio::join!(write, read(&a, number), read(&a, number));
            })
            .await;
        if l2 || b.source() == "redis" {
            a.has_heard(&b).await;
        }
        let mut stale = 0;
        for number in 0..KEYS {
            let read = read(&a, number).await;
            stale += usize::from(read.value.unwrap().0 == 0);
        }
        assert_eq!(stale, 0, "of {KEYS}, L2 {l2}, filled {filled}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_ends_all_the_entries_that_it_names() {
    let place = Place::shared();
    let (a, b) = (Node::start(&place).await, Node::start(&place).await);
    let tags: Vec<_> = (0..40).map(nth_tag).collect();
    let read = async |node: &Node, number: u128, value: u64| {
        let load = move || async move { Ok(Loaded { value: Some(Json(value)), tags: vec![] }) };
        let question = Question { key: nth_key(number), token: None };
        let known = || vec![nth_tag(number)];
        node.cache
            .read::<Json<u64>, _, _>(&node.policy, question, known, load)
            .await
            .unwrap()
            .value
            .unwrap()
            .0
    };
    for number in 0..40 {
        assert_eq!((read(&a, number, 0).await, read(&b, number, 0).await), (0, 0));
    }
    a.cache.invalidate(&tags, "test").await;
    b.has_heard(&a).await;
    for number in 0..40 {
        assert_eq!((read(&b, number, 1).await, read(&a, number, 2).await), (1, 1), "entry {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_again_changes_nothing() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "again".to_owned() };
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    a.read(&row).await;
    let message = message_of(&place, &redis, b.write(&row, 1)).await;
    for value in 2..=5 {
        b.write(&row, value).await;
    }
    a.has_heard(&b).await;
    assert_eq!((a.read_value(&row).await, b.read_value(&row).await), (5, 5));
    let entry = format!("again:entry:{}", key());
    let stored: String = redis.run(&["GET", &entry]).await;
    let version: String = redis.run(&["GET", &format!("again:tag:{}", known_tag())]).await;
    let before = a.cache.report();
    for _ in 0..20 {
        let heard_by: u32 = redis.run(&["PUBLISH", "again:invalidations", &message]).await;
        assert_eq!(heard_by, 2);
    }
    // The next one is heard after those.
    b.cache.invalidate(&[Tag::new("other", Uuid::nil())], "test").await;
    a.has_heard(&b).await;
    for node in [&a, &b] {
        let (value, l1, _) = node.read(&row).await;
        assert!(value == 5 && is_hit(l1), "{value} {l1:?}");
    }
    assert_eq!(a.cache.report().epoch, before.epoch, "and nobody lost trust");
    assert_eq!(redis.run::<String>(&["GET", &entry]).await, stored);
    assert_eq!(redis.run::<String>(&["GET", &format!("again:tag:{}", known_tag())]).await, version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_read_costs_trust_for_a_moment_and_no_truth() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "unreadable".to_owned() };
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    let unreadable = [
        "",
        "\n",
        "lockstep2 1 2 3 x",
        "lockstep1 0 1",
        "lockstep1 g 1 a row",
        // A later one, with a tag that has no name.
        "lockstep1 EPOCH 9999999999999999 c row  row",
    ];
    for (value, message) in (1..).zip(unreadable) {
        let message = message.replace("EPOCH", &format!("{:x}", a.cache.report().epoch));
        a.read(&row).await;
        let before =
            (a.count("lockstep_cache_distrusts_total", &[]), b.count("lockstep_cache_distrusts_total", &[]));
        let _: u32 = redis.run(&["PUBLISH", "unreadable:invalidations", &message]).await;
        row.value.store(value, Ordering::SeqCst);
        b.cache.invalidate(&[known_tag()], "test").await;
        assert_eq!(b.read_value(&row).await, value);
        eventually("A sees the write", Duration::from_millis(1500), async || {
            (a.read_value(&row).await == value).then_some(())
        })
        .await;
        eventually("both have given up what they had", Duration::from_millis(1500), async || {
            let now = (
                a.count("lockstep_cache_distrusts_total", &[]),
                b.count("lockstep_cache_distrusts_total", &[]),
            );
            (now.0 > before.0 && now.1 > before.1).then_some(())
        })
        .await;
        a.trusted().await;
        b.trusted().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_messages_are_noticed_while_the_connection_stands() {
    let redis = PrivateRedis::start().await;
    let proxy = Proxy::start(&redis).await;
    let at_proxy = Place { url: proxy.url.clone(), namespace: "swallowed".to_owned() };
    let direct = Place { url: redis.url.clone(), ..at_proxy.clone() };
    let (a, b, row) = (Node::start(&at_proxy).await, Node::start(&direct).await, Arc::new(Row::default()));
    proxy.lose_messages(true);
    for value in 1..=5 {
        a.read(&row).await;
        b.write(&row, value).await;
        eventually("A sees the write", Duration::from_millis(1500), async || {
            (a.read_value(&row).await == value).then_some(())
        })
        .await;
    }
    // Its own writes need no message.
    for value in 6..=10 {
        row.value.store(value, Ordering::SeqCst);
        a.cache.invalidate(&[known_tag()], "test").await;
        assert_eq!(a.read_value(&row).await, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_waits_for_no_load() {
    let place = Place::shared();
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    let gate = Arc::new(Gate::default());
    let (_, ()) = tokio::join!(a.read_gated(&row, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        for tag in [known_tag(), learned_tag(), Tag::all()] {
            for node in [&a, &b] {
                let tags = [tag.clone()];
                let invalidated = node.cache.invalidate(&tags, "test");
                let invalidated = tokio::time::timeout(Duration::from_secs(3), invalidated).await;
                assert!(invalidated.expect("the gate is closed").announced);
            }
        }
        gate.open.notify_one();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_begins_after_everything_was_invalidated_never_joins_an_older_load() {
    let node = Node::start(&Place::shared()).await;
    let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
    let (old, fresh) = tokio::join!(node.read_gated(&row, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        node.write_tag(&row, 1, Tag::all()).await;
        let fresh = tokio::time::timeout(Duration::from_secs(3), node.read_value(&row)).await;
        gate.open.notify_one();
        fresh
    });
    assert_eq!((old.unwrap().0, fresh), (0, Ok(1)));
    assert_eq!(node.read_value(&row).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_invalidates_is_told_whether_all_will_hear_of_it() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "told".to_owned() };
    let (node, row) = (Node::start(&place).await, Arc::new(Row::default()));
    node.read(&row).await;
    assert!(node.cache.invalidate(&[known_tag()], "test").await.announced);
    redis.kill();
    row.value.store(1, Ordering::SeqCst);
    let invalidated = node.cache.invalidate(&[known_tag()], "test").await;
    assert!(!invalidated.announced && invalidated.token == Token::unknown(), "{invalidated:?}");
    assert!(node.cache.relay(&[known_tag()]).await.is_none(), "nor can it be told for others");
    assert_eq!(node.read_value(&row).await, 1, "this node knows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_writes_nothing_over_what_others_have_stored() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "back".to_owned() };
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    let entry = format!("back:entry:{}", key());
    for value in 1..=5 {
        a.read(&row).await;
        redis.signal("STOP");
        eventually("A is cut off", Duration::from_secs(10), async || a.cache.is_degraded().then_some(()))
            .await;
        assert_eq!(a.read_value(&row).await, value - 1, "from the database");
        redis.signal("CONT");
        b.trusted().await;
        b.write(&row, value).await;
        assert_eq!(b.read_value(&row).await, value);
        let stored: String = redis.run(&["GET", &entry]).await;
        a.trusted().await;
        eventually("A sees the write", Duration::from_millis(1500), async || {
            (a.read_value(&row).await == value).then_some(())
        })
        .await;
        assert!(stored.ends_with(&format!("\n{value}")), "{stored}");
        assert_eq!(redis.run::<String>(&["GET", &entry]).await, stored);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_has_lost_its_lock_does_not_let_go_of_anothers() {
    let place = Place::shared();
    let (a, b) = (Node::start(&place).await, Node::start(&place).await);
    let row = Arc::new(Row::default());
    let lock = format!("{}:lock:{}", place.namespace, key());
    let (first, second) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let holder = async || redis::run::<Option<String>>(&place.url, &["GET", &lock]).await;
    let slow = a.read_gated(&row, None, Some(Arc::clone(&first)));
    let (_, ()) = tokio::join!(slow, async {
        first.reached.notified().await;
        let held_first = holder().await.expect("the first load holds it");
        eventually("the lock's time is up", Duration::from_secs(5), async || {
            holder().await.is_none().then_some(())
        })
        .await;
        b.write(&row, 1).await;
        let (_, ()) = tokio::join!(b.read_gated(&row, None, Some(Arc::clone(&second))), async {
            second.reached.notified().await;
            let held = holder().await.expect("the second load holds it");
            assert_ne!(held, held_first);
            // The first one ends, and its entry and its lock are its own affair.
            first.open.notify_one();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(holder().await.as_ref(), Some(&held));
            second.open.notify_one();
        });
    });
    let reads = join_all([&a, &b].map(|node| node.read_value(&row))).await;
    assert_eq!(reads, [1, 1]);
}
