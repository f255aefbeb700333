//! Redis slow, stopped or gone: what readers wait for, and how much reaches the database.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use lockstep::cache::TierStatus;

use super::{Gate, Node, Place, Row, Setup, is_hit, nth_key};
use crate::support::{eventually, proxy::Proxy, redis::PrivateRedis};

/// How long one read of something that nobody has asked for took.
async fn cold_read(node: &Node, number: u128) -> Duration {
    let begun = Instant::now();
    node.read_key(nth_key(number), Some(1_u64)).await;
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_has_become_slow_is_not_waited_for_and_is_used_again_once_it_is_well() {
    const SLOW: Duration = Duration::from_millis(700);
    let redis = PrivateRedis::start().await;
    let proxy = Proxy::start(&redis).await;
    let place = Place { url: proxy.url.clone(), namespace: "slow".to_owned() };
    let setup = Setup { redis_timeout: Duration::from_secs(1), ..Setup::default() };
    let node = Node::start_as(&place, setup).await;
    assert!(cold_read(&node, 0).await < SLOW);

    proxy.delay(SLOW);
    let reads = (1..40).map(|number| cold_read(&node, number));
    join_all(reads).await;
    eventually("it is given up", Duration::from_secs(5), async || (node.source() == "none").then_some(()))
        .await;
    // As long as it is slow, nobody waits for it.
    let begun = Instant::now();
    let mut number = 100;
    while begun.elapsed() < Duration::from_secs(3) {
        let took = cold_read(&node, number).await;
        assert!(took < SLOW / 2, "read {number} took {took:?}");
        let read = node.read_key(nth_key(number), Some(1_u64)).await;
        assert_eq!((read.status.l1, read.status.l2), (TierStatus::NoLease, TierStatus::Unavailable));
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    proxy.delay(Duration::ZERO);
    node.trusted().await;
    let read = node.read_key(nth_key(0), Some(2_u64)).await;
    assert!(read.value.unwrap().0 == 1 && is_hit(read.status.l2), "{:?}", read.status);
    let read = node.read_key(nth_key(1000), Some(2_u64)).await;
    assert!(read.status.stored_l1 && read.status.stored_l2, "{:?}", read.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_a_little_slow_now_and_then_is_kept() {
    let redis = PrivateRedis::start().await;
    let proxy = Proxy::start(&redis).await;
    let place = Place { url: proxy.url.clone(), namespace: "uneven".to_owned() };
    let node = Node::start(&place).await;
    let lost = node.count("lockstep_cache_distrusts_total", &[]);
    for number in 0..60 {
        proxy.delay(Duration::from_millis(if number % 10 == 0 { 150 } else { 0 }));
        cold_read(&node, number).await;
    }
    assert_eq!(node.count("lockstep_cache_distrusts_total", &[]), lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_costs_its_readers_a_few_timeouts_in_all() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "still".to_owned() };
    let node = Node::start_as(&place, Setup { redis_timeout: TIMEOUT, ..Setup::default() }).await;
    redis.signal("STOP");
    let begun = Instant::now();
    for number in 0..50 {
        cold_read(&node, number).await;
    }
    let took = begun.elapsed();
    redis.signal("CONT");
    assert!(took < 5 * TIMEOUT, "50 reads took {took:?}");
    node.trusted().await;
    assert!(node.read_key(nth_key(1000), Some(1_u64)).await.status.stored_l2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_loaded_is_served_although_redis_went_away_before_it_could_be_stored() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "unstored".to_owned() };
    let (node, row, gate) = (Node::start(&place).await, Arc::new(Row::default()), Arc::new(Gate::default()));
    row.value.store(7, Ordering::SeqCst);
    let first = node.read_gated(&row, None, Some(Arc::clone(&gate)));
    let all = async {
        tokio::join!(first, async {
            gate.reached.notified().await;
            let others = join_all((0..20).map(|_| node.read(&row)));
            let going_away = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                redis.kill();
                gate.open.notify_one();
            };
            tokio::join!(others, going_away).0
        })
    };
    let (first, others) = tokio::time::timeout(Duration::from_secs(5), all).await.expect("all are served");
    assert!(first.unwrap().0 == 7 && others.iter().all(|read| read.0 == 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_gone_readers_who_come_together_share_their_loads() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "alone".to_owned() };
    let (node, row) = (Node::start(&place).await, Arc::new(Row::default()));
    node.read(&row).await;
    redis.kill();
    eventually("trust is lost", Duration::from_secs(5), async || node.cache.is_degraded().then_some(()))
        .await;
    let gate = Arc::new(Gate::default());
    let before = row.loads.load(Ordering::SeqCst);
    let readers = join_all((0..200).map(|_| node.read_gated(&row, None, Some(Arc::clone(&gate)))));
    let (reads, ()) = tokio::join!(readers, async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open.notify_one();
    });
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(row.loads.load(Ordering::SeqCst) - before, 1);
}
