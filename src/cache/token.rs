//! The `Consistency-Token` of a write: what a later read has to know.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The epoch and sequence that a write's invalidation was given; or, where it could only be recorded, its position in the
/// journal.
///
/// Opaque to clients: base64url of a format byte and both numbers, 23 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    epoch: u64,
    sequence: u64,
}

/// Stands for the journal, in the place of an epoch. No other epoch is as low.
const JOURNAL: u64 = 1;
const FORMAT: u8 = 1;
const LENGTH: usize = 17;

impl Token {
    /// A write that is part of everything from `sequence` on.
    #[must_use]
    pub const fn new(epoch: u64, sequence: u64) -> Self {
        Self { epoch, sequence }
    }

    /// A write that is recorded in the journal at `position`, which all who read that agree on.
    #[must_use]
    pub const fn recorded(position: u64) -> Self {
        Self { epoch: JOURNAL, sequence: position }
    }

    /// The position, if it is one in the journal.
    pub(super) const fn position(&self) -> Option<u64> {
        if self.epoch == JOURNAL { Some(self.sequence) } else { None }
    }

    /// A write whose invalidation could not be sent: only the database is sure to know it.
    #[must_use]
    pub const fn unknown() -> Self {
        Self { epoch: 0, sequence: 0 }
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [FORMAT; LENGTH];
        let (_, numbers) = bytes.split_at_mut(1);
        let (epoch, sequence) = numbers.split_at_mut(8);
        epoch.copy_from_slice(&self.epoch.to_be_bytes());
        sequence.copy_from_slice(&self.sequence.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Not a token of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a token that this service has issued")]
pub struct MalformedToken;

impl FromStr for Token {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        let mut bytes = [0; LENGTH + 1];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).unwrap_or_default();
        match bytes.get(..length) {
            Some([FORMAT, e0, e1, e2, e3, e4, e5, e6, e7, s0, s1, s2, s3, s4, s5, s6, s7]) => Ok(Self {
                epoch: u64::from_be_bytes([*e0, *e1, *e2, *e3, *e4, *e5, *e6, *e7]),
                sequence: u64::from_be_bytes([*s0, *s1, *s2, *s3, *s4, *s5, *s6, *s7]),
            }),
            _ => Err(MalformedToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_trip_to_the_client_and_back() {
        let token = Token::new(u64::MAX - 5, 1_234_567);
        assert_eq!(token.to_string().parse(), Ok(token));
        assert!(token.to_string().len() < 64);
    }

    #[test]
    fn what_was_never_issued_is_malformed() {
        let token = Token::new(7, 8).to_string();
        for text in
            ["", "x", "AQ", &token[1..], &format!("{token}A"), &token.replace('A', "!"), &"A".repeat(500)]
        {
            assert_eq!(text.parse::<Token>(), Err(MalformedToken), "{text:?}");
        }
    }
}
