//! Threads that read from L2 by connections of their own.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, sync::Arc, time::Duration};

use super::{Node, OPTIONS, Place, Row, is_hit};
use crate::support::{eventually, redis::PrivateRedis, unique_name};

/// Who is connected, other than whoever asks.
async fn connected(redis: &PrivateRedis) -> BTreeSet<String> {
    let list: String = redis.run(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    let others = list.lines().filter(|line| !line.contains("cmd=client|list"));
    others.filter_map(|line| line.split(' ').next()?.strip_prefix("id=").map(ToOwned::to_owned)).collect()
}

async fn eventually_connected(redis: &PrivateRedis, count: usize) -> BTreeSet<String> {
    eventually(&format!("there are {count} connections"), Duration::from_secs(10), async || {
        let connected = connected(redis).await;
        (connected.len() == count).then_some(connected)
    })
    .await
}

/// As an Actix worker is.
#[tokio::test(flavor = "current_thread")]
async fn a_thread_reads_by_its_own_connection_and_with_it_goes_that_of_the_others() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "threads".to_owned() };
    let (node, row) = (Node::start_with(&place, OPTIONS, false, true).await, Arc::new(Row::default()));
    let shared = eventually_connected(&redis, 1).await;
    node.cache.add_thread();
    let both = eventually_connected(&redis, 2).await;
    assert_eq!(node.read_value(&row).await, 0);
    let (.., l2) = node.read(&row).await;
    assert!(is_hit(l2), "{l2:?}");

    let own = both.difference(&shared).next().unwrap();
    let _killed: i64 = redis.run(&["CLIENT", "KILL", "ID", own]).await;
    row.value.store(1, std::sync::atomic::Ordering::SeqCst);
    // By whichever way: a read is answered.
    assert!([0, 1].contains(&node.read_value(&row).await));
    eventually("both are opened anew", Duration::from_secs(10), async || {
        let connected = connected(&redis).await;
        (connected.len() == 2 && connected.is_disjoint(&both)).then_some(())
    })
    .await;
    node.trusted().await;
    node.read(&row).await;
    let (.., l2) = node.read(&row).await;
    assert!(is_hit(l2), "{l2:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_whose_connection_leads_to_another_redis_ends_the_use_of_the_first() {
    let (first, second) = (PrivateRedis::start().await, PrivateRedis::start().await);
    // What stands in front of a Redis that is replaced.
    let address = std::env::temp_dir().join(unique_name("address"));
    let socket = |redis: &PrivateRedis| redis.url.trim_start_matches("unix://").to_owned();
    symlink(socket(&first), &address).unwrap();
    let place = Place { url: format!("unix://{}", address.display()), namespace: "threads".to_owned() };
    let node = Node::start_with(&place, OPTIONS, true, true).await;
    let epoch = node.cache.report().epoch;
    fs::remove_file(&address).unwrap();
    symlink(socket(&second), &address).unwrap();
    node.cache.add_thread();
    eventually("it has turned to the second", Duration::from_secs(10), async || {
        let report = node.cache.report();
        (report.source == "redis" && report.epoch != epoch).then_some(())
    })
    .await;
    eventually_connected(&second, 2).await;
    assert_eq!(connected(&first).await, BTreeSet::new());
    fs::remove_file(&address).unwrap();
}
