//! Cursors: where the next page begins, signed, so that a client can neither make one up nor use one elsewhere.
//!
//! A cursor is base64url of a format byte, the position as JSON, and 8 bytes of HMAC-SHA-256 over both and the scope.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const FORMAT: u8 = 1;
const MAC_BYTES: usize = 8;

/// The list that a cursor belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    list: &'static str,
    of: Uuid,
}

impl Scope {
    /// `list` of the thing with this id.
    #[must_use]
    pub const fn new(list: &'static str, of: Uuid) -> Self {
        Self { list, of }
    }

    /// A list that is filtered: a cursor is good for the filters it was made with.
    #[must_use]
    pub fn filtered(list: &'static str, of: Uuid, filters: &impl Serialize) -> Self {
        let mut digest = Sha256::new_with_prefix(of.as_bytes());
        digest.update(serde_json::to_vec(filters).unwrap_or_default());
        let mut folded = [0; 16];
        folded.iter_mut().zip(digest.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        Self { list, of: Uuid::from_bytes(folded) }
    }
}

/// Signs cursors and checks them. Clones share the keys.
#[derive(Clone)]
pub struct CursorKey(Arc<Keys>);

struct Keys {
    present: Hmac<Sha256>,
    /// Cursors signed with these are in use, and in cached pages, while a secret is replaced.
    previous: Vec<Hmac<Sha256>>,
}

impl std::fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CursorKey")
    }
}

/// Not a cursor of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this list has given out")]
pub struct InvalidCursor;

impl CursorKey {
    /// Keys of 32 bytes that serve nothing else: the one that signs, and earlier ones.
    #[must_use]
    pub fn new(present: &[u8; 32], previous: &[[u8; 32]]) -> Self {
        Self(Arc::new(Keys { present: hmac(present), previous: previous.iter().map(hmac).collect() }))
    }

    /// The cursor for a position.
    #[must_use]
    pub fn sign(&self, scope: Scope, position: &impl Serialize) -> String {
        let mut bytes = vec![FORMAT];
        // Positions are ids and times, which always have a JSON form.
        let _ = serde_json::to_writer(&mut bytes, position);
        let mac = over(&self.0.present, scope, &bytes).finalize().into_bytes();
        bytes.extend(mac.iter().take(MAC_BYTES));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position of a cursor.
    ///
    /// # Errors
    /// When the cursor was not made here for this list.
    pub fn verify<T: DeserializeOwned>(&self, scope: Scope, cursor: &str) -> Result<T, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_garbage| InvalidCursor)?;
        let (signed, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(InvalidCursor)?;
        let mut keys = std::iter::once(&self.0.present).chain(&self.0.previous);
        if !keys.any(|key| over(key, scope, signed).verify_truncated_left(mac).is_ok()) {
            return Err(InvalidCursor);
        }
        match signed {
            [FORMAT, position @ ..] => serde_json::from_slice(position).map_err(|_other_type| InvalidCursor),
            _ => Err(InvalidCursor),
        }
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
fn hmac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of 32 bytes")
}

fn over(key: &Hmac<Sha256>, scope: Scope, signed: &[u8]) -> Hmac<Sha256> {
    let mac = key.clone().chain_update(scope.list).chain_update([0]);
    mac.chain_update(scope.of.as_bytes()).chain_update(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCOPE: Scope = Scope::new("members", Uuid::nil());

    #[test]
    fn a_cursor_brings_back_the_position_it_was_made_from() {
        let key = CursorKey::new(&[7; 32], &[]);
        assert_eq!(key.verify(SCOPE, &key.sign(SCOPE, &(5, "x"))), Ok((5, "x".to_owned())));
    }

    #[test]
    fn cursors_outlive_the_key_that_signed_them() {
        let cursor = CursorKey::new(&[7; 32], &[]).sign(SCOPE, &5);
        assert_eq!(CursorKey::new(&[8; 32], &[[7; 32]]).verify(SCOPE, &cursor), Ok(5));
    }

    #[test]
    fn a_cursor_of_another_list_key_or_with_a_changed_byte_is_refused() {
        let key = CursorKey::new(&[7; 32], &[]);
        let cursor = key.sign(SCOPE, &5);
        assert_eq!(key.verify::<i32>(Scope::new("workspaces", Uuid::nil()), &cursor), Err(InvalidCursor));
        assert_eq!(key.verify::<i32>(Scope::new("members", Uuid::max()), &cursor), Err(InvalidCursor));
        assert_eq!(CursorKey::new(&[8; 32], &[]).verify::<i32>(SCOPE, &cursor), Err(InvalidCursor));
        for index in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character holds bits that mean nothing; a strict decoder refuses those that are set.
            assert_eq!(key.verify::<i32>(SCOPE, &changed), Err(InvalidCursor), "{index}: {changed}");
        }
    }
}
