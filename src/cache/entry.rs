//! What is kept: values, and the entries of L1. How entries look in L2: [`super::envelope`].

use std::{
    any::Any,
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
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

/// An entry of L1, and what a load hands to those who wait for it: what is to be known of it, and its value, in one piece of
/// memory.
pub(super) type Entry = dyn AnyEntry;

/// An entry with a value of whatever type.
pub(super) trait AnyEntry: Send + Sync {
    /// What is to be known of it.
    fn state(&self) -> &State;
    /// The [`Kept`] that has its value.
    fn holder(self: Arc<Self>) -> Holder;
}

type Holder = Arc<dyn Any + Send + Sync>;

/// What is to be known of an entry.
pub(super) struct State {
    /// `None`: nothing says for how long it may be used; it serves those who have asked, and is not kept.
    pub(super) stamp: Option<Stamp>,
    pub(super) times: Times,
    pub(super) bytes: u32,
    /// Somebody renews it.
    refreshing: AtomicBool,
    /// L1 does not hold it any more, or holds another in its place.
    dropped: AtomicBool,
}

/// An entry with its value.
struct Kept<T> {
    state: State,
    value: T,
}

/// The value of an entry of which it is known that there is nothing.
struct Nothing;

/// An entry that serves for longer, with the value of the one that it was.
struct Prolonged {
    state: State,
    holder: Holder,
}

/// A value as the cache has it: many can hold it, and nobody copies it.
pub struct Value<T> {
    kept: Arc<Kept<T>>,
}

impl<T: Send + Sync + 'static> AnyEntry for Kept<T> {
    fn state(&self) -> &State {
        &self.state
    }

    fn holder(self: Arc<Self>) -> Holder {
        self
    }
}

impl AnyEntry for Prolonged {
    fn state(&self) -> &State {
        &self.state
    }

    fn holder(self: Arc<Self>) -> Holder {
        Arc::clone(&self.holder)
    }
}

impl Deref for Entry {
    type Target = State;

    fn deref(&self) -> &State {
        self.state()
    }
}

impl Entry {
    /// An entry whose value weighs so much, if that matters to anybody. Without a value, it is known that there is nothing.
    pub(super) fn new<T: Stored>(
        value: Option<T>,
        weight: usize,
        stamp: Option<Stamp>,
        times: Times,
    ) -> Arc<Self> {
        // As counted, with what the allocator rounds up to: key and nodes of moka 293, this without its value 80, and half
        // of what a tag takes that nothing else has.
        const OVERHEAD: usize = 400;
        let tags = stamp.as_ref().map_or(0, Stamp::tag_bytes);
        // Of larger pieces the allocator rounds up a little.
        let bytes = OVERHEAD + tags + weight + weight / 32;
        let state = State::new(stamp, times, u32::try_from(bytes).unwrap_or(u32::MAX));
        match value {
            Some(value) => Arc::new(Kept { state, value }),
            None => Arc::new(Kept { state, value: Nothing }),
        }
    }

    /// The same entry for a little longer, since there is no other. Counts for what it did, though it takes a little more.
    pub(super) fn prolonged(self: &Arc<Self>, until: Instant) -> Arc<Self> {
        let state = State::new(self.stamp.clone(), self.times.prolonged(until), self.bytes);
        Arc::new(Prolonged { state, holder: Arc::clone(self).holder() })
    }

    /// It is known that there is nothing.
    pub(super) fn is_absent(self: &Arc<Self>) -> bool {
        Arc::clone(self).holder().is::<Kept<Nothing>>()
    }

    /// The value, or that there is none. The outer `None`: it is of another type.
    pub(super) fn value<T: Stored>(self: &Arc<Self>) -> Option<Option<Value<T>>> {
        match Arc::clone(self).holder().downcast() {
            Ok(kept) => Some(Some(Value { kept })),
            Err(holder) => holder.is::<Kept<Nothing>>().then_some(None),
        }
    }
}

impl State {
    const fn new(stamp: Option<Stamp>, times: Times, bytes: u32) -> Self {
        let (refreshing, dropped) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { stamp, times, bytes, refreshing, dropped }
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
}

impl<T> Value<T> {
    /// Whether both are the same in memory.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kept, &other.kept)
    }
}

/// One that nobody keeps.
impl<T> From<T> for Value<T> {
    fn from(value: T) -> Self {
        let times = Times::ended(Instant::now(), Duration::ZERO, Duration::ZERO);
        Self { kept: Arc::new(Kept { state: State::new(None, times, 0), value }) }
    }
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self { kept: Arc::clone(&self.kept) }
    }
}

impl<T> Deref for Value<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.kept.value
    }
}

impl<T: PartialEq> PartialEq for Value<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn entry(value: Option<Json<u8>>) -> Arc<Entry> {
        Entry::new(value, 1, None, Times::new(Instant::now(), HOUR, None, HOUR))
    }

    #[test]
    fn what_is_known_of_an_entry_fits_into_eighty_bytes_with_its_counts() {
        assert!(size_of::<State>() + 16 <= 80, "{}", size_of::<State>());
    }

    #[test]
    fn an_entry_tells_its_value_that_there_is_none_and_that_it_is_of_another_type() {
        let kept = entry(Some(Json(1)));
        assert_eq!(kept.value::<Json<u8>>().unwrap().map(|value| value.0), Some(1));
        assert!(kept.value::<Json<u16>>().is_none());
        assert!(!kept.is_absent());
        let absent = entry(None);
        assert!(absent.value::<Json<u8>>().unwrap().is_none());
        assert!(absent.is_absent());
    }

    #[test]
    fn one_that_is_prolonged_has_the_value_that_it_had_and_holds_nothing_else() {
        let first = entry(Some(Json(1)));
        let value = first.value::<Json<u8>>().unwrap().unwrap();
        let second = first.prolonged(Instant::now() + HOUR);
        let third = second.prolonged(Instant::now() + 2 * HOUR);
        assert!(third.value::<Json<u8>>().unwrap().is_some_and(|prolonged| prolonged.is(&value)));
        assert_eq!(Arc::strong_count(&second), 1);
        assert!(entry(None).prolonged(Instant::now() + HOUR).is_absent());
    }
}
