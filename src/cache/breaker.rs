//! Circuit breaker on the calls to Redis, as in M. Nygard, *Release It!*: one that fails or dawdles too often is not
//! asked any more, so that no request waits for it.
//!
//! **Closed**: a [`Breaker`] belongs to a connection and counts its calls. It trips on the rate of failures or of slow
//! calls among the latest, never on the first, or when several in a row do not answer at all: then a whole window of
//! waiting would be too much. **Open**: the connection is given up, and nobody has another. **Half open**: the bus opens a
//! new one after a pause that grows, and sends [`PROBES`]; only if each is answered, and not slowly, is it used.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Calls that have to go well on a new connection before it is used.
pub(super) const PROBES: usize = 3;
/// How many of the latest calls count, how old they may be, and how many it takes for a judgement.
const WINDOW: usize = 40;
const WINDOW_TIME: Duration = Duration::from_secs(10);
pub(super) const ENOUGH: usize = 10;
/// Percentages of the calls that count.
const FAILURES: usize = 25;
const SLOW_CALLS: usize = 50;
/// Calls without an answer, one after another.
const UNANSWERED: usize = 3;

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Fine,
    Slow,
    Failed,
    /// Not in time.
    Unanswered,
}

/// Why the breaker has tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trip {
    Failures,
    SlowCalls,
    Unanswered,
}

impl Trip {
    pub(super) const fn cause(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::SlowCalls => "slow_calls",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Watches the calls of one connection.
pub(super) struct Breaker {
    slow_from: Duration,
    latest: Mutex<VecDeque<(Instant, Outcome)>>,
}

impl Breaker {
    /// A call that takes half of the time that it is given is slow.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { slow_from: timeout / 2, latest: Mutex::default() }
    }

    /// Whether a call that was answered after `took` was slow.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        took >= self.slow_from
    }

    /// Counts a call that ended `now`. `Some`: it was one too many, which one that went well never is.
    pub(super) fn count(&self, outcome: Outcome, now: Instant) -> Option<Trip> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.push_back((now, outcome));
        while latest.len() > WINDOW
            || latest.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW_TIME)
        {
            latest.pop_front();
        }
        if outcome == Outcome::Fine {
            return None;
        }
        let unanswered = latest.iter().rev().take_while(|(_, outcome)| *outcome == Outcome::Unanswered);
        if unanswered.count() >= UNANSWERED {
            return Some(Trip::Unanswered);
        }
        let count =
            |wanted: &[Outcome]| latest.iter().filter(|(_, outcome)| wanted.contains(outcome)).count();
        let is_too_many = |count: usize, percentage| count * 100 >= latest.len() * percentage;
        if latest.len() < ENOUGH {
            None
        } else if is_too_many(count(&[Outcome::Failed, Outcome::Unanswered]), FAILURES) {
            Some(Trip::Failures)
        } else if is_too_many(count(&[Outcome::Slow, Outcome::Failed, Outcome::Unanswered]), SLOW_CALLS) {
            Some(Trip::SlowCalls)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(Duration::from_millis(50))
    }

    /// Counts these calls, one each millisecond, and returns what the last one led to.
    fn after(breaker: &Breaker, outcomes: &[Outcome]) -> Option<Trip> {
        let begin = Instant::now();
        let counted = outcomes.iter().zip(0..);
        counted
            .map(|(outcome, at)| breaker.count(*outcome, begin + Duration::from_millis(at)))
            .last()
            .unwrap()
    }

    #[test]
    fn single_failures_are_accidents() {
        use Outcome::{Failed, Fine, Unanswered};
        assert_eq!(after(&breaker(), &[Failed]), None);
        assert_eq!(after(&breaker(), &[Failed; ENOUGH - 1]), None);
        let mut rare = [Fine; WINDOW];
        rare[31..].fill(Failed);
        assert_eq!(after(&breaker(), &rare), None);
        assert_eq!(after(&breaker(), &[Unanswered, Unanswered, Fine, Unanswered]), None);
    }

    #[test]
    fn a_quarter_of_failures_or_a_half_of_slow_calls_trips_it() {
        use Outcome::{Failed, Fine, Slow};
        let mut often = [Fine; WINDOW];
        often[30..].fill(Failed);
        assert_eq!(after(&breaker(), &often), Some(Trip::Failures));
        let mut dawdling = [Fine; WINDOW];
        dawdling[20..].fill(Slow);
        assert_eq!(after(&breaker(), &dawdling), Some(Trip::SlowCalls));
        dawdling[20] = Fine;
        assert_eq!(after(&breaker(), &dawdling), None);
    }

    #[test]
    fn a_server_that_does_not_answer_at_all_trips_it_soon() {
        let outcomes = [Outcome::Fine, Outcome::Unanswered, Outcome::Unanswered, Outcome::Unanswered];
        assert_eq!(after(&breaker(), &outcomes), Some(Trip::Unanswered));
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let breaker = breaker();
        let begin = Instant::now();
        for _ in 0..ENOUGH - 1 {
            assert_eq!(breaker.count(Outcome::Failed, begin), None);
        }
        assert_eq!(breaker.count(Outcome::Failed, begin + 2 * WINDOW_TIME), None);
    }
}
