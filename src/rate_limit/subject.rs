//! What is known here of somebody who is limited: what was refused, what was granted ahead, who waits.
//!
//! No I/O, and nothing asynchronous: [`super::limiter`] does that, without holding the lock.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    policy::{Quota, Verdict},
    window::Window,
};

/// How long leased requests may be used.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// Requests that may be leased at once, where limits are small and where they are large, and the fewest that are worth it:
/// whatever is charged after a lease is stamped with its end, so that the quota comes back up to a second later.
const LEASED: u32 = 8;
const LEASED_OF_MANY: u32 = 256;
const WORTH_LEASING: u32 = 4;

/// How many requests may be leased at once where this many are allowed: a part that nobody misses.
pub(super) fn most_leased(limit: u32) -> u32 {
    (limit / 60).clamp(LEASED, LEASED_OF_MANY)
}

/// Somebody who is limited.
pub(super) struct Subject {
    pub name: String,
    state: Mutex<State>,
}

pub(super) struct State {
    /// What was admitted here, for each log.
    pub windows: Vec<Window>,
    /// For each plan.
    kinds: Vec<KindState>,
    /// What Redis has said last of each policy, and when.
    latest: Vec<(Quota, Instant)>,
}

#[derive(Default)]
pub(super) struct KindState {
    pub denied: Option<Denied>,
    pub lease: Option<Lease>,
    pub waiting: Vec<oneshot::Sender<Verdict>>,
    /// A call is under way.
    pub busy: bool,
    /// When the last requests came, at most as many as may be leased.
    recent: VecDeque<Instant>,
    /// When several last waited together: then they share their calls, and leases would gain nothing.
    pub crowded: Option<Instant>,
    /// The last answer was a refusal, too.
    pub is_denied_again: bool,
    /// What was left when it was last asked.
    pub left: u32,
}

/// Nothing passes until a time.
pub(super) struct Denied {
    pub since: Instant,
    /// How long it is known to hold.
    pub lasts: Duration,
    pub verdict: Verdict,
}

/// Requests that were granted ahead.
pub(super) struct Lease {
    pub left: u32,
    pub since: Instant,
    pub until: Instant,
    /// By which it can be given back.
    pub stamps: Vec<i64>,
}

impl Subject {
    /// Somebody of whom nothing is known yet.
    pub(super) fn new(name: String, logs: usize, plans: usize) -> Self {
        let windows = (0..logs).map(|_| Window::default()).collect();
        let kinds = (0..plans).map(|_| KindState::default()).collect();
        Self { name, state: Mutex::new(State { windows, kinds, latest: Vec::new() }) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn kind(&mut self, plan: usize) -> &mut KindState {
        #[expect(clippy::indexing_slicing, reason = "there is one for each plan")]
        &mut self.kinds[plan]
    }

    /// Keeps what Redis has said.
    pub(super) fn learn(&mut self, quotas: &[Quota], at: Instant) {
        for quota in quotas {
            self.latest.retain(|(known, _)| known.policy.name != quota.policy.name);
            self.latest.push((*quota, at));
        }
    }

    /// What is left of a policy by what is known, with `held` requests that were charged and not used.
    pub(super) fn latest(&self, name: &str, held: u32, now: Instant) -> Option<Quota> {
        let (quota, at) = self.latest.iter().find(|(quota, _)| quota.policy.name == name)?;
        let reset = quota.reset.saturating_sub(now.saturating_duration_since(*at));
        Some(Quota { remaining: quota.remaining + held, reset, ..*quota })
    }
}

impl KindState {
    /// A refusal that is still known to hold.
    pub(super) fn denial(&mut self, now: Instant) -> Option<Verdict> {
        let denied = self.denied.as_ref()?;
        let passed = now.saturating_duration_since(denied.since);
        if passed >= denied.lasts {
            self.denied = None;
            return None;
        }
        let mut verdict = denied.verdict.clone();
        verdict.retry -= passed;
        verdict.quotas.iter_mut().for_each(|quota| quota.reset = quota.reset.saturating_sub(passed));
        Some(verdict)
    }

    pub(super) fn note(&mut self, now: Instant, most: u32) {
        while self.recent.len() >= most as usize {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
    }

    /// Uses a request that was granted ahead. Returns how many are left of them.
    pub(super) fn take_leased(&mut self, now: Instant) -> Option<u32> {
        let lease = self.lease.as_mut().filter(|lease| lease.left > 0 && now < lease.until)?;
        lease.left -= 1;
        Some(lease.left)
    }

    /// How many requests to ask for ahead: as many as came here within the last second, as far as there is room for that
    /// on all instances.
    pub(super) fn worth_leasing(&self, instances: u32, most: u32, now: Instant) -> u32 {
        let is_fresh = |at: &Instant| now.saturating_duration_since(*at) < LEASE;
        let has_some = self.lease.as_ref().is_some_and(|lease| lease.left > 0);
        // A few would not spare those who share their calls anything.
        let is_shared = most == LEASED && self.crowded.as_ref().is_some_and(is_fresh);
        if has_some || is_shared {
            return 0;
        }
        // In the order of their coming.
        let fresh = self.recent.len() - self.recent.partition_point(|came| !is_fresh(came));
        let fresh = u32::try_from(fresh).unwrap_or(most);
        let wanted = fresh.min(most).min(self.left / (2 * instances.max(1)));
        // One of them is for who waits.
        if wanted < WORTH_LEASING { 0 } else { wanted - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is leased to somebody who has just asked this many times, of whose limits this much is left.
    fn leased(asked: u32, limit: u32, left: u32, crowded: bool) -> u32 {
        let (now, most) = (Instant::now(), most_leased(limit));
        let mut kind = KindState { left, crowded: crowded.then_some(now), ..KindState::default() };
        (0..asked).for_each(|_| kind.note(now, most));
        kind.worth_leasing(4, most, now)
    }

    #[test]
    fn as_many_are_leased_as_were_asked_for_within_a_second_and_no_more_than_a_part_of_the_limit() {
        assert_eq!(leased(3, 60, 60, false), 0);
        assert_eq!(leased(5, 60, 60, false), 4);
        assert_eq!(leased(50, 60, 60, false), 6);
        assert_eq!(leased(50, 600, 600, false), 9);
        assert_eq!(leased(50, 60_000, 60_000, false), 49);
        assert_eq!(leased(5_000, 60_000, 60_000, false), 255);
    }

    #[test]
    fn what_is_left_is_for_all_instances_and_those_who_share_calls_need_no_few() {
        assert_eq!(leased(50, 60_000, 80, false), 9);
        assert_eq!(leased(50, 60_000, 24, false), 0);
        assert_eq!(leased(50, 60, 60, true), 0);
        assert_eq!(leased(50, 60_000, 60_000, true), 49);
    }
}
