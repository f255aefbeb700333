//! Access tokens that were found good a moment ago.
//!
//! Whoever asks, asks again with the same token, and to parse it is most of the work of verifying it. Tokens are known
//! here by their SHA-256, so that none can be read out of this memory. What is kept says what a token says, never that it
//! is still good: its time is compared on each use, and whether its session has ended is for the caller to ask.

use std::sync::{Mutex, PoisonError};

use super::{Claims, Digest};

type Place = Option<(Digest, Claims)>;

/// Tokens that are remembered, in places that their digests choose: half a megabyte.
const PLACES: usize = 4096;

/// What good tokens say. Whichever came last has a place; the one before it is verified anew.
pub(super) struct Verified {
    places: Box<[Mutex<Place>]>,
}

impl Verified {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::default()).collect() }
    }

    /// What this token says, if it was verified here.
    pub(super) fn get(&self, digest: &Digest) -> Option<Claims> {
        let place = self.place(digest)?.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().filter(|(known, _)| known == digest).map(|(_, claims)| claims.clone())
    }

    /// Remembers what a token says whose signature was good.
    pub(super) fn put(&self, digest: Digest, claims: &Claims) {
        if let Some(place) = self.place(&digest) {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest, claims.clone()));
        }
    }

    fn place(&self, digest: &Digest) -> Option<&Mutex<Place>> {
        let [low, high, ..] = digest.0;
        self.places.get(usize::from(u16::from_le_bytes([low, high])) % PLACES)
    }
}
