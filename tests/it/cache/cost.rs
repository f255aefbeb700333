//! What things cost: commands in Redis, connections, memory.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use lockstep::cache::{PolicyOptions, TierStatus};

use super::{Node, OPTIONS, Place, Row, Setup, is_hit, key, nth_key};
use crate::support::{
    eventually,
    redis::{self, PrivateRedis},
};

/// How often Redis has run a command, also in scripts.
pub(super) fn calls(stats: &str, command: &str) -> u64 {
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_is_one_message_that_reaches_all_of_ten_nodes_and_costs_none_of_them_a_command() {
    const WRITES: u64 = 20;
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "ten".to_owned() };
    let nodes = join_all((0..10).map(|_| Node::start(&place))).await;
    let row = Arc::new(Row::default());
    // Without L2, so that what is counted are the invalidations.
    for node in &nodes {
        node.read(&row).await;
    }
    let () = redis.run(&["CONFIG", "RESETSTAT"]).await;
    for value in 1..=WRITES {
        nodes[0].write(&row, value).await;
    }
    for node in &nodes {
        node.has_heard(&nodes[0]).await;
    }
    let stats: String = redis.run(&["INFO", "commandstats"]).await;
    for command in ["keys", "scan", "del", "unlink", "mget", "getrange", "get", "xadd", "xreadgroup"] {
        assert_eq!(calls(&stats, command), 0, "{command}:\n{stats}");
    }
    assert_eq!(calls(&stats, "publish"), WRITES, "{stats}");
    assert_eq!(calls(&stats, "hincrby"), WRITES, "{stats}");
    // One for the version of the tag; the others are heartbeats.
    assert_eq!(calls(&stats, "set") - calls(&stats, "hmget"), WRITES, "{stats}");
    for node in &nodes {
        assert_eq!(node.read_value(&row).await, WRITES);
    }
    assert_eq!(row.loads.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_costs_redis_the_same_among_a_thousand_entries_and_among_a_million() {
    let mut averages = Vec::new();
    for entries in [1_000, 1_000_000_u32] {
        let redis = PrivateRedis::start().await;
        for step in 0..entries.div_ceil(100_000) {
            let (from, to) = (step * 100_000 + 1, entries.min((step + 1) * 100_000));
            let set =
                "redis.call('SET', 'cost:entry:row:' .. i, 'x') redis.call('SET', 'cost:tag:row:' .. i, i)";
            let filling = format!("for i = {from}, {to} do {set} end");
            let _nothing: ::redis::Value = redis.run(&["EVAL", &filling, "0"]).await;
        }
        let place = Place { url: redis.url.clone(), namespace: "cost".to_owned() };
        let (node, row) = (Node::start(&place).await, Arc::new(Row::default()));
        let () = redis.run(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]).await;
        let (mut best, mut value) = (f64::INFINITY, 0);
        // Redis counts the time that a busy machine takes from it too: what it needs itself shows in the best round.
        for _ in 0..10 {
            let () = redis.run(&["CONFIG", "RESETSTAT"]).await;
            let () = redis.run(&["SLOWLOG", "RESET"]).await;
            for _ in 0..50 {
                value += 1;
                node.write(&row, value).await;
            }
            let stats: String = redis.run(&["INFO", "commandstats"]).await;
            let slow: u64 = redis.run(&["SLOWLOG", "LEN"]).await;
            if slow == 0 {
                let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
                let average = line.split(',').find_map(|part| part.strip_prefix("usec_per_call=")).unwrap();
                best = best.min(average.parse().unwrap());
            }
        }
        assert!(best.is_finite(), "in each round a command took more than a millisecond");
        averages.push(best);
    }
    println!("microseconds of Redis for an invalidation: {averages:?}");
    assert!(averages[1] < 2.0 * averages[0] + 20.0, "{averages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_l2_share_a_connection_and_what_they_find_goes_into_l1() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "shared".to_owned() };
    let (a, b) = (Node::start(&place).await, Node::start(&place).await);
    let opened = async || {
        let stats: String = redis.run(&["INFO", "stats"]).await;
        let line = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    for number in 0..200 {
        a.read_key(nth_key(number), Some(1_u64)).await;
    }
    let before = opened().await;
    let reads = join_all((0..200).map(|number| b.read_key(nth_key(number), Some(2_u64)))).await;
    assert!(reads.iter().all(|read| is_hit(read.status.l2) && read.value.as_ref().unwrap().0 == 1));
    let again = join_all((0..200).map(|number| b.read_key(nth_key(number), Some(3_u64)))).await;
    assert!(again.iter().all(|read| is_hit(read.status.l1) && read.status.l2 == TierStatus::Unused));
    assert_eq!(opened().await - before, 1, "the one that asks");
    let kind = |tier| [("tier", tier), ("result", "hit")];
    assert_eq!(b.count("lockstep_cache_requests_total", &kind("l2")), 200);
    assert_eq!(b.count("lockstep_cache_requests_total", &kind("l1")), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_keeps_to_its_bytes() {
    const MOST: u64 = 1 << 20;
    let setup = Setup { l2: false, l1_max_bytes: MOST, ..Setup::default() };
    let node = Node::start_as(&Place::shared(), setup).await;
    // Each weighs about 700 bytes.
    for number in 0..20_000 {
        node.read_key(nth_key(number), Some(1_u64)).await;
    }
    eventually("it is within its bounds", Duration::from_secs(5), async || {
        let (entries, bytes) = node.cache.report().l1.unwrap();
        (bytes <= MOST && entries > 1000).then_some(())
    })
    .await;
    assert!(is_hit(node.read_key(nth_key(19_999), Some(1_u64)).await.status.l1), "the latest is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_keeps_an_entry_for_its_time_and_no_longer_however_often_it_is_read() {
    let options = PolicyOptions { l1: Duration::from_millis(500), jitter: 0, ..OPTIONS };
    let node = Node::start_with(&Place::shared(), options, true, true).await;
    node.read_key(key(), Some(1_u64)).await;
    let begun = std::time::Instant::now();
    eventually("its time is up", Duration::from_secs(5), async || {
        let read = node.read_key(key(), Some(2_u64)).await;
        let from_l2 = is_hit(read.status.l2);
        assert!(from_l2 || is_hit(read.status.l1));
        from_l2.then_some(())
    })
    .await;
    let lived = begun.elapsed();
    assert!(lived >= Duration::from_millis(450), "{lived:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_takes_the_place_of_another_has_its_own_time_in_both_tiers() {
    let brief = PolicyOptions {
        l1: Duration::from_millis(400),
        l2: Duration::from_millis(400),
        fail_safe: Duration::ZERO,
        jitter: 0,
        ..OPTIONS
    };
    let usual = PolicyOptions { fail_safe: Duration::ZERO, jitter: 0, ..OPTIONS };
    let entry_of = |place: &Place| format!("{}:entry:{}", place.namespace, key());
    for (first, second) in [(brief, usual), (usual, brief)] {
        let place = Place::shared();
        let (node, row) = (Node::start(&place).await, Arc::new(Row::default()));
        node.read_by(&node.policy(first), &row, None, None).await.unwrap();
        node.write(&row, 1).await;
        node.read_by(&node.policy(second), &row, None, None).await.unwrap();
        let left: u64 = redis::run(&place.url, &["PTTL", &entry_of(&place)]).await;
        let life = u64::try_from(second.l2.as_millis()).unwrap();
        assert!((life / 4 * 3..=life).contains(&left) || second == brief && left <= life, "{left} of {life}");
        // Longer than the brief one lives.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let held = node.cache.explain(&key().to_string()).await.unwrap();
        let lives = second == usual;
        assert_eq!((held.l1.is_some_and(|l1| l1.fresh), held.l2.is_some_and(|l2| l2.fresh)), (lives, lives));
        assert_eq!(is_hit(node.read(&row).await.1), lives);
    }
}
