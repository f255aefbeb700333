//! From when to when an entry of memory serves. There are many entries, so it is told by one moment and by times before and
//! behind it, in a third of the memory that as many [`Instant`]s take.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use super::status::TierStatus;

/// When an entry serves, as what, and when it is to be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// When its time is really up.
    ends: Moment,
    /// It was kept so long before that.
    life: Millis,
    /// It is to be renewed by whoever asks for it, from so long before that on. 0: it is not.
    renewed_before: Millis,
    /// How much longer it may serve while the database is away.
    usable_for: Millis,
    /// How much longer it does serve.
    prolonged_by: Millis,
}

impl Times {
    /// From now on, for a `life`, and after that for as long as `usable_for` while the database is away.
    pub(super) fn new(
        now: Instant,
        life: Duration,
        refresh_after: Option<Duration>,
        usable_for: Duration,
    ) -> Self {
        let before = refresh_after.map_or(Duration::ZERO, |after| life.saturating_sub(after));
        Self {
            ends: Moment::of(now).plus(life),
            life: Millis::of(life),
            renewed_before: Millis::of(before),
            usable_for: Millis::of(usable_for),
            prolonged_by: Millis(0),
        }
    }

    /// Its time is up since then.
    pub(super) fn ended(now: Instant, since: Duration, usable_for: Duration) -> Self {
        let ends = Moment::of(now).minus(since);
        Self { ends, ..Self::new(now, Duration::ZERO, None, usable_for) }
    }

    /// Until when it serves.
    fn expires(&self) -> Moment {
        self.ends.plus(self.prolonged_by.duration())
    }

    /// It does not serve any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        Moment::of(now) >= self.expires()
    }

    /// What is left until then.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.expires().since(Moment::of(now))
    }

    /// How long it has been kept; if it was found when its time was up, how long that has been.
    pub(super) fn age(&self, now: Instant) -> Duration {
        Moment::of(now).since(self.ends.minus(self.life.duration()))
    }

    /// It may serve for longer while the database is away.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        Moment::of(now) < self.ends.plus(self.usable_for.duration())
    }

    /// It is near its end.
    pub(super) fn is_to_be_renewed(&self, now: Instant) -> bool {
        self.renewed_before != Millis(0) && Moment::of(now) >= self.renewed_from()
    }

    /// It is not near its end, and serves for its own time.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        Moment::of(now) < self.renewed_from() && !self.is_prolonged()
    }

    fn renewed_from(&self) -> Moment {
        self.ends.minus(self.renewed_before.duration())
    }

    /// It serves for longer than its time.
    pub(super) fn is_prolonged(&self) -> bool {
        self.prolonged_by != Millis(0)
    }

    /// It serves until after that, within its own time.
    pub(super) fn outlast(&self, until: Instant) -> bool {
        self.ends > Moment::of(until) && !self.is_prolonged()
    }

    /// The same for a little longer, and not to be renewed.
    pub(super) fn prolonged(&self, until: Instant) -> Self {
        let prolonged_by = Millis::of(Moment::of(until).since(self.ends));
        let prolonged_by = prolonged_by.clamp(Millis(1), self.usable_for.max(Millis(1)));
        Self { prolonged_by, renewed_before: Millis(0), ..*self }
    }

    /// As what it serves.
    pub(super) fn status(&self, now: Instant) -> TierStatus {
        let now = Moment::of(now);
        let left = self.ends.since(now);
        if left.is_zero() { TierStatus::FailSafe(now.since(self.ends)) } else { TierStatus::Hit(left) }
    }
}

/// In nanoseconds, before or after one that all are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(i64);

impl Moment {
    fn of(instant: Instant) -> Self {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        let origin = *ORIGIN;
        Self(nanoseconds(instant.saturating_duration_since(origin)))
            .minus(origin.saturating_duration_since(instant))
    }

    fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }

    /// How long after another it is; not at all, if it is before.
    fn since(self, other: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(other.0)).unwrap_or_default())
    }
}

/// 292 years at most.
fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Milliseconds, 49 days at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Millis(u32);

impl Millis {
    fn of(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX))
    }

    fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_entry_serves_for_its_life_and_is_to_be_renewed_near_its_end() {
        let begun = Instant::now();
        let times = Times::new(begun, ms(100), Some(ms(80)), ms(1000));
        let at = |after| begun + ms(after);
        assert_eq!((times.is_settled(at(79)), times.is_to_be_renewed(at(79))), (true, false));
        assert_eq!((times.is_settled(at(80)), times.is_to_be_renewed(at(80))), (false, true));
        assert_eq!((times.is_over(at(99)), times.is_over(at(100))), (false, true));
        assert_eq!((times.is_usable(at(1099)), times.is_usable(at(1100))), (true, false));
        assert_eq!((times.left(at(30)), times.left(at(100))), (ms(70), ms(0)));
        assert_eq!(times.age(at(30)), ms(30));
        assert_eq!(times.status(at(30)), TierStatus::Hit(ms(70)));
        assert!(times.outlast(at(99)) && !times.outlast(at(100)));
        let unrenewed = Times::new(begun, ms(100), None, ms(0));
        assert!(unrenewed.is_settled(at(99)) && !unrenewed.is_to_be_renewed(at(200)));
    }

    #[test]
    fn one_that_is_prolonged_serves_past_its_end_but_not_beyond_what_is_usable() {
        let begun = Instant::now();
        let times = Times::new(begun, ms(100), Some(ms(80)), ms(1000));
        let at = |after| begun + ms(after);
        let prolonged = times.prolonged(at(600));
        assert_eq!((prolonged.is_over(at(599)), prolonged.is_over(at(600))), (false, true));
        assert_eq!(prolonged.status(at(150)), TierStatus::FailSafe(ms(50)));
        assert!(!prolonged.is_settled(at(50)) && !prolonged.is_to_be_renewed(at(90)));
        assert!(!prolonged.outlast(at(50)));
        let longer = prolonged.prolonged(at(5000));
        assert_eq!((longer.is_over(at(1099)), longer.is_over(at(1100))), (false, true));
        assert_eq!(longer.is_usable(at(1100)), times.is_usable(at(1100)));
    }

    #[test]
    fn what_has_ended_before_the_process_began_may_be_usable_still() {
        let now = Instant::now();
        let times = Times::ended(now, Duration::from_hours(1000), Duration::from_hours(1001));
        assert_eq!((times.is_over(now), times.is_usable(now)), (true, true));
        assert!(!times.is_usable(now + Duration::from_hours(1)));
        assert_eq!(times.status(now), TierStatus::FailSafe(Duration::from_hours(1000)));
    }
}
