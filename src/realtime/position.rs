//! Where a client is in the log, in a form that every instance understands.
//!
//! `1.AT.SEEN` says: everything that was visible in the snapshot SEEN was sent. `1.AT.SEEN.NUMBER.NEXT` says: and of what
//! became visible from SEEN to NEXT, what has this number or a lower one. AT is the database's time of the reading, in
//! milliseconds since 1970.

use std::{fmt, str::FromStr};

use crate::db::snapshot::Snapshot;

const FORMAT: &str = "1";

/// Longest position. A snapshot names the transactions under way, of which there are no more than connections.
const MAX_BYTES: usize = 16 * 1024;

/// A place in the log. Not a secret: it says nothing of rights, which are looked up each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub at_ms: i64,
    pub seen: Snapshot,
    /// How far the next reading was sent.
    pub partly: Option<(i64, Snapshot)>,
}

/// Not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a position")]
pub struct MalformedPosition;

impl Position {
    /// After everything that was visible in a snapshot.
    #[must_use]
    pub const fn after(seen: Snapshot, at_ms: i64) -> Self {
        Self { at_ms, seen, partly: None }
    }

    /// The transaction number at which everything of it ends.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.partly.as_ref().map_or(self.seen.end(), |(_, next)| next.end().max(self.seen.end()))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORMAT}.{}.{}", self.at_ms, self.seen)?;
        match &self.partly {
            Some((number, next)) => write!(f, ".{number}.{next}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Position {
    type Err = MalformedPosition;

    fn from_str(text: &str) -> Result<Self, MalformedPosition> {
        // It is sent back with every event that was missed.
        if text.len() > MAX_BYTES {
            return Err(MalformedPosition);
        }
        let words: Vec<_> = text.split('.').collect();
        let number = |word: &str| word.parse().map_err(|_garbage| MalformedPosition);
        let snapshot = |word: &str| word.parse().map_err(|_garbage| MalformedPosition);
        match *words {
            [FORMAT, at, seen] => Ok(Self::after(snapshot(seen)?, number(at)?)),
            [FORMAT, at, seen, last, next] => {
                let partly = Some((number(last)?, snapshot(next)?));
                Ok(Self { at_ms: number(at)?, seen: snapshot(seen)?, partly })
            }
            _ => Err(MalformedPosition),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_the_client() {
        for text in ["1.1700000000000.10:20:12,15", "1.1700000000000.10:10:.77.10:20:12"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_was_made_up_is_refused() {
        for text in ["", "1", "2.1.10:10:", "1.x.10:10:", "1.1.10:10:.5", "1.1.10:10:.x.10:10:", "1.1.10"] {
            assert_eq!(text.parse::<Position>(), Err(MalformedPosition), "{text}");
        }
    }
}
