//! A sliding log in this process: the stamps of what was admitted here, oldest first.
//!
//! The same rule as in `lua/limiter.lua`: a stamp counts while it is younger than the window, and a refused request
//! leaves none.

use std::{collections::VecDeque, time::Duration};

use super::policy::{Log, Quota};

/// The admitted requests of one subject, in milliseconds since some beginning.
#[derive(Debug, Default)]
pub(super) struct Window {
    stamps: VecDeque<u64>,
}

impl Window {
    /// What is left of each policy at `now`, of a share of `1 / instances`, and until there is room if there is none.
    pub(super) fn look(&self, log: &Log, instances: u32, now: u64) -> (Vec<Quota>, u64) {
        let mut retry = 0;
        let quotas = log.policies.iter().map(|policy| {
            let window = policy.window_ms();
            let first = self.first_within(now, window);
            let count = self.stamps.len() - first;
            let limit = share(policy.rate.count, instances);
            let leaves =
                |index: usize| self.stamps.get(index).map_or(0, |stamp| (stamp + window).saturating_sub(now));
            let remaining = u32::try_from(count).ok().and_then(|count| limit.checked_sub(count)).unwrap_or(0);
            if remaining == 0 {
                // There is room again once fewer than the limit are left.
                retry = retry.max(leaves(self.stamps.len().saturating_sub(limit as usize)));
            }
            Quota { policy: *policy, remaining, reset: Duration::from_millis(leaves(first)) }
        });
        (quotas.collect(), retry)
    }

    /// Remembers an admitted request.
    pub(super) fn charge(&mut self, log: &Log, now: u64) {
        self.stamps.push_back(now);
        // Few at a time, from the old end: no search, however many there are.
        let edge = now.checked_sub(log.longest_window_ms());
        let capacity = log.capacity() as usize;
        while self.stamps.len() > capacity || self.stamps.front().is_some_and(|first| Some(*first) <= edge) {
            self.stamps.pop_front();
        }
    }

    /// Forgets the last admitted request.
    pub(super) fn refund(&mut self) {
        self.stamps.pop_back();
    }

    fn first_within(&self, now: u64, window: u64) -> usize {
        match now.checked_sub(window) {
            Some(edge) => self.stamps.partition_point(|stamp| *stamp <= edge),
            None => 0,
        }
    }
}

/// What an instance may admit by itself while it cannot ask.
fn share(limit: u32, instances: u32) -> u32 {
    (limit / instances.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::{config::Rate, rate_limit::policy::Policy};

    /// The plain form of the rule: the newest stamp first, all that is too old dropped each time.
    struct Reference {
        limit: usize,
        window: u64,
        history: Vec<u64>,
    }

    impl Reference {
        fn live(&self, now: u64) -> Vec<u64> {
            self.history.iter().copied().filter(|stamp| stamp + self.window > now).collect()
        }
    }

    #[test]
    fn a_hundred_thousand_random_decisions_are_those_of_a_reference_log() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut decisions = 0;
        for _ in 0..40 {
            let windows = [60_000, 3_600_000];
            let limits = [rng.random_range(1..80), rng.random_range(40..1000)];
            let policy = |name, count, window| Policy {
                name,
                rate: Rate { count, window: Duration::from_millis(window) },
            };
            let log =
                Log::new("", vec![policy("a", limits[0], windows[0]), policy("b", limits[1], windows[1])]);
            let mut tested = Window::default();
            let mut references: Vec<_> = (0..2)
                .map(|index| Reference {
                    limit: limits[index] as usize,
                    window: windows[index],
                    history: Vec::new(),
                })
                .collect();
            let mut now = 10_000_000;
            for _ in 0..2_500 {
                now += match rng.random_range(0..100) {
                    0 => 60_000,
                    1 => 4_000_000,
                    _ => rng.random_range(0..3_000),
                };
                let lives: Vec<_> = references.iter().map(|reference| reference.live(now)).collect();
                let remaining: Vec<_> = references
                    .iter()
                    .zip(&lives)
                    .map(|(r, live)| r.limit.saturating_sub(live.len()))
                    .collect();
                let expected_retry = references
                    .iter()
                    .zip(&lives)
                    .filter(|(reference, live)| live.len() >= reference.limit)
                    .map(|(reference, live)| live[live.len() - reference.limit] + reference.window - now)
                    .max()
                    .unwrap_or(0);
                let (quotas, retry) = tested.look(&log, 1, now);
                assert_eq!(retry, expected_retry);
                for (index, quota) in quotas.iter().enumerate() {
                    assert_eq!(quota.remaining as usize, remaining[index]);
                    let reset = lives[index].first().map_or(0, |stamp| stamp + windows[index] - now);
                    assert_eq!(quota.reset, Duration::from_millis(reset));
                }
                if retry == 0 {
                    tested.charge(&log, now);
                    references.iter_mut().for_each(|reference| reference.history.push(now));
                    for reference in &mut references {
                        reference.history.retain(|stamp| stamp + reference.window > now);
                    }
                }
                decisions += 1;
            }
        }
        assert_eq!(decisions, 100_000);
    }

    #[test]
    fn a_share_is_never_nothing() {
        assert_eq!((share(60, 4), share(3, 4), share(5, 1)), (15, 1, 5));
    }
}
