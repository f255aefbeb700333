//! What happened to a read in each tier, as the header `Cache-Status` tells it (RFC 9211).

use std::{fmt, time::Duration};

/// What one tier did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierStatus {
    /// The tier was not there to be asked.
    Unused,
    /// Served from it; it may be used for this long.
    Hit(Duration),
    /// Served from it although its time has been up for this long: the database is away.
    FailSafe(Duration),
    /// It had nothing.
    Miss,
    /// What it had was invalidated.
    Stale,
    /// It had no lease.
    NoLease,
    /// The request's `Consistency-Token` is newer.
    Request,
    /// It did not answer.
    Unavailable,
}

/// What both tiers did, and where the value went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// moka.
    pub l1: TierStatus,
    /// Redis.
    pub l2: TierStatus,
    /// The value was then stored in L1.
    pub stored_l1: bool,
    /// The value was then stored in L2.
    pub stored_l2: bool,
    /// The value came from a load that another reader had begun.
    pub collapsed: bool,
}

impl Status {
    pub(super) const fn new(l1: TierStatus) -> Self {
        Self { l1, l2: TierStatus::Unused, stored_l1: false, stored_l2: false, collapsed: false }
    }

    /// Another reader's load was waited for. Without L1 it was L2 that this reader missed.
    pub(super) const fn collapsed(l1: TierStatus) -> Self {
        let l2 = if matches!(l1, TierStatus::Unused) { TierStatus::Miss } else { TierStatus::Unused };
        Self { l1, l2, stored_l1: false, stored_l2: false, collapsed: true }
    }

    /// The same for a reader who has waited for it. That it is older than it should be, and from where, he is told too.
    pub(super) const fn of_who_joined(self, l1: TierStatus) -> Self {
        match (self.l1, self.l2) {
            (older @ TierStatus::FailSafe(_), _) => Self::new(older),
            (_, older @ TierStatus::FailSafe(_)) => Self { l2: older, ..Self::new(l1) },
            _ => Self::collapsed(l1),
        }
    }

    /// It was served for want of anything newer.
    pub(super) const fn is_fail_safe(&self) -> bool {
        matches!(self.l1, TierStatus::FailSafe(_)) || matches!(self.l2, TierStatus::FailSafe(_))
    }

    /// Neither tier was asked: there is nothing to say.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.l1 == TierStatus::Unused && self.l2 == TierStatus::Unused
    }
}

impl fmt::Display for Status {
    /// The list of RFC 9211: the cache nearest the origin first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l1_collapsed = self.collapsed && self.l1 != TierStatus::Unused;
        let l2_collapsed = self.collapsed && !l1_collapsed;
        // Whoever waited did not ask L2 himself.
        let shows_l2 = self.l2 != TierStatus::Unused && !l1_collapsed;
        if shows_l2 {
            write_tier(f, "redis", self.l2, self.stored_l2, l2_collapsed)?;
        }
        if self.l1 != TierStatus::Unused {
            if shows_l2 {
                f.write_str(", ")?;
            }
            write_tier(f, "moka", self.l1, self.stored_l1 && !l1_collapsed, l1_collapsed)?;
        }
        Ok(())
    }
}

fn write_tier(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    status: TierStatus,
    stored: bool,
    collapsed: bool,
) -> fmt::Result {
    match status {
        TierStatus::Unused => return Ok(()),
        TierStatus::Hit(left) => write!(f, "{name}; hit; ttl={}", left.as_secs())?,
        TierStatus::FailSafe(overdue) => {
            write!(f, "{name}; hit; ttl=-{}; detail=FAIL-SAFE", overdue.as_secs())?;
        }
        TierStatus::Miss => write!(f, "{name}; fwd=uri-miss")?,
        TierStatus::Stale => write!(f, "{name}; fwd=stale")?,
        TierStatus::NoLease => write!(f, "{name}; fwd=bypass; detail=NO-LEASE")?,
        TierStatus::Request => write!(f, "{name}; fwd=request")?,
        TierStatus::Unavailable => write!(f, "{name}; fwd=bypass; detail=UNAVAILABLE")?,
    }
    if collapsed {
        f.write_str("; collapsed")?;
    }
    if stored {
        f.write_str("; stored")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_the_cache_nearest_the_origin_first() {
        let miss = Status {
            l2: TierStatus::Miss,
            stored_l1: true,
            stored_l2: true,
            ..Status::new(TierStatus::Miss)
        };
        assert_eq!(miss.to_string(), "redis; fwd=uri-miss; stored, moka; fwd=uri-miss; stored");
        let hit = TierStatus::Hit(Duration::from_millis(281_900));
        let from_l2 = Status { l2: hit, stored_l1: true, ..Status::new(TierStatus::Request) };
        assert_eq!(from_l2.to_string(), "redis; hit; ttl=281, moka; fwd=request; stored");
        let no_lease = Status { l2: hit, ..Status::new(TierStatus::NoLease) };
        assert_eq!(no_lease.to_string(), "redis; hit; ttl=281, moka; fwd=bypass; detail=NO-LEASE");
    }

    #[test]
    fn whoever_waited_for_something_older_says_from_where_it_is_and_not_that_it_was_stored() {
        let older = TierStatus::FailSafe(Duration::from_secs(40));
        let from_l1 = Status { stored_l1: true, ..Status::new(older) };
        assert_eq!(from_l1.of_who_joined(TierStatus::Miss), Status::new(older));
        let from_l2 = Status { l2: older, stored_l1: true, ..Status::new(TierStatus::Miss) };
        let joined = from_l2.of_who_joined(TierStatus::Stale);
        assert_eq!(joined.to_string(), "redis; hit; ttl=-40; detail=FAIL-SAFE, moka; fwd=stale");
    }

    #[test]
    fn whoever_waited_says_so_and_nothing_of_what_the_leader_did() {
        let miss = Status {
            l2: TierStatus::Miss,
            stored_l1: true,
            stored_l2: true,
            ..Status::new(TierStatus::Miss)
        };
        let joined = miss.of_who_joined(TierStatus::Stale);
        assert_eq!(joined.to_string(), "moka; fwd=stale; collapsed");
    }
}
