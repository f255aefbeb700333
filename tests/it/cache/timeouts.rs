//! Loads that take long: something older meanwhile, and an end.

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lockstep::cache::{Json, LoadError, PolicyOptions, Question, Tag, TierStatus};
use uuid::Uuid;

use super::{Gate, Node, OPTIONS, Place, Row, is_hit, key, known_tag, learned_tag};
use crate::support::eventually;

const SOFT_TIMEOUTS: &str = "lockstep_cache_soft_timeouts_total";

/// Ends at once in both tiers, and is kept for when there is nothing else.
const BRIEF: PolicyOptions = PolicyOptions {
    l1: Duration::from_millis(50),
    l2: Duration::from_millis(50),
    jitter: 0,
    fail_safe: Duration::from_secs(60),
    ..OPTIONS
};

/// Something older is served soon.
const IMPATIENT: PolicyOptions = PolicyOptions {
    soft: Duration::from_millis(100),
    hard: Duration::from_secs(20),
    fail_safe: Duration::from_secs(60),
    ..OPTIONS
};

/// The row has been read, and its time is up in both tiers.
async fn expired(node: &Node, row: &Arc<Row>) {
    node.read_by(&node.policy(BRIEF), row, None, None).await.unwrap();
    eventually("its time is up", Duration::from_secs(3), async || {
        let held = node.cache.explain(&key().to_string()).await.unwrap();
        let ended = |fresh: Option<bool>| !fresh.unwrap_or_default();
        (ended(held.l1.map(|l1| l1.fresh)) && ended(held.l2.map(|l2| l2.fresh))).then_some(())
    })
    .await;
}

