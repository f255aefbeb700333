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
/// After so long what others held ahead has come back: their leases have ended, and Redis was told.
const BACK: Duration = Duration::from_millis(1250);
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
    /// When somebody was refused first, of refusals that came soon after each other, and how long he was to wait.
    first_refusal: Option<(Instant, Duration)>,
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

    /// Keeps what Redis has said to who asked at this time, unless it has said something newer.
    pub(super) fn learn(&mut self, quotas: &[Quota], at: Instant) {
        for quota in quotas {
            match self.latest.iter_mut().find(|(known, _)| known.policy.name == quota.policy.name) {
                Some(known) if known.1 <= at => *known = (*quota, at),
                Some(_) => {}
                None => self.latest.push((*quota, at)),
            }
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

    /// Everybody who waited has passed.
    pub(super) fn passed(&mut self) {
        self.first_refusal = None;
        self.denied = None;
    }

    /// Somebody who asked at this time was refused, and there will be room after `wait` unless others give back what they
    /// hold ahead. Returns for how long the refusal is taken to hold: until that has come back, and when it was confirmed
    /// then, all of the wait. It confirms nothing if there was room in between.
    pub(super) fn refused(&mut self, asked: Instant, wait: Duration) -> Duration {
        let age = |since: Instant| asked.saturating_duration_since(since);
        let is_same = |(since, wait): &(Instant, Duration)| age(*since) < 2 * BACK && age(*since) < *wait;
        let first = self.first_refusal.filter(is_same).unwrap_or((asked, wait));
        self.first_refusal = Some(first);
        if age(first.0) >= BACK { wait } else { wait.min(BACK) }
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
    fn a_refusal_is_sure_when_what_others_held_at_the_first_one_has_come_back() {
        let (mut kind, begun, hour) = (KindState::default(), Instant::now(), Duration::from_secs(3600));
        let mut lasts = |after_ms: u64| kind.refused(begun + Duration::from_millis(after_ms), hour);
        assert_eq!(lasts(0), BACK);
        // One that waited for the same call to end knows no more.
        assert_eq!(lasts(1), BACK);
        assert_eq!(lasts(1251), hour);
        // Meanwhile others may have been granted something ahead again.
        assert_eq!(lasts(60_000), BACK);
        assert_eq!(lasts(61_251), hour);
        kind.passed();
        assert_eq!(kind.refused(begun + Duration::from_millis(61_500), hour), BACK);
        // There was to be room after a moment, and perhaps there was.
        let soon = Duration::from_millis(300);
        assert_eq!(kind.refused(begun + Duration::from_secs(90), soon), soon);
        assert_eq!(kind.refused(begun + Duration::from_secs(92), hour), BACK);
    }

    #[test]
    fn whoever_passes_ends_a_refusal() {
        let (mut kind, now) = (KindState::default(), Instant::now());
        let verdict = Verdict { granted: false, retry: 2 * LEASE, quotas: Vec::new(), stamps: Vec::new() };
        kind.denied = Some(Denied { since: now, lasts: LEASE, verdict });
        assert!(kind.denial(now).is_some());
        kind.passed();
        assert!(kind.denial(now).is_none());
    }

    #[test]
    fn an_older_answer_does_not_take_the_place_of_a_newer_one() {
        let rate = crate::config::Rate { count: 60, window: Duration::from_secs(60) };
        let policy = crate::rate_limit::policy::Policy { name: "burst", rate };
        let quota = |remaining| Quota { policy, remaining, reset: Duration::ZERO };
        let subject = Subject::new(String::new(), 1, 1);
        let (mut state, now) = (subject.state(), Instant::now());
        for (remaining, at) in [(9, now), (8, now + LEASE), (12, now)] {
            state.learn(&[quota(remaining)], at);
        }
        assert_eq!(state.latest("burst", 0, now + LEASE).map(|quota| quota.remaining), Some(8));
    }

    #[test]
    fn what_is_left_is_for_all_instances_and_those_who_share_calls_need_no_few() {
        assert_eq!(leased(50, 60_000, 80, false), 9);
        assert_eq!(leased(50, 60_000, 24, false), 0);
        assert_eq!(leased(50, 60, 60, true), 0);
        assert_eq!(leased(50, 60_000, 60_000, true), 49);
    }
}
