//! What runs it, what things may be called, how large they may be.

use std::sync::Arc;

use lockstep::cache::{Item, Json, Key, Loaded, Tag};
use uuid::Uuid;

use super::{Node, OPTIONS, Place, Row, is_hit, key, known_tag};
use crate::support::redis;

/// As an Actix worker is.
#[tokio::test(flavor = "current_thread")]
async fn a_runtime_with_one_thread_can_do_everything() {
    let place = Place::shared();
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    for value in 1..=20 {
        let token = a.write(&row, value).await;
        assert_eq!(a.read_value(&row).await, value);
        assert_eq!(b.read_gated(&row, Some(&token), None).await.unwrap().0, value);
    }
    let items = [Item { key: key(), tags: vec![known_tag()] }];
    let load = |_| async { Ok(vec![Loaded { value: Some(Json(0_u64)), tags: vec![] }]) };
    let many = a.cache.read_many(&a.policy, &items, None, load).await.unwrap();
    assert_eq!(many[0].value.as_ref().unwrap().0, 20);
    assert!(a.cache.explain(&key().to_string()).await.unwrap().l2.is_some());
    let pattern = [Tag::pattern("row:*").unwrap()];
    assert!(a.cache.invalidate(&pattern, "test").await.announced);
    a.cache.delete_from_l2(&pattern).await;
    a.cache.measure();
    assert!(a.cache.explain(&key().to_string()).await.unwrap().l2.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn things_may_be_called_what_the_cache_calls_its_own() {
    let place = Place::shared();
    let (a, b) = (Node::start(&place).await, Node::start(&place).await);
    let words =
        ["type", "keys", "config", "meta", "tag", "lock", "entry", "instance", "all", "pattern", "value"];
    let mut keys = Vec::new();
    for word in words {
        let key = Key::new(word, Uuid::nil(), 1);
        keys.extend([key, key.suffix("meta"), key.suffix("lock").sub_id(Uuid::nil())]);
    }
    for (number, key) in (0_u64..).zip(&keys) {
        assert_eq!(a.read_key(*key, Some(number)).await.value.unwrap().0, number);
    }
    for (number, key) in (0_u64..).zip(&keys) {
        let there = a.read_key(*key, Some(1000)).await;
        assert!(there.value.unwrap().0 == number && is_hit(there.status.l1), "{key}");
        let elsewhere = b.read_key(*key, Some(1000)).await;
        assert!(elsewhere.value.unwrap().0 == number && is_hit(elsewhere.status.l2), "{key}");
    }
    for word in words {
        assert!(a.cache.invalidate(&[Tag::new(word, Uuid::nil())], "test").await.announced);
    }
    let there = a.read_key(keys[0], Some(1000_u64)).await;
    assert!(is_hit(there.status.l1), "{:?}: none of those tags is one of its own", there.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_takes_less_room_in_redis_and_reads_the_same_on_another_node() {
    let place = Place::shared();
    let (a, b) = (Node::start(&place).await, Node::start(&place).await);
    let large = "nothing is served from before a write ".repeat(10_000);
    assert!(a.read_key(key(), Some(large.clone())).await.status.stored_l2);
    let entry = format!("{}:entry:{}", place.namespace, key());
    let stored: usize = redis::run(&place.url, &["STRLEN", &entry]).await;
    assert!(stored < large.len() / 10, "{stored} of {}", large.len());
    let read = b.read_key(key(), Some(String::new())).await;
    assert!(is_hit(read.status.l2) && read.value.unwrap().0 == large);
    let written = [("direction", "written")];
    assert_eq!(a.count("lockstep_cache_l2_bytes_total", &written), u64::try_from(stored).unwrap());

    // A small one is left as it is.
    let small = super::nth_key(1);
    a.read_key(small, Some("plain".to_owned())).await;
    let entry = format!("{}:entry:{small}", place.namespace);
    let stored: String = redis::run(&place.url, &["GET", &entry]).await;
    assert!(stored.ends_with("\n\"plain\""), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_large_for_redis_is_counted_and_does_not_keep_others_waiting() {
    let place = Place::shared();
    let a = Node::start_with(&place, OPTIONS, false, true).await;
    let b = Node::start_with(&place, OPTIONS, false, true).await;
    // Noise: it is the size before compression that counts, but nobody should rely on that.
    let large: String =
        std::iter::repeat_with(|| char::from(rand::random_range(b'!'..b'~'))).take(1 << 20).collect();
    for (number, node) in (1..).zip([&a, &b, &a]) {
        let begun = std::time::Instant::now();
        let read = node.read_key(key(), Some(large.clone())).await;
        assert!(read.value.unwrap().0.len() == large.len() && !read.status.stored_l2);
        assert!(begun.elapsed() < std::time::Duration::from_millis(900), "the lock was let go of");
        let counted =
            a.count("lockstep_cache_oversized_total", &[]) + b.count("lockstep_cache_oversized_total", &[]);
        assert_eq!(counted, number);
    }
    let entry = format!("{}:entry:{}", place.namespace, key());
    assert_eq!(redis::run::<u32>(&place.url, &["EXISTS", &entry]).await, 0);
}
