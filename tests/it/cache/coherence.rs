//! Nothing older than promised.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lockstep::cache::TierStatus;

use super::{Gate, Node, Place, Row, is_hit, known_tag, learned_tag};
use crate::support::{eventually, redis::PrivateRedis};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_passes_from_the_database_to_l2_to_l1_and_is_found_there() {
    let place = Place::shared();
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    assert_eq!(a.read(&row).await, (0, TierStatus::Miss, TierStatus::Miss));
    let (_, l1, _) = a.read(&row).await;
    assert!(is_hit(l1));
    let (_, l1, l2) = b.read(&row).await;
    assert!(l1 == TierStatus::Miss && is_hit(l2), "{l1:?} {l2:?}");
    let (_, l1, _) = b.read(&row).await;
    assert!(is_hit(l1));
    assert_eq!(row.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_began_before_an_invalidation_leaves_nothing_behind_in_any_tier() {
    for tag in [known_tag(), learned_tag()] {
        let place = Place::shared();
        let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
        // Both tags have versions, so that nothing below depends on their being made.
        b.read(&row).await;
        let token = b.write_tag(&row, 1, tag.clone()).await;

        let gate = Arc::new(Gate::default());
        let slow = a.read_gated(&row, Some(&token), Some(Arc::clone(&gate)));
        let (slow, ()) = tokio::join!(slow, async {
            gate.reached.notified().await;
            b.write_tag(&row, 2, tag.clone()).await;
            gate.open.notify_one();
        });
        assert_eq!(slow.unwrap().0, 1, "it had read before the write");
        // The bus is milliseconds behind at most; a third node has nothing but L2.
        eventually("A sees the write", Duration::from_millis(500), async || {
            (a.read_value(&row).await == 2).then_some(())
        })
        .await;
        let c = Node::start(&place).await;
        for node in [&a, &b, &c] {
            assert_eq!(node.read_value(&row).await, 2, "after a write under {tag}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_begins_after_a_write_on_the_same_node_never_joins_an_older_load() {
    for tag in [known_tag(), learned_tag()] {
        let node = Node::start(&Place::shared()).await;
        let row = Arc::new(Row::default());
        let gate = Arc::new(Gate::default());
        let old = node.read_gated(&row, None, Some(Arc::clone(&gate)));
        let (old, fresh) = tokio::join!(old, async {
            gate.reached.notified().await;
            node.write_tag(&row, 1, tag.clone()).await;
            let fresh = tokio::time::timeout(Duration::from_secs(5), async {
                // For a tag that nobody knew, the flight is joined and found wanting only when it has landed.
                tokio::join!(node.read_value(&row), async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    gate.open.notify_one();
                })
                .0
            });
            fresh.await.expect("the read ends")
        });
        assert_eq!(old.unwrap().0, 0);
        assert_eq!(fresh, 1, "after a write under {tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_token_of_a_write_no_node_answers_from_before_it() {
    let place = Place::shared();
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    for value in 1..=500 {
        b.read(&row).await;
        let token = a.write(&row, value).await;
        assert_eq!(b.read_gated(&row, Some(&token), None).await.unwrap().0, value);
        assert_eq!(a.read_value(&row).await, value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_reads_at_once_on_two_nodes_never_show_a_node_less_than_it_has_acknowledged() {
    let place = Place::shared();
    let (a, b) = (Arc::new(Node::start(&place).await), Arc::new(Node::start(&place).await));
    let row = Arc::new(Row::default());
    let acknowledged = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let stop = tokio_util::sync::CancellationToken::new();
    let mut readers = Vec::new();
    for _ in 0..8 {
        let (a, row, acknowledged, stop) =
            (Arc::clone(&a), Arc::clone(&row), Arc::clone(&acknowledged), stop.clone());
        readers.push(tokio::spawn(async move {
            let mut reads = 0_u64;
            while !stop.is_cancelled() {
                let least = acknowledged.load(Ordering::SeqCst);
                let seen = a.read_value(&row).await;
                assert!(seen >= least, "read {seen} after {least} was acknowledged");
                reads += 1;
                tokio::task::yield_now().await;
            }
            reads
        }));
    }
    for value in 1..=2000 {
        let tag = if value % 2 == 0 { known_tag() } else { learned_tag() };
        a.write_tag(&row, value, tag).await;
        acknowledged.store(value, Ordering::SeqCst);
        if value % 7 == 0 {
            b.read(&row).await;
        }
    }
    stop.cancel();
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    eventually("B sees the last write", Duration::from_millis(500), async || {
        (b.read_value(&row).await == 2000).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidating_everything_spares_no_entry() {
    let place = Place::shared();
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    a.read(&row).await;
    b.read(&row).await;
    let token = a.write_tag(&row, 1, lockstep::cache::Tag::all()).await;
    assert_eq!(a.read_value(&row).await, 1);
    assert_eq!(b.read_gated(&row, Some(&token), None).await.unwrap().0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_whose_message_was_lost_is_noticed_by_the_sequence() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "lost".to_owned() };
    let (a, row) = (Node::start(&place).await, Arc::new(Row::default()));
    a.read(&row).await;
    row.value.store(1, Ordering::SeqCst);
    // What the script does, without the message.
    let sequence: u64 = redis.run(&["HINCRBY", "lost:meta", "sequence", "1"]).await;
    let () = redis.run(&["SET", &format!("lost:tag:{}", known_tag()), &sequence.to_string()]).await;
    eventually("A sees the write", Duration::from_millis(1500), async || {
        (a.read_value(&row).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_subscription_is_killed_serves_nothing_stale_afterwards() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "killed".to_owned() };
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    for value in 1..=20 {
        a.read(&row).await;
        b.read(&row).await;
        let _killed: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        row.value.store(value, Ordering::SeqCst);
        b.cache.invalidate(&[known_tag()], "test").await;
        assert_eq!(b.read_value(&row).await, value, "on the node that wrote");
        eventually("A sees the write", Duration::from_millis(1500), async || {
            (a.read_value(&row).await == value).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_flushed_or_replaced_by_an_empty_one_brings_nothing_back() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "emptied".to_owned() };
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    for round in 0..4 {
        a.read(&row).await;
        b.read(&row).await;
        if round % 2 == 0 {
            let () = redis.run(&["FLUSHALL"]).await;
        } else {
            redis.restart_empty().await;
        }
        row.value.store(round + 1, Ordering::SeqCst);
        // Whether or not it could be announced: this node never shows less than it has written.
        b.cache.invalidate(&[known_tag()], "test").await;
        assert_eq!(b.read_value(&row).await, round + 1);
        eventually("A sees the write", Duration::from_millis(1500), async || {
            (a.read_value(&row).await == round + 1).then_some(())
        })
        .await;
        a.trusted().await;
        b.trusted().await;
        assert_eq!((a.read_value(&row).await, b.read_value(&row).await), (round + 1, round + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_reach_redis_loads_and_keeps_nothing() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "gone".to_owned() };
    let (a, row) = (Node::start(&place).await, Arc::new(Row::default()));
    a.read(&row).await;
    redis.kill();
    for value in 1..=5 {
        row.value.store(value, Ordering::SeqCst);
        a.cache.invalidate(&[known_tag()], "test").await;
        assert_eq!(a.read_value(&row).await, value);
    }
}
