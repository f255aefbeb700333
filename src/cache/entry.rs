//! What is kept: values, and the entries of L1. How entries look in L2: [`super::envelope`].

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{generation::Stamp, status::TierStatus};

/// A value that both tiers can keep.
pub trait Stored: Send + Sync + Sized + 'static {
    /// The payload for L2. `None`: this value cannot be stored.
    fn encode(&self) -> Option<Vec<u8>>;

    /// Reads a payload. `None` counts as a miss.
    fn decode(payload: Bytes) -> Option<Self>;

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

    fn decode(payload: Bytes) -> Option<Self> {
        serde_json::from_slice(&payload).ok().map(Self)
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

/// From when to when an entry serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryTimes {
    pub(super) kept_since: Instant,
    pub(super) expires_at: Instant,
    pub(super) refresh_at: Option<Instant>,
    pub(super) usable_until: Instant,
}

/// An entry of L1, and what a load hands to those who wait for it.
pub(super) struct Entry {
    /// `None`: it is known that there is nothing.
    value: Option<Arc<dyn Any + Send + Sync>>,
    /// `None`: nothing says for how long it may be used; it serves those who have asked, and is not kept.
    pub(super) stamp: Option<Stamp>,
    /// When it was loaded, or found in L2.
    pub(super) kept_since: Instant,
    pub(super) expires_at: Instant,
    /// From when on it is to be renewed by whoever asks for it.
    refresh_at: Option<Instant>,
    /// Somebody does.
    refreshing: AtomicBool,
    /// L1 does not hold it any more, or holds another in its place.
    dropped: AtomicBool,
    /// How long it may serve while the database is away.
    pub(super) usable_until: Instant,
    /// When its time is really up, if it serves for longer.
    pub(super) overdue_since: Option<Instant>,
    pub(super) bytes: u32,
}

impl Entry {
    /// An entry whose value weighs so much, if that matters to anybody.
    pub(super) fn new<T: Stored>(
        value: Option<T>,
        weight: usize,
        stamp: Option<Stamp>,
        times: EntryTimes,
    ) -> Self {
        // As counted, with what the allocator rounds up to: key and nodes of moka 390, this 190, what the value is
        // shared by 50, a tag that nothing else has 50.
        const OVERHEAD: usize = 680;
        let tags = stamp.as_ref().map_or(0, Stamp::tag_bytes);
        // Of larger pieces the allocator rounds up an eighth on average.
        let bytes = OVERHEAD + tags + weight + weight / 8;
        let value = value.map(|value| Arc::new(value) as Arc<dyn Any + Send + Sync>);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let EntryTimes { kept_since, expires_at, refresh_at, usable_until } = times;
        Self {
            value,
            stamp,
            kept_since,
            expires_at,
            refresh_at,
            refreshing: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
            usable_until,
            overdue_since: None,
            bytes,
        }
    }

    /// Whether it is near its end, and nobody renews it yet.
    pub(super) fn is_to_be_renewed(&self, now: Instant) -> bool {
        self.refresh_at.is_some_and(|at| now >= at) && !self.refreshing.load(Ordering::Relaxed)
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
        now < self.refresh_at.unwrap_or(self.expires_at)
            && self.overdue_since.is_none()
            && !self.dropped.load(Ordering::Acquire)
    }

    /// The same entry for a little longer, since there is no other.
    pub(super) fn prolonged(&self, until: Instant) -> Self {
        Self {
            value: self.value.clone(),
            stamp: self.stamp.clone(),
            kept_since: self.kept_since,
            expires_at: until.min(self.usable_until),
            refresh_at: None,
            refreshing: AtomicBool::new(false),
            dropped: AtomicBool::new(false),
            usable_until: self.usable_until,
            overdue_since: Some(self.overdue_since.unwrap_or(self.expires_at)),
            bytes: self.bytes,
        }
    }

    /// As what it is served.
    pub(super) fn status(&self, now: Instant) -> TierStatus {
        let ends = self.overdue_since.unwrap_or(self.expires_at);
        let left = ends.saturating_duration_since(now);
        if left.is_zero() { TierStatus::FailSafe(now - ends) } else { TierStatus::Hit(left) }
    }

    /// It is known that there is nothing.
    pub(super) const fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// The value without a share of it. `None`: there is none, or it is of another type.
    pub(super) fn value_ref<T: Stored>(&self) -> Option<&T> {
        self.value.as_deref()?.downcast_ref()
    }

    /// The value, or that there is none. The outer `None`: it is of another type.
    pub(super) fn value<T: Stored>(&self) -> Option<Option<Arc<T>>> {
        match &self.value {
            None => Some(None),
            Some(value) => Arc::clone(value).downcast().ok().map(Some),
        }
    }
}
