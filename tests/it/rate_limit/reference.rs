//! The scripts against a plain model of what they have to be.

use std::{sync::Arc, time::Duration};

use lockstep::{
    config::Rate,
    rate_limit::{
        policy::{Log, Policy},
        shared::{Reply, Shared},
    },
    redis::Redis,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, test_setting, unique_name};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 3_600_000;

/// What one log has to be: for each policy the stamps that count, oldest first.
struct Model {
    policies: Vec<(u32, u64)>,
    live: Vec<Vec<u64>>,
    last: u64,
    now: u64,
}

impl Model {
    fn new(policies: &[(u32, u64)]) -> Self {
        Self { policies: policies.to_vec(), live: vec![Vec::new(); policies.len()], last: 0, now: 0 }
    }

    /// A clock that steps back is followed for a minute; what has left its window counts no more.
    fn windows(&mut self, now: u64) -> Vec<Vec<u64>> {
        self.now = now.max(self.last.saturating_sub(MINUTE));
        let windows = self.live.iter().zip(&self.policies);
        windows
            .map(|(live, (_, window))| live.iter().copied().filter(|at| at + window > self.now).collect())
            .collect()
    }

    fn refund(&mut self, count: u32, stamp: u64) -> u32 {
        let equal = |live: &Vec<u64>| live.iter().filter(|at| **at == stamp).count();
        let removed = self.live.iter().map(equal).max().unwrap_or(0).min(count as usize);
        for live in &mut self.live {
            let mut left = removed;
            live.retain(|at| {
                let goes = *at == stamp && left > 0;
                left -= usize::from(goes);
                !goes
            });
        }
        u32::try_from(removed).unwrap()
    }
}

fn acquire(models: &mut [Model], now: u64, want: u32, lease: u64) -> Reply {
    let windows: Vec<_> = models.iter_mut().map(|model| model.windows(now)).collect();
    let room = models.iter().zip(&windows).flat_map(|(model, windows)| {
        model.policies.iter().zip(windows).map(|((limit, _), window)| i64::from(*limit) - window.len() as i64)
    });
    let granted = room.min().unwrap().clamp(0, i64::from(want));
    let (mut stamps, mut left, mut retry_ms) = (Vec::new(), Vec::new(), 0);
    for (model, windows) in models.iter_mut().zip(windows) {
        let mut windows = windows;
        if granted > 0 {
            model.last = (model.now + lease).max(model.last);
            windows.iter_mut().for_each(|window| window.extend((0..granted).map(|_| model.last)));
            model.live.clone_from(&windows);
        }
        stamps.push(if granted > 0 { model.last as i64 } else { 0 });
        for ((limit, length), window) in model.policies.iter().zip(&windows) {
            let remaining = limit.saturating_sub(u32::try_from(window.len()).unwrap());
            let reset = window.first().map_or(0, |at| at + length - model.now);
            left.push((remaining, reset));
            if granted < i64::from(want) && remaining == 0 {
                retry_ms = retry_ms.max(reset);
            }
        }
    }
    Reply { granted: u32::try_from(granted).unwrap(), retry_ms, stamps, left }
}

fn log(suffix: &'static str, policies: &[(u32, u64)]) -> Log {
    let policy = |(count, window): &(u32, u64)| Policy {
        name: "x",
        rate: Rate { count: *count, window: Duration::from_millis(*window) },
    };
    Log::new(suffix, policies.iter().map(policy).collect())
}

async fn decide_like_the_model(shared: &Shared, seed: u64, decisions: u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let pick = |rng: &mut StdRng, of: &[u32]| of[rng.random_range(0..of.len())];
    let user = [(pick(&mut rng, &[5, 60]), MINUTE), (pick(&mut rng, &[40, 200, 1000]), HOUR)];
    let message = [(pick(&mut rng, &[2, 30]), MINUTE)];
    let logs = [log("", &user), log(":msg", &message)];
    let mut models = [Model::new(&user), Model::new(&message)];
    let subject = format!("s{seed}");
    let mut now = 1_000_000_000_000 + seed * 1_000_000_000;
    let mut leases: Vec<(usize, u32, Vec<i64>)> = Vec::new();
    for step in 0..decisions {
        let pace = [100, 1_000, 4_000][rng.random_range(0..3)];
        now += match rng.random_range(0..100) {
            0 => [MINUTE, 10 * MINUTE, HOUR + 400_000][rng.random_range(0..3)],
            _ => rng.random_range(0..pace),
        };
        if rng.random_ratio(1, 100) {
            now -= [500, 30_000, 90_000][rng.random_range(0..3)];
        }
        if rng.random_ratio(3, 10) && !leases.is_empty() {
            let (count, most, stamps) = leases.swap_remove(rng.random_range(0..leases.len()));
            let back = rng.random_range(1..=most);
            let used: Vec<_> = logs.iter().take(count).collect();
            let removed = shared.refund(&used, &subject, back, &stamps).await.unwrap();
            let expected: Vec<_> = models
                .iter_mut()
                .zip(&stamps)
                .map(|(model, stamp)| model.refund(back, u64::try_from(*stamp).unwrap()))
                .collect();
            assert_eq!(removed, expected, "seed {seed}, step {step}: refund");
        }
        let (lease, want) = [(0, 0), (0, 1), (0, 1), (0, 3), (1000, 2), (1000, 8)][rng.random_range(0..6)];
        let count = rng.random_range(1..=2);
        let used: Vec<_> = logs.iter().take(count).collect();
        let expected = acquire(&mut models[..count], now, want, lease);
        let lease = Duration::from_millis(lease);
        let reply = shared.acquire_at(&used, &subject, want, lease, Some(now)).await.unwrap();
        assert_eq!(reply, expected, "seed {seed}, step {step}: {want} of {count} logs at {now}");
        if !lease.is_zero() && reply.granted > 1 {
            leases.push((count, reply.granted, reply.stamps));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_decisions_in_redis_are_those_of_a_reference_log() {
    let redis = Redis::new(&test_setting("TEST_REDIS_URL"), Duration::from_secs(5)).unwrap();
    let shared = Shared::new(redis, &unique_name("test"));
    let stop = CancellationToken::new();
    let connection = tokio::spawn(Arc::clone(&shared).keep_connected(stop.clone()));
    eventually("limits have a connection", Duration::from_secs(5), async || {
        shared.is_connected().then_some(())
    })
    .await;
    let deciding = (0..50).map(|seed| {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { decide_like_the_model(&shared, seed, 2_000).await })
    });
    for outcome in futures_util::future::join_all(deciding).await {
        outcome.unwrap();
    }
    stop.cancel();
    connection.await.unwrap();
}
