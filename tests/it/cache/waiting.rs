//! Nobody waits in vain, and no crowd falls upon the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all, stream};
use lockstep::cache::{Json, LoadError, Loaded, Question};

use super::{Gate, Node, OPTIONS, Place, Row, key, known_tag, nth_key};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn when_a_load_panics_all_who_wait_for_it_go_on() {
    let node = Node::start(&Place::shared()).await;
    let gate = Arc::new(Gate::default());
    let panics = {
        let gate = Arc::clone(&gate);
        move || async move {
            gate.pass().await;
            panic!("a bug in a loader")
        }
    };
    let question = Question { key: key(), token: None };
    let first = node.cache.read::<Json<u64>, _, _>(&node.policy, question, || vec![known_tag()], panics);
    let row = Arc::new(Row::default());
    let (first, others) = tokio::join!(first, async {
        gate.reached.notified().await;
        let others = join_all((0..50).map(|_| node.read_gated(&row, None, None)));
        let others = tokio::time::timeout(Duration::from_secs(3), others);
        let (others, ()) = tokio::join!(others, async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            gate.open.notify_one();
        });
        others.expect("nobody waits for ever")
    });
    assert!(matches!(first, Err(LoadError::Panicked)));
    assert!(others.iter().all(|read| read.as_ref().unwrap().0 == 0));
    assert_eq!(row.loads.load(Ordering::SeqCst), 1, "one of them loads for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_caches_with_keys_of_one_name_share_no_load() {
    let (a, b) = (Node::start(&Place::shared()).await, Node::start(&Place::shared()).await);
    let (one, other) = (Arc::new(Row::default()), Arc::new(Row::default()));
    other.value.store(1, Ordering::SeqCst);
    let gate = Arc::new(Gate::default());
    let (first, second) = tokio::join!(a.read_gated(&one, None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        let second = tokio::time::timeout(Duration::from_secs(3), b.read_value(&other)).await;
        gate.open.notify_one();
        second
    });
    assert_eq!((first.unwrap().0, second), (0, Ok(1)));
    assert_eq!((a.read_value(&one).await, b.read_value(&other).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_is_shared_by_all_who_have_waited_for_it() {
    let node = Node::start(&Place::shared()).await;
    let loads = Arc::new(AtomicUsize::new(0));
    let readers = (0..50).map(|_| {
        let loads = Arc::clone(&loads);
        let load = move || async move {
            loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(Loaded { value: Some(Json("x".repeat(2 << 20))), tags: vec![] })
        };
        let question = Question { key: key(), token: None };
        node.cache.read::<Json<String>, _, _>(&node.policy, question, || vec![known_tag()], load)
    });
    let reads = join_all(readers).await;
    assert!(reads.iter().all(|read| read.as_ref().is_ok_and(|read| read.value.is_some())));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn between_the_end_of_a_load_and_its_entry_nobody_begins_another() {
    const KEYS: usize = 500;
    for (l1, l2) in [(true, false), (true, true), (false, true)] {
        let node = Node::start_with(&Place::shared(), OPTIONS, l1, l2).await;
        let loads = Arc::new(AtomicUsize::new(0));
        let read = async |number: usize| {
            // Not all at once: some come while it lands.
            for _ in 0..rand::random_range(0..20) {
                tokio::task::yield_now().await;
            }
            let loads = Arc::clone(&loads);
            let load = move || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(Loaded { value: Some(Json(1_u64)), tags: vec![] })
            };
            let question = Question { key: nth_key(u128::try_from(number).unwrap()), token: None };
            node.cache.read(&node.policy, question, || vec![known_tag()], load).await.unwrap();
        };
        stream::iter(0..KEYS * 8).for_each_concurrent(32, async |number| read(number / 8).await).await;
        assert_eq!(loads.load(Ordering::SeqCst), KEYS, "L1 {l1}, L2 {l2}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end_of_a_load_on_another_node_is_missed() {
    const KEYS: usize = 300;
    let place = Place::shared();
    let [a, b] = Node::start_two(&place, OPTIONS, false).await;
    let loads = Arc::new(AtomicUsize::new(0));
    for number in 0..KEYS {
        let reads = [&a, &b, &a, &b].map(|node| {
            let loads = Arc::clone(&loads);
            let load = move || async move {
                loads.fetch_add(1, Ordering::SeqCst);
                for _ in 0..number % 20 {
                    tokio::task::yield_now().await;
                }
                Ok(Loaded { value: Some(Json(1_u64)), tags: vec![] })
            };
            let question = Question { key: nth_key(u128::try_from(number).unwrap()), token: None };
            node.cache.read(&node.policy, question, || vec![known_tag()], load)
        });
        let reads = tokio::time::timeout(Duration::from_secs(3), join_all(reads)).await;
        assert!(reads.expect("nobody waits in vain").iter().all(Result::is_ok));
    }
    // Whoever is held up for a second by the machine may lose the lock.
    let loads = loads.load(Ordering::SeqCst);
    assert!((KEYS..KEYS + 5).contains(&loads), "{loads} loads of {KEYS} keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_an_entry_while_it_is_loaded_changes_nothing_for_those_who_wait() {
    let node = Node::start(&Place::shared()).await;
    let (row, gate) = (Arc::new(Row::default()), Arc::new(Gate::default()));
    let readers = join_all((0..50).map(|_| node.read_gated(&row, None, Some(Arc::clone(&gate)))));
    let (reads, ()) = tokio::join!(readers, async {
        gate.reached.notified().await;
        for _ in 0..10 {
            let held = node.cache.explain(&key().to_string()).await.unwrap();
            assert!(held.l1.is_none() && held.l2.is_none());
        }
        gate.open.notify_one();
    });
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(row.loads.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_load_has_ended_nothing_is_left_behind() {
    let node = Arc::new(Node::start(&Place::shared()).await);
    let row = Arc::new(Row::default());
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    for _ in 0..100 {
        // Readers of whom some go away.
        let gate = Arc::new(Gate::default());
        let reading = (0..10).map(|_| {
            let (node, row, gate) = (Arc::clone(&node), Arc::clone(&row), Arc::clone(&gate));
            tokio::spawn(async move { node.read_gated(&row, None, Some(gate)).await.unwrap() })
        });
        let reading: Vec<_> = reading.collect();
        gate.reached.notified().await;
        reading[..5].iter().for_each(tokio::task::JoinHandle::abort);
        gate.open.notify_one();
        for reader in &mut reading.into_iter().skip(5) {
            reader.await.unwrap();
        }
        node.write(&row, 1).await;
    }
    eventually("all tasks have ended", Duration::from_secs(5), async || {
        (alive() <= before + 2).then_some(())
    })
    .await;
}
