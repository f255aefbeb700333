//! What every request needs besides the cache: `cargo bench --bench requests`.
//!
//! Compare within one run; machines differ, and differ from minute to minute.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up may panic")]

use std::{hint::black_box, time::Duration};

use actix_web::http::header::HeaderMap;
use divan::Bencher;
use futures_util::FutureExt as _;
use lockstep::{
    auth::token::AccessTokens,
    cache::Stored as _,
    config::{Rate, RateLimitConfig},
    domain::id::{SessionId, UserId},
    metrics::busy::BusyCounterVec,
    queries::view::View,
    rate_limit::{Charge, Limits, headers},
};
use prometheus::{IntCounter, Opts};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

/// Limits of a process that decides by itself. What Redis has to decide takes as long as Redis does.
fn limits(runtime: &Runtime) -> Limits {
    let rate = |count, seconds| Some(Rate { count, window: Duration::from_secs(seconds) });
    let config = RateLimitConfig {
        burst: rate(1_000_000, 60),
        sustained: rate(1_000_000, 3600),
        message: rate(30, 60),
        ip: None,
        login: rate(5, 900),
    };
    Limits::new(&config, None, 1, [7; 32], runtime.handle(), &prometheus::Registry::new()).unwrap()
}

#[divan::bench]
fn charge_a_user(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let (limits, user) = (limits(&runtime), UserId::new());
    bencher.bench(|| limits.charge(black_box(user), Charge::Request).unwrap().now_or_never().unwrap());
}

#[divan::bench]
fn headers_of_limits(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let limits = limits(&runtime);
    let verdict = limits.charge(UserId::new(), Charge::Request).unwrap().now_or_never().unwrap();
    bencher.with_inputs(HeaderMap::new).bench_values(|mut headers| {
        headers::add(&mut headers, limits.plan(Charge::Request), &verdict);
        headers
    });
}

/// As the numbers of the process are counted by all threads at once.
#[divan::bench(threads = [1, 2])]
fn count_on_threads(bencher: Bencher<'_, '_>) {
    let counter = BusyCounterVec::new(Opts::new("busy", "Busy."), &[]).unwrap().with_label_values(&[]);
    bencher.bench(|| black_box(&counter).inc());
}

/// What there is to compare with.
#[divan::bench(threads = [1, 2])]
fn count_on_threads_in_one_place(bencher: Bencher<'_, '_>) {
    let counter = IntCounter::new("shared", "Shared.").unwrap();
    bencher.bench(|| black_box(&counter).inc());
}

/// A token that is seen for the first time.
#[divan::bench]
fn verify_a_new_token(bencher: Bencher<'_, '_>) {
    let (issuer, user) = (AccessTokens::new(&[7; 32], &[]), UserId::new());
    let verifier = AccessTokens::new(&[7; 32], &[]);
    let new = || issuer.issue(user, SessionId::new(), 0).unwrap();
    bencher.with_inputs(new).bench_values(|token| verifier.verify(&token).unwrap());
}

/// One that was seen before.
#[divan::bench]
fn verify_a_token_again(bencher: Bencher<'_, '_>) {
    let tokens = AccessTokens::new(&[7; 32], &[]);
    let token = tokens.issue(UserId::new(), SessionId::new(), 0).unwrap();
    bencher.bench(|| tokens.verify(black_box(&token)).unwrap());
}

/// What is in the envelope of an entry of L2.
#[divan::bench(args = [700, 20_000])]
fn decode_a_view(bencher: Bencher<'_, '_>, bytes: usize) {
    let view = View::object(41, &"x".repeat(bytes));
    let payload = view.encode().unwrap();
    bencher.bench(|| View::decode(black_box(&payload)).unwrap());
}
