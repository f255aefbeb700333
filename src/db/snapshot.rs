//! What a statement could see of the database: PostgreSQL's `pg_snapshot`.
//!
//! Logs that many write at once are read by it. Numbers from a sequence will not do: a row with a lower number may become
//! visible after one with a higher number. What was not visible in one snapshot and is in the next has been read by
//! nobody, and will be read by nobody else who goes from the first to the second.

use std::{fmt, str::FromStr};

/// A snapshot in PostgreSQL's own notation, `xmin:xmax:xip,xip…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    text: String,
    xmin: i64,
    xmax: i64,
}

/// Not a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot")]
pub struct MalformedSnapshot;

impl Snapshot {
    /// As PostgreSQL writes it, to be given back to it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Every transaction below this number was over.
    #[must_use]
    pub const fn horizon(&self) -> i64 {
        self.xmin
    }

    /// No transaction of this number or above had begun.
    #[must_use]
    pub const fn end(&self) -> i64 {
        self.xmax
    }
}

impl FromStr for Snapshot {
    type Err = MalformedSnapshot;

    /// What PostgreSQL would refuse is refused here: it may come from a stranger.
    fn from_str(text: &str) -> Result<Self, MalformedSnapshot> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok()).flatten().filter(|xid| *xid > 0).ok_or(MalformedSnapshot)
        };
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or(MalformedSnapshot);
        let (xmin, xmax, running) = (number(next()?)?, number(next()?)?, next()?);
        let mut last = 0;
        for xid in running.split(',').filter(|_| !running.is_empty()) {
            let xid = number(xid)?;
            if xid <= last || xid < xmin || xid >= xmax {
                return Err(MalformedSnapshot);
            }
            last = xid;
        }
        if xmin > xmax {
            return Err(MalformedSnapshot);
        }
        Ok(Self { text: text.to_owned(), xmin, xmax })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_postgresql_would_take_is_a_snapshot() {
        for text in ["10:10:", "10:20:10,14,15", "10:11:10"] {
            let snapshot: Snapshot = text.parse().unwrap();
            assert_eq!((snapshot.as_str(), snapshot.horizon()), (text, 10));
        }
        for text in
            ["", "10", "10:20", "0:1:", "20:10:", "10:20:9", "10:20:20", "10:20:15,14", "10:20:1x", "+10:20:"]
        {
            assert_eq!(text.parse::<Snapshot>(), Err(MalformedSnapshot), "{text}");
        }
    }
}
