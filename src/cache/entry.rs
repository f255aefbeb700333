//! What is kept: values, and the entries of L1. How entries look in L2: [`super::envelope`].

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{generation::Stamp, times::Times};

/// A value that both tiers can keep.
pub trait Stored: Send + Sync + Sized + 'static {
    /// The payload for L2. `None`: this value cannot be stored.
    fn encode(&self) -> Option<Vec<u8>>;

    /// Reads a payload. `None` counts as a miss.
    fn decode(payload: &[u8]) -> Option<Self>;

    /// About how many bytes it takes in memory.
    fn weight(&self) -> usize;
}

/// A typed value, kept in L2 as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Stored for Json<T> {
    fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&self.0).ok()
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok().map(Self)
    }

    fn weight(&self) -> usize {
        // What it points to takes about as much as its text.
        let mut text = Counted(0);
        let counted = serde_json::to_writer(&mut text, &self.0);
        size_of::<T>() + if counted.is_ok() { text.0 } else { 0 }
    }
}

/// Counts bytes and keeps none.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An entry of L1, and what a load hands to those who wait for it.
pub(super) struct Entry {
    /// `None`: it is known that there is nothing.
    value: Option<Arc<dyn Any + Send + Sync>>,
    /// `None`: nothing says for how long it may be used; it serves those who have asked, and is not kept.
    pub(super) stamp: Option<Stamp>,
    pub(super) times: Times,
    pub(super) bytes: u32,
    /// Somebody renews it.
    refreshing: AtomicBool,
    /// L1 does not hold it any more, or holds another in its place.
    dropped: AtomicBool,
}

impl Entry {
    /// An entry whose value weighs so much, if that matters to anybody.
    pub(super) fn new<T: Stored>(
        value: Option<T>,
        weight: usize,
        stamp: Option<Stamp>,
        times: Times,
    ) -> Self {
        // As counted, with what the allocator rounds up to: key and nodes of moka 309, this 96, what the value is shared
        // by 16, and half of what a tag takes that nothing else has.
        const OVERHEAD: usize = 448;
        let tags = stamp.as_ref().map_or(0, Stamp::tag_bytes);
        // Of larger pieces the allocator rounds up a little.
        let bytes = OVERHEAD + tags + weight + weight / 32;
        let value = value.map(|value| Arc::new(value) as Arc<dyn Any + Send + Sync>);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            value,
            stamp,
            times,
            bytes,
            refreshing: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
        }
    }

    /// Whether it is near its end, and nobody renews it yet.
    pub(super) fn is_to_be_renewed(&self, now: Instant) -> bool {
        self.times.is_to_be_renewed(now) && !self.refreshing.load(Ordering::Relaxed)
    }

    /// Whether it is for the caller to renew it, of all who have seen that it is time.
    pub(super) fn claim_refresh(&self) -> bool {
        !self.refreshing.swap(true, Ordering::Relaxed)
    }

    /// L1 lets go of it.
    pub(super) fn drop_from_l1(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// L1 would serve it just so if it were asked: it has it, nobody has to renew it, and its time is not up.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.times.is_settled(now) && !self.dropped.load(Ordering::Acquire)
    }

    /// The same entry for a little longer, since there is no other.
    pub(super) fn prolonged(&self, until: Instant) -> Self {
        Self {
            value: self.value.clone(),
            stamp: self.stamp.clone(),
            times: self.times.prolonged(until),
            bytes: self.bytes,
            refreshing: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
        }
    }

    /// It is known that there is nothing.
    pub(super) const fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// The value, or that there is none. The outer `None`: it is of another type.
    pub(super) fn value<T: Stored>(&self) -> Option<Option<Arc<T>>> {
        match &self.value {
            None => Some(None),
            Some(value) => Arc::clone(value).downcast().ok().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_into_ninety_six_bytes_with_its_counts() {
        assert!(size_of::<Entry>() + 16 <= 96, "{}", size_of::<Entry>());
    }
}
