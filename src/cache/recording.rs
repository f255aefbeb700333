//! What was read from L1 in one go, so that the same can be asked again without looking anything up.
//!
//! Whoever answers the same question again and again keeps what its answer depended on ([`recorded`]), and asks each time
//! whether L1 would still say so ([`Cache::repeats`]). Nothing is taken on trust: each entry is judged as in any read.
//!
//! **Invariant.** What is handed out is everything that the work has read. Only L1 can answer within a single poll, and all
//! that it answers passes `note`; whoever turns to anything else passes `spoil`, and nothing is handed out.

use std::{cell::RefCell, future::poll_fn, pin::pin, sync::Arc, time::Instant};

use super::{
    Cache, Status,
    entry::{Entry, Stored},
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
    entry: Arc<Entry>,
    policy: Arc<Policy>,
}

impl Recall {
    /// What was read. `None`: that there is nothing, or a value of another type.
    #[must_use]
    pub fn value<T: Stored>(&self) -> Option<&T> {
        self.entry.value_ref()
    }

    /// How a read fares that is answered by it now.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        Status::new(self.entry.status(now))
    }

    /// About how many bytes it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.entry.bytes
    }

    /// L1 would not say so again, whatever happens.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        !self.entry.is_settled(now)
    }
}

impl Cache {
    /// Whether L1 would answer all these reads just so if it were asked now, and would need nothing to be done about it. If
    /// so, they count as reads. Which entries are in use L1 does not learn from this.
    #[must_use]
    pub fn repeats(&self, reads: &[Recall], now: Instant) -> bool {
        let holds = |read: &Recall| {
            let stamp = read.entry.stamp.as_ref().filter(|_| read.entry.is_settled(now));
            stamp.is_some_and(|stamp| self.trust.judge_at(stamp, now) == Verdict::Fresh)
        };
        let all_hold = reads.iter().all(holds);
        if all_hold {
            reads.iter().for_each(|read| read.policy.stats.l1_hit());
        }
        all_hold
    }
}

/// Does some work. Also returns all that it has read, if that was done at once and from L1 alone.
pub async fn recorded<F: Future>(work: F) -> (F::Output, Option<Vec<Recall>>) {
    let mut work = pin!(work);
    let (mut is_first, mut kept) = (true, None);
    let output = poll_fn(|context| {
        if !std::mem::take(&mut is_first) {
            return work.as_mut().poll(context);
        }
        let recording = Recording::begin();
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            kept = recording.end();
        }
        polled
    });
    let output = output.await;
    (output, kept)
}

/// Somebody records what the work that is being done reads.
#[must_use]
pub fn is_recording() -> bool {
    READS.with_borrow(Option::is_some)
}

/// L1 has answered.
pub(super) fn note(entry: &Arc<Entry>, policy: &Arc<Policy>) {
    READS.with_borrow_mut(|reads| {
        if let Some(reads) = reads {
            reads.recalls.push(Recall { entry: Arc::clone(entry), policy: Arc::clone(policy) });
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

    fn end(self) -> Option<Vec<Recall>> {
        let reads = READS.with_borrow_mut(Option::take)?;
        (!reads.is_spoiled).then_some(reads.recalls)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        READS.set(None);
    }
}

#[cfg(test)]
mod tests;
