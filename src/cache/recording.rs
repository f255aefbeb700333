//! What was read from L1 in one go, so that the same can be asked again without looking anything up.
//!
//! Whoever answers the same question again and again has it [`recorded`] what was read for it, [takes](take) that where
//! the answer is made, and asks each time whether L1 would still say so ([`Cache::repeats`]). Nothing is taken on trust: each
//! entry is judged as in any read.
//!
//! **Invariant.** What is taken is everything that the work has read until then. Only L1 can answer within a single poll,
//! and all that it answers passes `note`; whoever turns to L2, to a load or to the database passes `spoil`, and there is
//! nothing to be taken.

use std::{cell::RefCell, future::poll_fn, pin::pin, sync::Arc, time::Instant};

use super::{
    Cache, Status,
    entry::{Entry, Stored, Value},
    key::{KeptKey, Key},
    policy::Policy,
    trust::Verdict,
};

thread_local! {
    /// Of the work that is being polled on this thread. `None`: nobody records.
    static READS: RefCell<Option<Reads>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Reads {
    recalls: Vec<Recall>,
    is_spoiled: bool,
}

/// A read that L1 has answered.
pub struct Recall {
    key: KeptKey,
    entry: Arc<Entry>,
    policy: Arc<Policy>,
}

impl Recall {
    /// What was read. `None`: that there is nothing, or a value of another type.
    #[must_use]
    pub fn value<T: Stored>(&self) -> Option<Value<T>> {
        self.entry.value()?
    }

    /// Counts it once more.
    pub fn count(&self) {
        self.policy.stats.l1_hit();
    }

    /// How a read fares that is answered by it now.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        Status::new(self.entry.times.status(now))
    }

    /// L1 would not say so again.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        !self.entry.is_settled(now)
    }

    /// About how many bytes it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.entry.bytes
    }
}

impl Cache {
    /// Whether L1 would answer all these reads just so if it were asked now, and would need nothing to be done about it.
    #[must_use]
    pub fn repeats(&self, reads: &[Recall], now: Instant) -> bool {
        reads.iter().all(|read| {
            let stamp = read.entry.stamp.as_ref().filter(|_| read.entry.is_settled(now));
            stamp.is_some_and(|stamp| self.trust.judge_at(stamp, now) == Verdict::Fresh)
        })
    }

    /// Lets L1 know that these are in use: it drops what was used least recently, and does not learn of what is
    /// [repeated](Self::repeats).
    pub fn touch(&self, reads: &[Recall]) {
        if let Some(l1) = &self.l1 {
            reads.iter().for_each(|read| drop(l1.get(&read.key.key())));
        }
    }
}

/// Does some work, and records what it reads for as long as it does not have to wait for anything.
pub async fn recorded<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    let mut is_first = true;
    let output = poll_fn(|context| {
        let _recording = std::mem::take(&mut is_first).then(Recording::begin);
        work.as_mut().poll(context)
    });
    output.await
}

/// What the work that is being done has read so far. It is not recorded any further. `None`: nobody records, or it has
/// asked somebody else than L1, or has waited.
#[must_use]
pub fn take() -> Option<Vec<Recall>> {
    let reads = READS.take()?;
    (!reads.is_spoiled).then_some(reads.recalls)
}

/// L1 has answered.
pub(super) fn note(key: &Key, entry: &Arc<Entry>, policy: &Arc<Policy>) {
    READS.with_borrow_mut(|reads| {
        if let Some(reads) = reads {
            reads.recalls.push(Recall {
                key: (*key).into(),
                entry: Arc::clone(entry),
                policy: Arc::clone(policy),
            });
        }
    });
}

/// Something else than L1 is about to be asked.
pub(crate) fn spoil() {
    READS.with_borrow_mut(|reads| {
        if let Some(reads) = reads {
            reads.is_spoiled = true;
        }
    });
}

/// For as long as it lives, which is no longer than a poll, this thread records.
struct Recording;

impl Recording {
    /// Not within another, which would miss what this one hears.
    fn begin() -> Self {
        READS.set(Some(Reads::default()));
        Self
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        READS.set(None);
    }
}

#[cfg(test)]
mod tests;
