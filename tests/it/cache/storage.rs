//! What is stored, for how long, and what is not.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use lockstep::cache::{Json, Loaded, PolicyOptions, Question, TierStatus};

use super::{Node, OPTIONS, Place, Row, cost::calls, is_hit, key, known_tag, nth_key};
use crate::support::{eventually, redis};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_from_l2_is_a_miss() {
    let place = Place::shared();
    let (a, row) = (Node::start(&place).await, Arc::new(Row::default()));
    a.read(&row).await;
    let entry = format!("{}:entry:{}", place.namespace, key());
    let stored: Vec<u8> = redis::run(&place.url, &["GET", &entry]).await;
    let stored = String::from_utf8(stored).unwrap();
    let (header, _) = stored.rsplit_once('\n').unwrap();
    let of_another_type = format!("{header}\n{{\"name\":\"a type of tomorrow\"}}");
    // The script takes any digits for a number.
    let (epoch, too_long) = (header.split(' ').nth(1).unwrap(), "9".repeat(30));
    let too_long = format!("lockstep1 {epoch} {too_long} 1 value x 0\nall\n0");
    for garbage in ["", "garbage", "lockstep2 0 0 0 value\n\n1", &header[..20], &of_another_type, &too_long] {
        let () = redis::run(&place.url, &["SET", &entry, garbage]).await;
        let b = Node::start(&place).await;
        assert_eq!(b.read_value(&row).await, 0, "with {garbage:?} in L2");
        let (_, l1, _) = b.read(&row).await;
        assert!(is_hit(l1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_gets_no_fresh_life_by_moving_from_l2_to_l1() {
    let place = Place::shared();
    let options = PolicyOptions { l2: Duration::from_millis(700), ..OPTIONS };
    let (a, row) = (Node::start_with(&place, options, true, true).await, Arc::new(Row::default()));
    let b = Node::start_with(&place, options, true, true).await;
    a.read(&row).await;
    let (_, _, l2) = b.read(&row).await;
    assert!(is_hit(l2));
    row.value.store(1, Ordering::SeqCst);
    eventually("the entry has expired in both tiers", Duration::from_secs(2), async || {
        (b.read_value(&row).await == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_too_large_is_served_and_not_stored() {
    let place = Place::shared();
    let node = Node::start(&place).await;
    let large = "x".repeat(2 * 1024 * 1024);
    for _ in 0..2 {
        let value = large.clone();
        let load = move || async move { Ok(Loaded { value: Some(Json(value)), tags: vec![] }) };
        let question = Question { key: key(), token: None };
        let read = node.cache.read::<Json<String>, _, _>(&node.policy, question, || vec![known_tag()], load);
        let read = read.await.unwrap();
        assert_eq!(read.value.unwrap().0.len(), large.len());
        assert!(!read.status.stored_l2);
    }
    let entry = format!("{}:entry:{}", place.namespace, key());
    assert_eq!(redis::run::<u32>(&place.url, &["EXISTS", &entry]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tier_can_be_left_out() {
    for (l1, l2) in [(true, false), (false, true), (false, false)] {
        let place = Place::shared();
        let (node, row) = (Node::start_with(&place, OPTIONS, l1, l2).await, Arc::new(Row::default()));
        for value in 1..=3 {
            node.write(&row, value).await;
            for _ in 0..2 {
                assert_eq!(node.read_value(&row).await, value);
            }
            let (_, in_l1, in_l2) = node.read(&row).await;
            assert_eq!((is_hit(in_l1), is_hit(in_l2)), (l1, l2 && !l1), "L1 {in_l1:?}, L2 {in_l2:?}");
        }
        if !l1 && !l2 {
            assert_eq!(node.read(&row).await, (3, TierStatus::Unused, TierStatus::Unused));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_is_one_script_however_many_entries_there_are() {
    let redis = crate::support::redis::PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "cost".to_owned() };
    let (node, row) = (Node::start(&place).await, Arc::new(Row::default()));
    node.write(&row, 1).await;
    let many = "for i = 1, 100000 do redis.call('SET', 'cost:entry:row:' .. i, 'x') end";
    let _nothing: ::redis::Value = redis.run(&["EVAL", many, "0"]).await;
    let () = redis.run(&["CONFIG", "RESETSTAT"]).await;
    for value in 2..=11 {
        node.write(&row, value).await;
    }
    let stats: String = redis.run(&["INFO", "commandstats"]).await;
    for command in ["keys", "scan", "del", "unlink", "eval"] {
        assert!(!stats.contains(&format!("cmdstat_{command}:")), "{command} was used:\n{stats}");
    }
    // Ten invalidations and the polls that went on meanwhile.
    assert!((10..=20).contains(&calls(&stats, "evalsha")), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_no_use_any_more_does_not_stay_in_memory_and_what_may_still_serve_does() {
    let (place, brief) = (Place::shared(), Duration::from_secs(1));
    let node = Node::start_with(&place, OPTIONS, true, false).await;
    let ends = PolicyOptions { l1: brief, l2: brief, jitter: 0, fail_safe: Duration::ZERO, ..OPTIONS };
    let lasts = PolicyOptions { fail_safe: Duration::from_secs(60), ..ends };
    for (number, options) in [(1, ends), (2, ends), (3, lasts)] {
        let question = Question { key: nth_key(number), token: None };
        let load = || async { Ok(Loaded { value: Some(Json(0_u64)), tags: vec![] }) };
        let policy = node.policy(options);
        node.cache.read::<Json<u64>, _, _>(&policy, question, || vec![known_tag()], load).await.unwrap();
    }
    node.cache.remove_ended();
    assert_eq!(node.cache.report().l1.unwrap().0, 3);
    eventually("only what may still serve is left", 5 * brief, async || {
        node.cache.remove_ended();
        (node.cache.report().l1.unwrap().0 == 1).then_some(())
    })
    .await;
}
