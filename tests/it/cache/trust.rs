//! When a node must not believe what it holds, and how it comes to believe again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use lockstep::cache::{Json, Loaded, Question, Tag, TierStatus, Token};
use uuid::Uuid;

use super::{Gate, Node, OPTIONS, Place, Row, Setup, is_hit, key, known_tag, learned_tag};
use crate::support::{eventually, redis::PrivateRedis};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_while_trust_was_lost_is_announced_before_it_is_won_back() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "window".to_owned() };
    // From the second connection on, it stops after it was looked what others have left unannounced.
    let (gate, connections) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let before_use = {
        let gate = Arc::clone(&gate);
        Box::new(move |_| -> BoxFuture<'static, _> {
            let (gate, connections) = (Arc::clone(&gate), Arc::clone(&connections));
            Box::pin(async move {
                if connections.fetch_add(1, Ordering::SeqCst) > 0 {
                    gate.reached.notify_one();
                    gate.open.notified().await;
                }
                Ok(0)
            })
        })
    };
    let node = Node::start_as(&place, Setup { before_use, ..Setup::default() }).await;
    let row = Arc::new(Row::default());
    node.read(&row).await;
    let _killed: i64 = redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    gate.reached.notified().await;
    row.value.store(1, Ordering::SeqCst);
    assert!(!node.cache.invalidate(&[known_tag()], "test").await.announced);
    gate.open.notify_one();
    node.trusted().await;
    assert_eq!(node.read_value(&row).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_news_is_told_that_there_was_some_while_a_session_began() {
    let place = Place::shared();
    let other = Arc::new(Node::start(&place).await);
    // After the node has subscribed and before it reads the sequence.
    let before_use = Box::new(move |_| -> BoxFuture<'static, _> {
        let other = Arc::clone(&other);
        Box::pin(async move {
            other.cache.invalidate(&[known_tag()], "test").await;
            Ok(0)
        })
    });
    let node = Node::start_as(&place, Setup { before_use, ..Setup::default() }).await;
    let news = node.cache.invalidated();
    tokio::time::timeout(Duration::from_secs(5), news.notified()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_heard_only_a_young_load_is_shared() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "deaf".to_owned() };
    let node = Node::start(&place).await;
    redis.kill();
    eventually("trust is lost", Duration::from_secs(5), async || node.cache.is_degraded().then_some(()))
        .await;
    let row = Arc::new(Row::default());
    let gate = Arc::new(Gate::default());
    let (first, late) = tokio::join!(node.read_gated(&row, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        // Another node's commit, of which this one hears nothing.
        row.value.store(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let late = node.read_value(&row).await;
        gate.open.notify_one();
        late
    });
    assert_eq!((first.unwrap().0, late), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_nothing_stops_using_l1_when_its_lease_is_over() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "paused".to_owned() };
    let (node, row) = (Node::start(&place).await, Arc::new(Row::default()));
    node.read(&row).await;
    redis.signal("STOP");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    row.value.store(1, Ordering::SeqCst);
    let (value, l1, _) = node.read(&row).await;
    redis.signal("CONT");
    assert!(value == 1 && !is_hit(l1), "{value} {l1:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_invalidations_causes_one_load_after_the_other() {
    for (l2, tag) in [(false, known_tag()), (true, known_tag()), (true, learned_tag())] {
        let node = Arc::new(Node::start_with(&Place::shared(), OPTIONS, true, l2).await);
        let row = Arc::new(Row::default());
        node.read(&row).await;
        let stop = tokio_util::sync::CancellationToken::new();
        let writer = tokio::spawn({
            let (node, row, stop, tag) = (Arc::clone(&node), Arc::clone(&row), stop.clone(), tag.clone());
            async move {
                while !stop.is_cancelled() {
                    node.write_tag(&row, 1, tag.clone()).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        let before = row.loads.load(Ordering::SeqCst);
        join_all((0..300).map(|_| {
            let (row, node) = (Arc::clone(&row), Arc::clone(&node));
            async move {
                let load = move || async move {
                    row.loads.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    Ok(Loaded { value: Some(Json(1_u64)), tags: vec![learned_tag()] })
                };
                let question = Question { key: key(), token: None };
                node.cache
                    .read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], load)
                    .await
                    .unwrap();
            }
        }))
        .await;
        stop.cancel();
        writer.await.unwrap();
        let loads = row.loads.load(Ordering::SeqCst) - before;
        assert!(loads <= 30, "{loads} loads for 300 readers, L2 {l2}, {tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_with_a_token_that_nobody_knows_load_and_share_their_loads() {
    let place = Place::shared();
    let (node, row) = (Node::start(&place).await, Arc::new(Row::default()));
    node.read(&row).await;
    // Not announced: only the database has it.
    row.value.store(1, Ordering::SeqCst);
    for token in [Token::unknown(), Token::new(12345, 1)] {
        let before = row.loads.load(Ordering::SeqCst);
        let reads = join_all((0..200).map(|_| node.read_gated(&row, Some(&token), None))).await;
        assert!(reads.iter().all(|read| read.as_ref().unwrap().0 == 1));
        let loads = row.loads.load(Ordering::SeqCst) - before;
        assert!((1..=20).contains(&loads), "{loads} loads for 200 readers");
        row.value.store(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_after_a_write_does_not_wait_for_the_load_that_began_before_it() {
    let node = Node::start(&Place::shared()).await;
    let row = Arc::new(Row::default());
    let gate = Arc::new(Gate::default());
    let (old, fresh) = tokio::join!(node.read_gated(&row, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        node.write(&row, 1).await;
        let fresh = tokio::time::timeout(Duration::from_secs(3), node.read_value(&row)).await;
        gate.open.notify_one();
        fresh
    });
    assert_eq!((old.unwrap().0, fresh), (0, Ok(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_goes_backwards_ends_all_trust() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "back".to_owned() };
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    b.write(&row, 1).await;
    let before: u64 = redis.run(&["HGET", "back:meta", "sequence"]).await;
    for value in 2..=20 {
        b.write(&row, value).await;
    }
    a.read(&row).await;
    b.read(&row).await;
    let marker: String = redis.run(&["HGET", "back:meta", "marker"]).await;
    let () = redis.run(&["HSET", "back:meta", "sequence", &before.to_string()]).await;
    eventually("the data has another life", Duration::from_secs(3), async || {
        let now: String = redis.run(&["HGET", "back:meta", "marker"]).await;
        (now != marker).then_some(())
    })
    .await;
    // Until then it may still be about to notice.
    eventually("B is part of that life", Duration::from_secs(3), async || {
        b.cache.invalidate(&[known_tag()], "test").await.announced.then_some(())
    })
    .await;
    a.trusted().await;
    let token = b.write(&row, 21).await;
    assert_eq!(b.read_value(&row).await, 21);
    assert_eq!(a.read_gated(&row, Some(&token), None).await.unwrap().0, 21);
    eventually("A sees the write", Duration::from_millis(1500), async || {
        (a.read_value(&row).await == 21).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_message_is_noticed_by_the_next_one() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "next".to_owned() };
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    a.read(&row).await;
    row.value.store(1, Ordering::SeqCst);
    let sequence: u64 = redis.run(&["HINCRBY", "next:meta", "sequence", "1"]).await;
    let () = redis.run(&["SET", &format!("next:tag:{}", known_tag()), &sequence.to_string()]).await;
    // Of another tag, by the other node and by the same one: neither may pass over the missing number.
    b.cache.invalidate(&[Tag::new("other", Uuid::nil())], "test").await;
    a.cache.invalidate(&[Tag::new("other", Uuid::nil())], "test").await;
    eventually("A sees the write", Duration::from_millis(1500), async || {
        (a.read_value(&row).await == 1).then_some(())
    })
    .await;
    assert_eq!(a.read_value(&row).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_that_may_have_been_forgotten_counts_as_one() {
    let node = Node::start(&Place::shared()).await;
    let row = Arc::new(Row::default());
    let gate = Arc::new(Gate::default());
    let (old, ()) = tokio::join!(node.read_gated(&row, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        // Of a tag that the load has yet to learn of, and then more than are remembered.
        node.write_tag(&row, 1, learned_tag()).await;
        let others: Vec<_> = (0..20_000).map(|number| Tag::new("other", Uuid::from_u128(number))).collect();
        node.cache.invalidate(&others, "test").await;
        gate.open.notify_one();
    });
    assert_eq!(old.unwrap().0, 0);
    assert_eq!(node.read_value(&row).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn l2_entries_without_versions_or_of_another_epoch_are_misses() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "misses".to_owned() };
    let (a, row) = (Node::start(&place).await, Arc::new(Row::default()));
    a.read(&row).await;
    // The tag was invalidated, and that was forgotten.
    a.write(&row, 1).await;
    let _deleted: i64 = redis.run(&["DEL", &format!("misses:tag:{}", known_tag())]).await;
    let fresh = Node::start(&place).await;
    assert_eq!(fresh.read(&row).await, (1, TierStatus::Miss, TierStatus::Stale));

    let entry = format!("misses:entry:{}", key());
    let stored: String = redis.run(&["GET", &entry]).await;
    let (epoch, rest) = stored.strip_prefix("lockstep1 ").unwrap().split_at(16);
    let () = redis.run(&["SET", &entry, &format!("lockstep1 {}{rest}", epoch.replace(|_| true, "0"))]).await;
    row.value.store(2, Ordering::SeqCst);
    let fresh = Node::start(&place).await;
    assert_eq!(fresh.read(&row).await, (2, TierStatus::Miss, TierStatus::Stale));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_load_does_not_take_the_place_of_a_newer_entry() {
    let place = Place::shared();
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    let (gate, loads) = (Arc::new(Gate::default()), Token::unknown());
    let (_, ()) = tokio::join!(a.read_gated(&row, Some(&loads), Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        b.write(&row, 1).await;
        b.read_gated(&row, Some(&loads), None).await.unwrap();
        gate.open.notify_one();
    });
    let fresh = Node::start(&place).await;
    let (value, _, l2) = fresh.read(&row).await;
    assert!(value == 1 && is_hit(l2), "{value} {l2:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_l1_whoever_waited_for_anothers_load_says_so_of_l2() {
    let node = Node::start_with(&Place::shared(), OPTIONS, false, true).await;
    let row = Arc::new(Row::default());
    let gate = Arc::new(Gate::default());
    let (_, waited) = tokio::join!(node.read_gated(&row, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        let load = || async { Ok(Loaded { value: Some(Json(9_u64)), tags: vec![] }) };
        let question = Question { key: key(), token: None };
        let waiting = node.cache.read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], load);
        let opening = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            gate.open.notify_one();
        };
        tokio::join!(waiting, opening).0.unwrap()
    });
    assert_eq!(waited.status.to_string(), "redis; fwd=uri-miss; collapsed");
}
