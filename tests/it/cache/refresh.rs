//! Renewing ahead: near its end an entry is loaded once behind those whom it still serves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use lockstep::cache::{Item, Json, Loaded, PolicyOptions, Question, TierStatus};

use super::{Gate, Node, OPTIONS, Place, Row, is_hit, key, known_tag, learned_tag};
use crate::support::eventually;

const REFRESHES: &str = "lockstep_cache_refreshes_total";

/// From a second on it is renewed in L1, and from two on in L2; it would serve ten times as long.
const AHEAD: PolicyOptions = PolicyOptions {
    l1: Duration::from_secs(10),
    l2: Duration::from_secs(20),
    refresh_at: 10,
    jitter: 0,
    ..OPTIONS
};

/// Reads until somebody has begun to renew, each time with a load that stops at the gate.
async fn until_renewal(node: &Node, row: &Arc<Row>, gate: &Arc<Gate>) {
    let reading = async {
        loop {
            let (value, ..) = node.read_gated(row, None, Some(Arc::clone(gate))).await.unwrap();
            assert_eq!(value, 0, "the old value is served meanwhile");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let renewal = async {
        tokio::select! {
            () = gate.reached.notified() => {}
            () = reading => {}
        }
    };
    // Long before its end, at which it would be loaded anyway.
    tokio::time::timeout(Duration::from_secs(5), renewal).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn near_its_end_an_entry_is_loaded_once_by_all_instances_while_every_reader_is_served_from_memory() {
    let place = Place::shared();
    let [a, b] = Node::start_two(&place, AHEAD, true).await;
    let row = Arc::new(Row::default());
    a.read(&row).await;
    b.read(&row).await;
    // Nobody is told of it: only a load can bring it.
    row.value.store(1, Ordering::SeqCst);
    for node in [&a, &b] {
        eventually("it is renewed", Duration::from_secs(8), async || {
            let reads = join_all([a.read(&row), b.read(&row), a.read(&row), b.read(&row)]).await;
            assert!(reads.iter().all(|(_, l1, _)| is_hit(*l1)), "{reads:?}");
            (node.read_value(&row).await == 1).then_some(())
        })
        .await;
    }
    assert_eq!(row.loads.load(Ordering::SeqCst), 2, "one at first, and one to renew");
    assert!(a.count(REFRESHES, &[("tier", "l1")]) > 0 && b.count(REFRESHES, &[("tier", "l1")]) > 0);
    assert_eq!(a.count(REFRESHES, &[("tier", "l2")]) + b.count(REFRESHES, &[("tier", "l2")]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_l1_the_entry_of_l2_is_renewed_once_by_all_instances() {
    let place = Place::shared();
    let [a, b] = Node::start_two(&place, AHEAD, false).await;
    let row = Arc::new(Row::default());
    a.read(&row).await;
    row.value.store(1, Ordering::SeqCst);
    eventually("it is renewed", Duration::from_secs(8), async || {
        let reads = join_all([a.read(&row), b.read(&row), a.read(&row), b.read(&row)]).await;
        assert!(reads.iter().all(|(_, _, l2)| is_hit(*l2) || *l2 == TierStatus::Miss), "{reads:?}");
        reads.iter().all(|(value, ..)| *value == 1).then_some(())
    })
    .await;
    assert_eq!(row.loads.load(Ordering::SeqCst), 2, "one at first, and one to renew");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_renewed_nobody_waits_and_nobody_begins_another_load() {
    for l2 in [true, false] {
        let node = Node::start_with(&Place::shared(), AHEAD, true, l2).await;
        let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
        node.read(&row).await;
        until_renewal(&node, &row, &gate).await;
        row.value.store(1, Ordering::SeqCst);
        let reads = join_all((0..100).map(|_| node.read(&row))).await;
        assert!(reads.iter().all(|(value, l1, _)| *value == 0 && is_hit(*l1)), "{reads:?}");
        assert_eq!(row.loads.load(Ordering::SeqCst), 2, "L2 {l2}");
        gate.open.notify_one();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_during_the_renewal_is_not_undone_by_it() {
    for (l1, tag) in
        [(true, known_tag()), (true, learned_tag()), (false, known_tag()), (false, learned_tag())]
    {
        let place = Place::shared();
        let [a, b] = Node::start_two(&place, AHEAD, l1).await;
        let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
        a.read(&row).await;
        until_renewal(&a, &row, &gate).await;
        let token = b.write_tag(&row, 1, tag.clone()).await;
        gate.open.notify_one();
        assert_eq!(a.read_gated(&row, Some(&token), None).await.unwrap().0, 1);
        a.has_heard(&b).await;
        let c = Node::start_with(&place, AHEAD, l1, true).await;
        // The renewal lands during these.
        for _ in 0..100 {
            for node in [&a, &b, &c] {
                assert_eq!(node.read_value(&row).await, 1, "under {tag}, L1 {l1}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_invalidated_is_not_renewed_but_loaded() {
    let node = Node::start_with(&Place::shared(), AHEAD, true, true).await;
    let row = Arc::new(Row::default());
    node.read(&row).await;
    node.write(&row, 1).await;
    // It would be renewed from now on.
    tokio::time::sleep(AHEAD.l2 / 10 + Duration::from_millis(50)).await;
    assert_eq!(node.read(&row).await, (1, TierStatus::Stale, TierStatus::Stale));
    assert_eq!(node.count(REFRESHES, &[]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_nothing_is_not_renewed() {
    let place = Place::shared();
    for l1 in [true, false] {
        let node = Node::start_with(&place, AHEAD, l1, true).await;
        let loads = Arc::new(AtomicUsize::new(0));
        let read = async || {
            let loads = Arc::clone(&loads);
            let load = move || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                Ok(Loaded { value: None, tags: vec![] })
            };
            let question = Question { key: key(), token: None };
            let tags = || vec![known_tag()];
            node.cache.read::<Json<u64>, _, _>(&node.policy, question, tags, load).await.unwrap()
        };
        node.cache.invalidate(&[known_tag()], "test").await;
        assert!(read().await.value.is_none());
        for _ in 0..50 {
            tokio::time::sleep(AHEAD.l2 / 10 / 40).await;
            assert!(read().await.value.is_none());
        }
        assert_eq!((loads.load(Ordering::SeqCst), node.count(REFRESHES, &[])), (1, 0), "L1 {l1}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_fails_takes_nothing_away() {
    let node = Node::start_with(&Place::shared(), AHEAD, true, false).await;
    let row = Arc::new(Row::default());
    node.read(&row).await;
    let failed = Arc::new(AtomicUsize::new(0));
    eventually("a renewal has failed", Duration::from_secs(5), async || {
        let failing = Arc::clone(&failed);
        let fail = move || async move {
            failing.fetch_add(1, Ordering::SeqCst);
            Err("the database is away".into())
        };
        let question = Question { key: key(), token: None };
        let read = node.cache.read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], fail);
        assert!(is_hit(read.await.unwrap().status.l1));
        (failed.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;
    let (value, l1, _) = node.read(&row).await;
    assert!(value == 0 && is_hit(l1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_reads_an_entry_near_its_end_leaves_its_renewal_to_the_next_reader() {
    let node = Node::start_with(&Place::shared(), AHEAD, true, false).await;
    let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
    node.read(&row).await;
    tokio::time::sleep(AHEAD.l1 / 10 + Duration::from_millis(50)).await;
    let items = [Item { key: key(), tags: vec![known_tag()] }];
    let load = |_| async { Err("it is in memory".into()) };
    let batch = node.cache.read_many::<Json<u64>, _, _>(&node.policy, &items, None, load).await.unwrap();
    assert!(is_hit(batch[0].status.l1));
    until_renewal(&node, &row, &gate).await;
    gate.open.notify_one();
}
