//! Shares of a cache, one for each worker, are one cache.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::poll_immediate;
use lockstep::cache::{Item, Json, LoadError, Loaded, Question, Token};
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

use super::{Gate, Node, OPTIONS, Place, Row, is_hit, key, known_tag, nth_key};
use crate::support::redis::PrivateRedis;

impl Node {
    /// The same node, as another of its threads has it.
    pub(super) fn share(&self) -> Self {
        Self {
            cache: self.cache.share(),
            policy: self.cache.share_policy(&self.policy),
            registry: self.registry.clone(),
            _stop: CancellationToken::new().drop_guard(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_share_has_read_or_changed_all_of_them_know() {
    let node = Node::start(&Place::shared()).await;
    let (share, row) = (node.share(), Arc::new(Row::default()));
    assert_eq!(node.read_value(&row).await, 0);
    let (_, l1, _) = share.read(&row).await;
    assert!(is_hit(l1));
    share.write(&row, 1).await;
    assert_eq!(node.read_value(&row).await, 1);
    node.write(&row, 2).await;
    assert_eq!(share.read_value(&row).await, 2);
    // And they count together.
    assert_eq!(node.count("lockstep_cache_loads_total", &[("kind", "row")]), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_one_share_is_joined_by_the_others() {
    // Without L2, whose locks would keep the second from loading too.
    let node = Node::start_with(&Place::shared(), OPTIONS, true, false).await;
    let (share, row, gate) = (node.share(), Arc::new(Row::default()), Arc::new(Gate::default()));
    let first = node.read_gated(&row, None, Some(Arc::clone(&gate)));
    let (first, second, ()) = tokio::join!(first, share.read_value(&row), async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open.notify_one();
    });
    assert_eq!((first.unwrap().0, second), (0, 0));
    assert_eq!(row.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_that_ask_for_the_same_at_the_same_time_load_it_once_without_l2_too() {
    const KEYS: u128 = 2_000;
    let node = Node::start_with(&Place::shared(), OPTIONS, true, false).await;
    let (loads, meeting) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
    let readers = [node.share(), node.share()].map(|share| {
        let (loads, meeting) = (Arc::clone(&loads), Arc::clone(&meeting));
        tokio::spawn(async move {
            for number in 0..KEYS {
                meeting.wait().await;
                // Some come while it lands.
                for _ in 0..rand::random_range(0..10) {
                    tokio::task::yield_now().await;
                }
                let loads = Arc::clone(&loads);
                let load = move || async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    Ok(Loaded { value: Some(Json(number)), tags: vec![] })
                };
                let question = Question { key: nth_key(number), token: None };
                let read = share.cache.read(&share.policy, question, || vec![known_tag()], load).await;
                assert_eq!(read.unwrap().value.unwrap().0, number);
            }
        })
    });
    for reader in readers {
        // If one fails, the other waits for it.
        tokio::time::timeout(Duration::from_secs(60), reader).await.unwrap().unwrap();
    }
    assert_eq!(loads.load(Ordering::SeqCst) as u128, KEYS);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_lock_of_another_share_is_given_what_that_one_loads() {
    let node = Node::start_with(&Place::shared(), OPTIONS, false, true).await;
    let (share, gate) = (node.share(), Arc::new(Gate::default()));
    let loads = Arc::new(AtomicUsize::new(0));
    // Not to be had from L2, where it is too large for.
    let read = async |node: &Node| {
        let (loads, gate) = (Arc::clone(&loads), Arc::clone(&gate));
        let load = move || async move {
            loads.fetch_add(1, Ordering::SeqCst);
            gate.pass().await;
            Ok(Loaded { value: Some(Json("x".repeat(2 << 20))), tags: vec![] })
        };
        let question = Question { key: key(), token: None };
        node.cache.read(&node.policy, question, || vec![known_tag()], load).await.unwrap()
    };
    let (first, second, ()) = tokio::join!(read(&node), read(&share), async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open.notify_one();
    });
    assert_eq!(first.value, second.value);
    assert_eq!([first.status.collapsed, second.status.collapsed].iter().filter(|it| **it).count(), 1);
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_share_waits_for_a_thread_that_stands_still_while_it_looks_into_l2() {
    let place = Place::shared();
    let [node, other] = Node::start_two(&place, OPTIONS, false).await;
    let (share, row) = (node.share(), Arc::new(Row::default()));
    assert_eq!(other.read_value(&row).await, 0);
    // Redis is asked, and nobody takes the answer.
    let standing = loop {
        let mut standing = Box::pin(node.read(&row));
        // On a busy machine the answer may come while it asks.
        if poll_immediate(&mut standing).await.is_none() {
            break standing;
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(5), share.read(&row)).await;
    assert!(read.is_ok_and(|(value, _, l2)| value == 0 && is_hit(l2)));
    assert_eq!(standing.await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_token_joins_no_load_of_another_share_that_need_not_know_of_it() {
    let node = Node::start_with(&Place::shared(), OPTIONS, true, false).await;
    let (share, row, gate) = (node.share(), Arc::new(Row::default()), Arc::new(Gate::default()));
    let old = node.read_gated(&row, None, Some(Arc::clone(&gate)));
    let (old, new) = tokio::join!(old, async {
        gate.reached.notified().await;
        // Only the database is sure to know it.
        row.value.store(1, Ordering::SeqCst);
        let token = Token::unknown();
        let read = share.read_gated(&row, Some(&token), None);
        let read = tokio::time::timeout(Duration::from_secs(5), read).await.unwrap();
        gate.open.notify_one();
        read
    });
    assert_eq!((old.unwrap().0, new.unwrap().0), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_panics_is_an_error_of_its_own_share_and_the_others_load() {
    let node = Node::start_with(&Place::shared(), OPTIONS, true, false).await;
    let (share, row, gate) = (node.share(), Arc::new(Row::default()), Arc::new(Gate::default()));
    let panics = {
        let gate = Arc::clone(&gate);
        let load = move || async move {
            gate.pass().await;
            panic!("a load that panics, as it is meant to");
        };
        let question = Question { key: key(), token: None };
        node.cache.read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], load)
    };
    let (panicked, read) = tokio::join!(panics, async {
        gate.reached.notified().await;
        let mut read = pin!(share.read_value(&row));
        assert!(poll_immediate(&mut read).await.is_none());
        assert_eq!(row.loads.load(Ordering::SeqCst), 0, "it waits for the other");
        gate.open.notify_one();
        tokio::time::timeout(Duration::from_secs(5), read).await.unwrap()
    });
    assert!(matches!(panicked, Err(LoadError::Panicked)), "{panicked:?}");
    assert_eq!((read, row.loads.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_of_one_share_loads_is_waited_for_by_a_single_read_of_another() {
    let node = Node::start_with(&Place::shared(), OPTIONS, true, false).await;
    let (share, row, gate) = (node.share(), Arc::new(Row::default()), Arc::new(Gate::default()));
    let items = [Item { key: key(), tags: vec![known_tag()] }];
    let batch = {
        let gate = Arc::clone(&gate);
        let load = move |wanted: Vec<usize>| {
            let gate = Arc::clone(&gate);
            async move {
                gate.pass().await;
                Ok(wanted.iter().map(|_| Loaded { value: Some(Json(7)), tags: vec![] }).collect())
            }
        };
        node.cache.read_many::<Json<u64>, _, _>(&node.policy, &items, None, load)
    };
    let (batch, single, ()) = tokio::join!(batch, share.read_value(&row), async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.open.notify_one();
    });
    assert_eq!(batch.unwrap()[0].value.as_ref().unwrap().0, 7);
    assert_eq!((single, row.loads.load(Ordering::SeqCst)), (7, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_heard_a_share_hands_on_no_load_that_is_older_than_a_lease() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "deaf".to_owned() };
    let node = Node::start(&place).await;
    redis.kill();
    crate::support::eventually("trust is lost", Duration::from_secs(5), async || {
        node.cache.is_degraded().then_some(())
    })
    .await;
    let (share, row, gate) = (node.share(), Arc::new(Row::default()), Arc::new(Gate::default()));
    let old = node.read_gated(&row, None, Some(Arc::clone(&gate)));
    let (old, joins, late, ()) = tokio::join!(
        old,
        async {
            gate.reached.notified().await;
            // Another node's commit, of which this one hears nothing.
            row.value.store(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(500)).await;
            share.read_value(&row).await
        },
        async {
            tokio::time::sleep(Duration::from_millis(1250)).await;
            share.read_value(&row).await
        },
        async {
            tokio::time::sleep(Duration::from_millis(1600)).await;
            gate.open.notify_one();
        }
    );
    assert_eq!(old.unwrap().0, 0);
    assert_eq!(joins, 0, "what was under way for less than a lease is joined");
    assert_eq!(late, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_whose_read_outlives_a_generation_begins_the_next_one_in_the_new() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "shares".to_owned() };
    let node = Node::start(&place).await;
    let (share, row, gate) = (node.share(), Arc::new(Row::default()), Arc::new(Gate::default()));
    let (first, later) = tokio::join!(share.read_gated(&row, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        // The generation in which the read under way has begun is over, and the row is another.
        let _ok: String = redis.run(&["FLUSHALL"]).await;
        row.value.store(1, Ordering::SeqCst);
        crate::support::eventually("trust is lost", Duration::from_secs(5), async || {
            (!node.cache.invalidate(&[super::known_tag()], "test").await.announced).then_some(())
        })
        .await;
        node.trusted().await;
        let later = tokio::time::timeout(Duration::from_secs(5), share.read_value(&row)).await.unwrap();
        gate.open.notify_one();
        later
    });
    assert_eq!((first.unwrap().0, later), (0, 1));
    assert_eq!(node.read_value(&row).await, 1, "the first has left nothing behind");
}
