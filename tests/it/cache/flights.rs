//! One load at a time, and nobody left waiting.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::{join_all, poll_immediate};
use lockstep::cache::{Json, LoadError, Loaded, Question};

use super::{Gate, Node, Place, Row, is_hit, key, known_tag};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_readers_of_a_cold_key_on_two_nodes_cause_one_load() {
    let place = Place::shared();
    let (a, b, row) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Row::default()));
    let gate = Arc::new(Gate::default());
    let readers = join_all((0..100).flat_map(|_| [&a, &b]).map(|node| {
        let gate = Arc::clone(&gate);
        node.read_gated(&row, None, Some(gate))
    }));
    let (reads, ()) = tokio::join!(readers, async {
        gate.reached.notified().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.open.notify_one();
    });
    assert!(reads.iter().all(|read| read.as_ref().is_ok_and(|(value, ..)| *value == 0)));
    assert_eq!(row.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_does_not_stop_the_load_that_others_wait_for() {
    let node = Node::start(&Place::shared()).await;
    let row = Arc::new(Row::default());
    let gate = Arc::new(Gate::default());
    {
        let leader = node.read_gated(&row, None, Some(Arc::clone(&gate)));
        tokio::select! {
            _ = leader => panic!("the gate is closed"),
            () = gate.reached.notified() => {}
        }
    }
    gate.open.notify_one();
    let waiter = tokio::time::timeout(Duration::from_secs(3), node.read_value(&row)).await;
    assert_eq!(waiter, Ok(0));
    assert_eq!(row.loads.load(Ordering::SeqCst), 1);
}

/// As an Actix worker is: within a poll, nothing else goes on.
#[tokio::test(flavor = "current_thread")]
async fn what_a_reader_has_begun_comes_to_its_end_though_he_goes_away_at_once() {
    let node = Node::start(&Place::shared()).await;
    let row = Arc::new(Row::default());
    // Redis is asked, and has not answered.
    assert!(poll_immediate(node.read(&row)).await.is_none());
    eventually("it is loaded and kept", Duration::from_secs(3), async || {
        node.cache.explain(&key().to_string()).await.unwrap().l1.map(drop)
    })
    .await;
    let (value, l1, _) = node.read(&row).await;
    assert!(value == 0 && is_hit(l1));
    assert_eq!(row.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_panics_leaves_nobody_waiting_and_the_next_reader_loads() {
    let node = Node::start(&Place::shared()).await;
    let question = Question { key: key(), token: None };
    let load = || async { panic!("a bug in a loader") };
    let failed = node.cache.read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], load);
    let failed = tokio::time::timeout(Duration::from_secs(3), failed).await.expect("the reader is told");
    assert!(matches!(failed, Err(LoadError::Panicked)));
    let row = Arc::new(Row::default());
    // At worst after the time for which other nodes leave the load to the one that has panicked.
    assert_eq!(tokio::time::timeout(Duration::from_secs(3), node.read_value(&row)).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_reach_all_who_wait_and_are_never_cached() {
    let node = Node::start(&Place::shared()).await;
    let question = Question { key: key(), token: None };
    let fail = || async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err("the database is away".into())
    };
    let readers = join_all(
        (0..10)
            .map(|_| node.cache.read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], fail)),
    );
    assert!(readers.await.iter().all(|read| matches!(read, Err(LoadError::Failed(_)))));
    let row = Arc::new(Row::default());
    assert_eq!(node.read_value(&row).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_nothing_is_shared_cached_and_ended_by_an_invalidation() {
    let place = Place::shared();
    let (a, b) = (Node::start(&place).await, Node::start(&place).await);
    let loads = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let read = async |node: &Node| {
        let loads = Arc::clone(&loads);
        let load = move || async move {
            loads.fetch_add(1, Ordering::SeqCst);
            Ok(Loaded { value: None, tags: vec![] })
        };
        let question = Question { key: key(), token: None };
        node.cache
            .read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], load)
            .await
            .unwrap()
            .value
    };
    let waiting = join_all((0..10).map(|_| read(&a))).await;
    assert!(waiting.iter().all(Option::is_none));
    assert!(read(&b).await.is_none());
    assert_eq!(loads.load(Ordering::SeqCst), 1);

    let row = Arc::new(Row::default());
    a.write(&row, 5).await;
    assert_eq!(a.read_value(&row).await, 5);
}
