use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::cache::entry::{EntryTimes, Json};

const SECOND: Duration = Duration::from_secs(1);

fn key(number: u128) -> Key {
    Key::new("thing", Uuid::from_u128(number), 1)
}

/// One that is good for ten seconds, and to be renewed after five.
fn entry(now: Instant, value: &str) -> Arc<Entry> {
    let times = EntryTimes {
        kept_since: now,
        expires_at: now + 10 * SECOND,
        refresh_at: Some(now + 5 * SECOND),
        usable_until: now + 20 * SECOND,
    };
    Arc::new(Entry::new(Some(Json(value.to_owned())), None, times))
}

fn value(entry: &Entry) -> Option<String> {
    Some(entry.value::<Json<String>>()??.0.clone())
}

/// An L1 that has one entry, which this thread remembers.
fn with_one(now: Instant) -> L1 {
    let l1 = L1::new(1 << 20);
    l1.put(key(1), entry(now, "one"));
    l1.remember(&key(1), l1.get(&key(1)).unwrap(), now);
    assert_eq!(l1.recall(&key(1), now, value).as_deref(), Some("one"));
    l1
}

#[test]
fn what_is_taken_out_of_l1_or_replaced_there_is_not_remembered_any_more() {
    let now = Instant::now();
    let is_remembered = |l1: &L1| l1.recall(&key(1), now, value).is_some();

    let l1 = with_one(now);
    assert_eq!(l1.remove_matching(&[WildMatch::new("thing:*")]), 1);
    assert!(!is_remembered(&l1));

    let l1 = with_one(now);
    std::thread::scope(|scope| scope.spawn(|| l1.put(key(1), entry(now, "another"))).join()).unwrap();
    assert!(!is_remembered(&l1));
    l1.remember(&key(1), l1.get(&key(1)).unwrap(), now);
    assert_eq!(l1.recall(&key(1), now, value).as_deref(), Some("another"));

    let l1 = with_one(now);
    for number in 2..5_000 {
        l1.put(key(number), entry(now, "more than there is room for"));
    }
    l1.entries.run_pending_tasks();
    assert!(l1.get(&key(1)).is_none() && !is_remembered(&l1));
}

#[test]
fn what_has_to_be_renewed_or_has_ended_is_for_l1_to_say() {
    let now = Instant::now();
    let l1 = with_one(now);
    let is_remembered = |at| {
        l1.remember(&key(1), l1.get(&key(1)).unwrap(), at);
        l1.recall(&key(1), at, value).is_some()
    };
    assert!(is_remembered(now + 4 * SECOND));
    assert!(!is_remembered(now + 5 * SECOND));
    let l1 = L1::new(1 << 20);
    l1.remember(&key(1), Arc::new(entry(now, "old").prolonged(now + 9 * SECOND)), now);
    assert!(l1.recall(&key(1), now, value).is_none());
}

/// L1 drops what was not asked for lately, and has to learn of what threads answer by themselves.
#[test]
fn what_is_in_use_is_looked_for_in_l1_once_a_second() {
    let begin = Instant::now();
    let l1 = with_one(begin);
    assert!(l1.recall(&key(1), begin + SECOND / 2, value).is_some());
    assert!(l1.recall(&key(1), begin + SECOND, value).is_none());
    l1.remember(&key(1), l1.get(&key(1)).unwrap(), begin + SECOND);
    assert!(l1.recall(&key(1), begin + SECOND * 3 / 2, value).is_some());
}

#[test]
fn each_thread_remembers_for_itself_and_nothing_that_is_large() {
    let now = Instant::now();
    let l1 = with_one(now);
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| l1.recall(&key(1), now, value)).join());
    assert_eq!(elsewhere.unwrap(), None);
    l1.put(key(2), entry(now, &"large ".repeat(4_000)));
    l1.remember(&key(2), l1.get(&key(2)).unwrap(), now);
    assert!(l1.recall(&key(2), now, value).is_none());
}

#[test]
fn tidying_up_gives_back_what_threads_remember_of_what_has_ended() {
    let now = Instant::now();
    let l1 = with_one(now);
    let held = Arc::downgrade(&l1.get(&key(1)).unwrap());
    l1.remove_ended(now + 19 * SECOND);
    assert!(l1.get(&key(1)).is_some());
    l1.remove_ended(now + 20 * SECOND);
    l1.entries.run_pending_tasks();
    assert!(held.upgrade().is_none());
}
