//! Many reads at once are one round trip and one load.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use lockstep::cache::{Item, Json, LoadError, Loaded, Question, Read, Tag, TierStatus, Token};

use super::{Gate, Node, OPTIONS, Place, Setup, is_hit, nth_key, nth_tag};
use crate::support::{proxy::Proxy, redis::PrivateRedis};

/// Numbered rows, of which even ones only are there, and what was loaded of them.
#[derive(Default)]
struct Table {
    values: Mutex<HashMap<u128, u64>>,
    /// The rows of each call.
    calls: Mutex<Vec<Vec<u128>>>,
}

impl Table {
    fn set(&self, number: u128, value: u64) {
        self.values.lock().unwrap().insert(number, value);
    }

    fn look(&self, number: u128) -> Option<u64> {
        let changed = self.values.lock().unwrap().get(&number).copied();
        changed.or_else(|| number.is_multiple_of(2).then_some(0))
    }

    /// What was loaded since the last time.
    fn calls(&self) -> Vec<Vec<u128>> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

fn items(numbers: &[u128]) -> Vec<Item> {
    numbers.iter().map(|number| Item { key: nth_key(*number), tags: vec![nth_tag(*number)] }).collect()
}

type Reads = Result<Vec<Read<Json<u64>>>, LoadError>;

async fn read_many(node: &Node, table: &Arc<Table>, numbers: &[u128]) -> Vec<Read<Json<u64>>> {
    read_gated(node, table, numbers, None, None).await.unwrap()
}

async fn read_gated(
    node: &Node,
    table: &Arc<Table>,
    numbers: &[u128],
    token: Option<&Token>,
    gate: Option<Arc<Gate>>,
) -> Reads {
    let (table, asked) = (Arc::clone(table), numbers.to_vec());
    let load = move |positions: Vec<usize>| {
        let numbers: Vec<u128> = positions.into_iter().map(|position| asked[position]).collect();
        let (table, gate) = (Arc::clone(&table), gate.clone());
        async move {
            let values: Vec<_> = numbers.iter().map(|number| table.look(*number)).collect();
            table.calls.lock().unwrap().push(numbers);
            if let Some(gate) = gate {
                gate.pass().await;
            }
            Ok(values.into_iter().map(|value| Loaded { value: value.map(Json), tags: vec![] }).collect())
        }
    };
    node.cache.read_many(&node.policy, &items(numbers), token, load).await
}

async fn read_one(node: &Node, table: &Arc<Table>, number: u128, gate: Option<Arc<Gate>>) -> Read<Json<u64>> {
    let table = Arc::clone(table);
    let load = move || async move {
        let value = table.look(number).map(Json);
        table.calls.lock().unwrap().push(vec![number]);
        if let Some(gate) = gate {
            gate.pass().await;
        }
        Ok(Loaded { value, tags: vec![] })
    };
    let question = Question { key: nth_key(number), token: None };
    node.cache.read(&node.policy, question, || vec![nth_tag(number)], load).await.unwrap()
}

fn values(reads: &[Read<Json<u64>>]) -> Vec<Option<u64>> {
    reads.iter().map(|read| read.value.as_ref().map(|value| value.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_waits_for_redis_twice_and_loads_once_however_many_there_are() {
    const DELAY: Duration = Duration::from_millis(200);
    let redis = PrivateRedis::start().await;
    let proxy = Proxy::start(&redis).await;
    let place = Place { url: proxy.url.clone(), namespace: "many".to_owned() };
    let (node, table) = (Node::start(&place).await, Arc::new(Table::default()));
    let numbers: Vec<u128> = (0..200).collect();
    read_many(&node, &table, &[1000]).await;
    table.calls();
    proxy.delay(DELAY);
    let begun = Instant::now();
    let reads = read_many(&node, &table, &numbers).await;
    let took = begun.elapsed();
    // Once to look, once to store.
    assert!(took >= 2 * DELAY && took < 6 * DELAY, "{took:?}");
    assert_eq!(table.calls(), std::slice::from_ref(&numbers));
    assert!(reads.iter().all(|read| read.status.stored_l1 && read.status.stored_l2));
    let begun = Instant::now();
    read_many(&node, &table, &numbers).await;
    assert!(begun.elapsed() < DELAY, "from memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_either_tier_has_is_not_loaded_and_all_come_in_the_order_in_which_they_were_asked_for() {
    let place = Place::shared();
    let (a, b, table) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Table::default()));
    read_many(&a, &table, &[2, 3]).await;
    read_many(&b, &table, &[4, 5]).await;
    for number in 0..8 {
        table.set(number, u64::try_from(number).unwrap() * 100 + 1);
    }
    table.calls();
    let reads = read_many(&a, &table, &[6, 4, 2, 0, 3, 5, 7]).await;
    // Those that were loaded before are as they were then.
    assert_eq!(values(&reads), [Some(601), Some(0), Some(0), Some(1), None, None, Some(701)]);
    assert_eq!(table.calls(), [vec![6, 0, 7]]);
    let l1: Vec<_> = reads.iter().map(|read| is_hit(read.status.l1)).collect();
    let l2: Vec<_> = reads.iter().map(|read| is_hit(read.status.l2)).collect();
    assert_eq!(l1, [false, false, true, false, true, false, false]);
    assert_eq!(l2, [false, true, false, false, false, true, false]);
    let again = read_many(&a, &table, &[6, 4, 2, 0, 3, 5, 7]).await;
    assert_eq!(values(&again), values(&reads));
    assert!(again.iter().all(|read| is_hit(read.status.l1)) && table.calls().is_empty());
    // And single reads find what the batch has stored.
    assert!(is_hit(read_one(&a, &table, 6, None).await.status.l1));
    assert!(is_hit(read_one(&b, &table, 6, None).await.status.l2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_asked_for_several_times_is_loaded_once() {
    for (l1, l2) in [(true, true), (false, true), (true, false), (false, false)] {
        let node = Node::start_with(&Place::shared(), OPTIONS, l1, l2).await;
        let table = Arc::new(Table::default());
        let reads = read_many(&node, &table, &[2, 2, 3, 2, 3]).await;
        assert_eq!(values(&reads), [Some(0), Some(0), None, Some(0), None]);
        assert_eq!(table.calls(), [[2, 3]], "L1 {l1}, L2 {l2}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_and_a_single_read_wait_for_each_other_instead_of_loading_twice() {
    for (l1, l2) in [(true, true), (false, true)] {
        let node = Node::start_with(&Place::shared(), OPTIONS, l1, l2).await;
        let table = Arc::new(Table::default());
        let gate = Arc::new(Gate::default());
        let (single, batch) = tokio::join!(read_one(&node, &table, 2, Some(Arc::clone(&gate))), async {
            gate.reached.notified().await;
            tokio::join!(read_many(&node, &table, &[4, 2]), async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                gate.open.notify_one();
            })
            .0
        });
        assert_eq!((values(&[single]), values(&batch)), (vec![Some(0)], vec![Some(0), Some(0)]));
        assert_eq!(table.calls(), [[2], [4]]);
        assert!(batch[1].status.collapsed && !batch[0].status.collapsed);
        assert_eq!(batch[1].status.l1 == TierStatus::Unused, !l1, "{:?}", batch[1].status);

        let (batch, (single, others)) =
            tokio::join!(read_gated(&node, &table, &[6, 8], None, Some(Arc::clone(&gate))), async {
                gate.reached.notified().await;
                let both = async {
                    tokio::join!(read_one(&node, &table, 6, None), read_many(&node, &table, &[8, 10]))
                };
                tokio::join!(both, async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    gate.open.notify_one();
                })
                .0
            });
        assert_eq!(values(&batch.unwrap()), [Some(0), Some(0)]);
        assert!(single.status.collapsed && others[0].status.collapsed);
        assert_eq!(table.calls(), [vec![6, 8], vec![10]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_or_a_panic_reaches_all_who_wait_and_is_not_cached() {
    let (node, table) = (Node::start(&Place::shared()).await, Arc::new(Table::default()));
    let fail = |_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err("the database is away".into())
    };
    let items = [items(&[2, 4]), items(&[4])];
    let read = |items| node.cache.read_many::<Json<u64>, _, _>(&node.policy, items, None, fail);
    let (one, other) = tokio::join!(read(&items[0]), read(&items[1]));
    assert!(matches!(one, Err(LoadError::Failed(_))) && matches!(other, Err(LoadError::Failed(_))));
    let panics = |_| async { panic!("a bug in a loader") };
    let failed = node.cache.read_many::<Json<u64>, _, _>(&node.policy, &items[0], None, panics);
    let failed = tokio::time::timeout(Duration::from_secs(3), failed).await.expect("it ends");
    assert!(matches!(failed, Err(LoadError::Panicked)));
    // Not one value for each.
    let few = |_| async { Ok(vec![]) };
    let failed = node.cache.read_many::<Json<u64>, _, _>(&node.policy, &items[0], None, few).await;
    assert!(matches!(failed, Err(LoadError::Panicked)));
    assert_eq!(values(&read_many(&node, &table, &[2, 4, 6]).await), [Some(0); 3]);
    // Flights that end in a panic end one after the other, so that it may have met the second.
    let mut loaded = table.calls().concat();
    loaded.sort_unstable();
    assert_eq!(loaded, [2, 4, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_that_a_batch_has_failed_can_try_again_at_once() {
    let (node, table) = (Node::start(&Place::shared()).await, Arc::new(Table::default()));
    let numbers: Vec<u128> = (0..100).collect();
    for _ in 0..50 {
        let fail = |_| async { Err("the database is away".into()) };
        let failed =
            node.cache.read_many::<Json<u64>, _, _>(&node.policy, &items(&numbers), None, fail).await;
        assert!(matches!(failed, Err(LoadError::Failed(_))));
        let again = read_gated(&node, &table, &numbers, None, None).await;
        assert!(again.is_ok(), "it met what was left of the failure: {again:?}");
        node.cache.invalidate(&[Tag::all()], "test").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_during_the_load_of_a_batch_ends_what_it_concerns_and_spares_the_rest() {
    let place = Place::shared();
    let (a, b, table) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Table::default()));
    let gate = Arc::new(Gate::default());
    // From now on what all entries have in common has a version.
    read_many(&b, &table, &[100]).await;
    let (old, fresh) = tokio::join!(read_gated(&a, &table, &[2, 4], None, Some(Arc::clone(&gate))), async {
        gate.reached.notified().await;
        table.set(2, 1);
        let token = b.cache.invalidate(&[nth_tag(2)], "test").await.token;
        // Until it has heard, it would wait for the load that it must not believe.
        a.has_heard(&b).await;
        let fresh = read_gated(&a, &table, &[2], Some(&token), None).await.unwrap();
        let again = read_many(&a, &table, &[2]).await;
        gate.open.notify_one();
        [fresh, again]
    });
    assert_eq!(values(&old.unwrap()), [Some(0), Some(0)], "it had read before the write");
    assert!(fresh.iter().all(|reads| values(reads) == [Some(1)]), "{fresh:?}");
    table.calls();
    let c = Node::start(&place).await;
    for node in [&a, &b, &c] {
        assert_eq!(values(&read_many(node, &table, &[2, 4]).await), [Some(1), Some(0)]);
    }
    assert!(table.calls().is_empty(), "both are in L2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_token_is_never_older_than_the_write() {
    let place = Place::shared();
    let (a, b, table) = (Node::start(&place).await, Node::start(&place).await, Arc::new(Table::default()));
    for value in 1..=200 {
        read_many(&b, &table, &[2, 4]).await;
        table.set(4, value);
        let token = a.cache.invalidate(&[nth_tag(4)], "test").await.token;
        let reads = read_gated(&b, &table, &[2, 4], Some(&token), None).await.unwrap();
        assert_eq!(values(&reads), [Some(0), Some(value)]);
        assert_eq!(values(&read_many(&a, &table, &[4, 2]).await), [Some(value), Some(0)]);
    }
    // Only the database has heard of this one.
    table.set(2, 7);
    for token in [Token::unknown(), Token::new(12345, 1)] {
        let reads = read_gated(&b, &table, &[2, 4, 2], Some(&token), None).await.unwrap();
        assert_eq!(values(&reads), [Some(7), Some(200), Some(7)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_has_forgotten_its_scripts_is_told_them_again() {
    let redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "scripts".to_owned() };
    let (node, table) = (Node::start(&place).await, Arc::new(Table::default()));
    for round in 0..10 {
        let _: String = redis.run(&["SCRIPT", "FLUSH", "SYNC"]).await;
        let reads = read_many(&node, &table, &[round * 10, round * 10 + 2]).await;
        assert!(reads.iter().all(|read| read.status.stored_l2), "{:?}", reads[0].status);
        let _: String = redis.run(&["SCRIPT", "FLUSH", "SYNC"]).await;
        let fresh = Node::start_as(&place, Setup { l1: false, ..Setup::default() }).await;
        let reads = read_many(&fresh, &table, &[round * 10, round * 10 + 2]).await;
        assert!(reads.iter().all(|read| is_hit(read.status.l2)), "{:?}", reads[0].status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_while_redis_is_gone() {
    let mut redis = PrivateRedis::start().await;
    let place = Place { url: redis.url.clone(), namespace: "gone".to_owned() };
    let (node, table) = (Node::start(&place).await, Arc::new(Table::default()));
    read_many(&node, &table, &[2, 3]).await;
    redis.kill();
    for value in 1..=5 {
        table.set(2, value);
        node.cache.invalidate(&[nth_tag(2)], "test").await;
        assert_eq!(values(&read_many(&node, &table, &[2, 3, 4]).await), [Some(value), None, Some(0)]);
    }
}
