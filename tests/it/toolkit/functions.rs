//! Cached functions.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use lockstep::{
    app::App,
    cache::Tag,
    queries::{Kind, functions::CachedFunction},
};

use super::{BUS, Pair};
use crate::support::eventually;

/// A function that counts how often it is called; it knows all numbers but 404.
#[derive(Default)]
struct Squares {
    calls: AtomicUsize,
    fails: AtomicBool,
}

impl Squares {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn cached(self: &Arc<Self>, app: &App) -> CachedFunction<u64, u64> {
        let squares = Arc::clone(self);
        CachedFunction::new(&app.queries, "square", Kind::Document, move |number: u64| {
            let squares = Arc::clone(&squares);
            async move {
                squares.calls.fetch_add(1, Ordering::SeqCst);
                if squares.fails.load(Ordering::SeqCst) {
                    return Err(io::Error::other("it fails"));
                }
                Ok((number != 404).then_some(number * number))
            }
        })
    }
}

async fn call(function: &CachedFunction<u64, u64>, number: u64) -> Option<u64> {
    function.call(number, None).await.unwrap().map(|square| square.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_called_once_for_the_same_arguments_by_all_instances() {
    let pair = Pair::start().await;
    let squares = Arc::new(Squares::default());
    let (a, b) = (squares.cached(&pair.a), squares.cached(&pair.b));
    for _ in 0..3 {
        assert_eq!((call(&a, 5).await, call(&b, 5).await), (Some(25), Some(25)));
    }
    assert_eq!(squares.calls(), 1);
    assert_eq!(call(&b, 6).await, Some(36));
    assert_eq!(squares.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_nothing_is_kept_and_that_it_failed_is_not() {
    let pair = Pair::start().await;
    let squares = Arc::new(Squares::default());
    let function = squares.cached(&pair.a);
    assert_eq!((call(&function, 404).await, call(&function, 404).await), (None, None));
    assert_eq!(squares.calls(), 1);

    squares.fails.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let err = function.call(7, None).await.unwrap_err();
        assert!(std::error::Error::source(&err).unwrap().to_string().contains("it fails"));
    }
    assert_eq!(squares.calls(), 3);
    squares.fails.store(false, Ordering::SeqCst);
    assert_eq!(call(&function, 7).await, Some(49));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_or_all_are_forgotten_on_every_instance() {
    let pair = Pair::start().await;
    let squares = Arc::new(Squares::default());
    let (a, b) = (squares.cached(&pair.a), squares.cached(&pair.b));
    let calls_of_both = async || {
        let before = squares.calls();
        for number in [1, 2] {
            call(&a, number).await;
            call(&b, number).await;
        }
        squares.calls() - before
    };
    assert_eq!(calls_of_both().await, 2);
    assert_eq!(calls_of_both().await, 0);

    let written = a.invalidate(&1).await.unwrap();
    let before = squares.calls();
    b.call(1, Some(&written.token)).await.unwrap();
    assert_eq!(squares.calls(), before + 1, "B was told with the token");
    eventually("both have the new result", BUS, async || (calls_of_both().await == 0).then_some(())).await;

    let written = b.invalidate_all().await.unwrap();
    let before = squares.calls();
    for number in [1, 2] {
        a.call(number, Some(&written.token)).await.unwrap();
    }
    assert_eq!(squares.calls(), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_ends_with_what_it_depends_on() {
    let pair = Pair::start().await;
    let squares = Arc::new(Squares::default());
    let tag =
        |number: &u64| vec![Tag::named("parity", if number.is_multiple_of(2) { "even" } else { "odd" })];
    let function = squares.cached(&pair.a).tagged(tag);
    for number in 1..=4 {
        call(&function, number).await;
    }
    pair.a.queries.invalidate(&[Tag::named("parity", "even")]).await.unwrap();
    for number in 1..=4 {
        call(&function, number).await;
    }
    assert_eq!(squares.calls(), 4 + 2);
}