fn is_fail_safe((_, l1, l2): (u64, TierStatus, TierStatus)) -> bool {
    [l1, l2].iter().any(|status| matches!(status, TierStatus::FailSafe(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_load_takes_long_something_older_is_served_and_the_load_fills_both_tiers_as_of_its_beginning()
{
    let place = Place::shared();
    let [a, b] = Node::start_two(&place, IMPATIENT, true).await;
    let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
    expired(&a, &row).await;
    row.value.store(1, Ordering::SeqCst);
    let begun_as_of = a.cache.report().sequence;
    let begun = Instant::now();
    let older = a.read_gated(&row, None, Some(Arc::clone(&gate))).await.unwrap();
    assert!(older.0 == 0 && is_fail_safe(older), "{older:?}");
    assert!(begun.elapsed() >= IMPATIENT.soft, "after {:?}", begun.elapsed());
    assert_eq!(a.count(SOFT_TIMEOUTS, &[]), 1);
    // Nobody begins another load in this process, or waits for this one.
    for _ in 0..20 {
        let reads = join_all((0..10).map(|_| a.read(&row))).await;
        assert!(reads.iter().all(|read| read.0 == 0 && is_fail_safe(*read)), "{reads:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(row.loads.load(Ordering::SeqCst), 2);
    // The sequence goes on, and the load keeps the number that it began with.
    for _ in 0..5 {
        a.cache.invalidate(&[Tag::new("other", Uuid::nil())], "test").await;
    }
    gate.open.notify_one();
    eventually("the load has ended", Duration::from_secs(3), async || {
        let (value, l1, _) = a.read(&row).await;
        (value == 1 && is_hit(l1)).then_some(())
    })
    .await;
    let held = a.cache.explain(&key().to_string()).await.unwrap();
    assert_eq!((held.l1.unwrap().as_of, held.l2.unwrap().as_of), (Some(begun_as_of), Some(begun_as_of)));
    let (value, _, l2) = b.read(&row).await;
    assert!(value == 1 && is_hit(l2));
    assert_eq!(row.loads.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_load_of_another_is_told_as_well_that_what_he_gets_is_older() {
    let options = PolicyOptions { soft: Duration::from_millis(500), ..IMPATIENT };
    let node = Node::start_with(&Place::shared(), options, true, true).await;
    let (share, row, gate) = (node.share(), Arc::new(Row::default()), Arc::new(Gate::default()));
    expired(&node, &row).await;
    // Whichever of them comes first has to load.
    let reads = [&node, &node, &share].map(|node| node.read_gated(&row, None, Some(Arc::clone(&gate))));
    for read in join_all(reads).await {
        let read = read.unwrap();
        assert!(read.0 == 0 && is_fail_safe(read), "{read:?}");
    }
    assert_eq!(node.count(SOFT_TIMEOUTS, &[]), 1, "they have waited for one load");
    gate.open.notify_one();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_while_something_older_is_served_ends_that_and_the_slow_load_too() {
    for tag in [known_tag(), learned_tag()] {
        let place = Place::shared();
        let [a, b] = Node::start_two(&place, IMPATIENT, true).await;
        let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
        expired(&a, &row).await;
        let older = a.read_gated(&row, None, Some(Arc::clone(&gate))).await.unwrap();
        assert!(is_fail_safe(older), "{older:?}");
        let token = a.write_tag(&row, 1, tag.clone()).await;
        assert_eq!(a.read_value(&row).await, 1, "on the node that wrote, under {tag}");
        assert_eq!(b.read_gated(&row, Some(&token), None).await.unwrap().0, 1);
        b.has_heard(&a).await;
        gate.open.notify_one();
        let c = Node::start_with(&place, IMPATIENT, true, true).await;
        for _ in 0..100 {
            for node in [&a, &b, &c] {
                assert_eq!(node.read_value(&row).await, 1, "under {tag}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_for_want_of_newer_is_never_written_back() {
    let place = Place::shared();
    let [a, b] = Node::start_two(&place, IMPATIENT, true).await;
    let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
    expired(&a, &row).await;
    let older = a.read_gated(&row, None, Some(Arc::clone(&gate))).await.unwrap();
    assert!(is_fail_safe(older), "{older:?}");
    // Another node has a newer one.
    b.write(&row, 1).await;
    assert_eq!(b.read_value(&row).await, 1);
    a.has_heard(&b).await;
    assert_eq!(a.read_value(&row).await, 1);
    gate.open.notify_one();
    let c = Node::start_with(&place, IMPATIENT, true, true).await;
    let (value, _, l2) = c.read(&row).await;
    assert!(value == 1 && is_hit(l2), "{value} {l2:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_takes_longer_than_what_it_renews_lives_is_the_only_load() {
    let options = PolicyOptions { l1: Duration::from_millis(600), jitter: 0, refresh_at: 20, ..IMPATIENT };
    let node = Node::start_with(&Place::shared(), options, true, false).await;
    let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
    node.read(&row).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_, l1, _) = node.read_gated(&row, None, Some(Arc::clone(&gate))).await.unwrap();
    assert!(is_hit(l1), "{l1:?}");
    gate.reached.notified().await;
    // Its time is up now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let reads = join_all((0..20).map(|_| node.read(&row))).await;
    assert!(reads.iter().all(|read| read.0 == 0), "{reads:?}");
    assert_eq!(row.loads.load(Ordering::SeqCst), 2);
    gate.open.notify_one();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_nothing_older_a_slow_load_is_waited_for() {
    let none_allowed = PolicyOptions { fail_safe: Duration::ZERO, ..IMPATIENT };
    for (options, was_there) in [(IMPATIENT, false), (none_allowed, true)] {
        let node = Node::start_with(&Place::shared(), options, true, true).await;
        let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
        if was_there {
            let brief = node.policy(PolicyOptions { fail_safe: Duration::ZERO, ..BRIEF });
            node.read_by(&brief, &row, None, None).await.unwrap();
            tokio::time::sleep(2 * BRIEF.l2).await;
        }
        row.value.store(1, Ordering::SeqCst);
        let (read, ()) = tokio::join!(node.read_gated(&row, None, Some(Arc::clone(&gate))), async {
            tokio::time::sleep(3 * IMPATIENT.soft).await;
            gate.open.notify_one();
        });
        assert_eq!(read.unwrap().0, 1);
        assert_eq!(node.count(SOFT_TIMEOUTS, &[]), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_does_not_end_is_ended_and_everybody_is_told() {
    let options = PolicyOptions { hard: Duration::from_millis(200), ..OPTIONS };
    let node = Node::start_with(&Place::shared(), options, true, true).await;
    let question = Question { key: key(), token: None };
    let readers = join_all((0..10).map(|_| {
        let tags = || vec![known_tag()];
        node.cache.read::<Json<u64>, _, _>(&node.policy, question, tags, || async { pending().await })
    }));
    let reads = tokio::time::timeout(Duration::from_secs(5), readers).await.expect("all are told");
    assert!(reads.iter().all(|read| matches!(read, Err(LoadError::TimedOut(_)))), "{reads:?}");
    // It was not cached, and is in nobody's way.
    let row = Arc::new(Row::default());
    assert_eq!(node.read_value(&row).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_load_is_ended_something_older_is_served_if_there_is_any() {
    let options = PolicyOptions {
        soft: Duration::from_secs(5),
        hard: Duration::from_millis(200),
        fail_safe: Duration::from_secs(60),
        ..OPTIONS
    };
    for l1 in [true, false] {
        let node = Node::start_with(&Place::shared(), options, l1, true).await;
        let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
        expired(&node, &row).await;
        let older = node.read_gated(&row, None, Some(gate)).await.unwrap();
        assert!(older.0 == 0 && is_fail_safe(older), "{older:?}");
        // Not when that was invalidated.
        node.write(&row, 1).await;
        let failed = node.read_gated(&row, None, Some(Arc::default())).await;
        assert!(matches!(failed, Err(LoadError::TimedOut(_))), "{failed:?}");
    }
}
