//! Reads that are asked of Redis together.

use std::{iter, time::Duration};

use futures_util::future::join_all;
use lockstep::cache::{Item, Json, Loaded, Read, TierStatus};

use super::{Node, OPTIONS, Place, cost::calls, is_hit, known_tag, nth_key};
use crate::support::{eventually, redis::PrivateRedis};

/// More than go in one call.
const MANY: u64 = 40;
/// One of them, with which something is wrong.
const WRONG: u64 = 35;
const NEXT: u64 = WRONG + 1;

/// A node that has its values in Redis only, and all of them there.
async fn filled() -> (PrivateRedis, Node) {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "together".to_owned() };
    let node = Node::start_with(&place, OPTIONS, false, true).await;
    assert!(read_all(&node, 0).await.iter().all(|read| read.status.stored_l2));
    (redis, node)
}

/// Reads all at the same time. Whatever is loaded for it is larger by so much.
async fn read_all(node: &Node, more: u64) -> Vec<Read<Json<u64>>> {
    join_all((0..MANY).map(|number| node.read_key(nth_key(number.into()), Some(number + more)))).await
}

fn value_and_l2(read: Read<Json<u64>>) -> (u64, TierStatus) {
    (read.value.unwrap().0, read.status.l2)
}

async fn spoil_one(redis: &PrivateRedis) {
    let entry = format!("together:entry:{}", nth_key(WRONG.into()));
    let _deleted: u32 = redis.run(&["DEL", &entry]).await;
    let _length: u32 = redis.run(&["RPUSH", &entry, "no text"]).await;
}

#[tokio::test(flavor = "current_thread")]
async fn what_goes_wrong_with_one_read_is_none_of_the_others() {
    let (redis, node) = filled().await;
    spoil_one(&redis).await;
    let () = redis.run(&["CONFIG", "RESETSTAT"]).await;
    for (number, read) in (0..MANY).zip(read_all(&node, 1000).await) {
        let (value, l2) = value_and_l2(read);
        if number == WRONG {
            assert_eq!((value, l2), (number + 1000, TierStatus::Unavailable));
        } else {
            assert!(value == number && is_hit(l2), "{number}: {value}, {l2:?}");
        }
    }
    let stats: String = redis.run(&["INFO", "commandstats"]).await;
    // Two for the reads, and the polls that went on meanwhile.
    assert!((2..=10).contains(&calls(&stats, "evalsha")), "{stats}");
}

#[tokio::test(flavor = "current_thread")]
async fn nor_is_it_in_a_batch() {
    let (redis, node) = filled().await;
    spoil_one(&redis).await;
    let next = format!("together:entry:{}", nth_key(NEXT.into()));
    let _deleted: u32 = redis.run(&["DEL", &next]).await;
    let item = |number: u64| Item { key: nth_key(number.into()), tags: vec![known_tag()] };
    let items: Vec<_> = (0..MANY).map(item).collect();
    let load = |wanted: Vec<usize>| async move {
        let wrong = usize::try_from(WRONG)?;
        assert_eq!(wanted, [wrong, wrong + 1]);
        Ok(wanted.iter().map(|_| Loaded { value: Some(Json(1000)), tags: vec![] }).collect())
    };
    let reads = node.cache.read_many::<Json<u64>, _, _>(&node.policy, &items, None, load).await.unwrap();
    for (number, read) in (0..MANY).zip(reads) {
        let is_stored = read.status.stored_l2;
        let (value, l2) = value_and_l2(read);
        match number {
            WRONG => assert_eq!((value, l2, is_stored), (1000, TierStatus::Unavailable, false)),
            NEXT => assert_eq!((value, l2, is_stored), (1000, TierStatus::Miss, true)),
            _ => assert!(value == number && is_hit(l2), "{number}: {value}, {l2:?}"),
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_redis_that_is_full_gives_what_it_has_until_that_is_noticed() {
    let (redis, node) = filled().await;
    eventually("all are found", Duration::from_secs(20), async || {
        let () = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
        node.trusted().await;
        let () = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
        let reads = read_all(&node, 0).await;
        reads.iter().all(|read| is_hit(read.status.l2)).then_some(())
    })
    .await;
    // The right to load it cannot be noted there.
    let read = node.read_key(nth_key(1000), Some(7_u64)).await;
    assert_eq!(value_and_l2(read), (7, TierStatus::Unavailable));
}

#[tokio::test(flavor = "current_thread")]
async fn scripts_that_were_forgotten_are_told_again() {
    let (redis, node) = filled().await;
    let () = redis.run(&["SCRIPT", "FLUSH"]).await;
    assert!(read_all(&node, 1000).await.iter().all(|read| is_hit(read.status.l2)));
}

#[tokio::test(flavor = "current_thread")]
async fn large_entries_come_in_several_calls() {
    let (redis, node) = filled().await;
    // What cannot be compressed.
    let noise = || iter::repeat_with(rand::random::<char>).take(50_000).collect::<String>();
    let values: Vec<_> = (1000..1020_u32).map(|number| (nth_key(number.into()), noise())).collect();
    let read_all = || join_all(values.iter().map(|(key, value)| node.read_key(*key, Some(value.clone()))));
    assert!(read_all().await.iter().all(|read| read.status.stored_l2));
    eventually("all are found", Duration::from_secs(10), async || {
        let () = redis.run(&["CONFIG", "RESETSTAT"]).await;
        let reads = read_all().await;
        for ((_, value), read) in values.iter().zip(&reads) {
            assert_eq!(read.value.as_ref().unwrap().0, *value);
        }
        reads.iter().all(|read| is_hit(read.status.l2)).then_some(())
    })
    .await;
    let stats: String = redis.run(&["INFO", "commandstats"]).await;
    assert!(calls(&stats, "evalsha") > 5, "{stats}");
}
