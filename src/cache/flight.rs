//! Single flight: one load per key at a time in this process.
//!
//! **Invariant.** A reader never receives a value from a load that began before an invalidation that this process
//! had heard of when the reader came. Two checks see to it: a reader joins only a flight of the same generation
//! for whose tags nothing was heard since, and what the first flight brings is judged again on arrival (the reader
//! does this), because it may have tags that were not known before. A flight that is joined after that began
//! after the reader came, so that whatever it brings is new enough, and a storm of invalidations causes no more loads
//! than one after the other.
//!
//! A flight does not depend on anybody: a reader that goes away stops nothing (see [`InPlace`]), and a load that panics
//! ends its flight, which wakes those who wait.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::{runtime::Handle, sync::SetOnce};

use super::{
    LoadError,
    entry::Entry,
    generation::{Interest, Required},
    key::Key,
    status::Status,
    trust::LEASE,
};
use crate::{
    sharded::{RandomState, Sharded},
    telemetry::in_this_request,
};

/// What a load brought.
pub(super) type Landing = Result<(Arc<Entry>, Status), LoadError>;

/// A flight's end, once it has come. `None`: it ended without a landing.
pub(super) type End = Arc<SetOnce<Option<Landing>>>;

/// The flights under way, by key.
#[derive(Default)]
pub(super) struct Flights {
    shards: Sharded<HashMap<Key, Flight, RandomState>>,
}

struct Flight {
    interest: Interest,
    depth: Required,
    began: Instant,
    end: End,
}

/// What a reader is to do.
pub(super) enum Boarding {
    /// Load, and tell the others.
    Lead(Leader),
    /// Wait for the load that is under way.
    Join(End),
}

/// The right and the duty to load. When dropped, with or without a landing, the flight is over.
pub(super) struct Leader {
    flights: Arc<Flights>,
    key: Key,
    end: End,
}

impl Flights {
    /// Joins the flight for `key` if there is one that serves, else begins one. A flight serves if nothing was heard of
    /// the tags since it began, if it reaches as deep as is `required`, and, where hearing cannot be relied on
    /// (`must_be_young`), if it began within the time of a lease.
    pub(super) fn board(
        self: &Arc<Self>,
        key: Key,
        interest: &Interest,
        required: Required,
        must_be_young: bool,
    ) -> Boarding {
        let mut flights = self.shards.of(&key);
        if let Some(flight) = flights.get(&key)
            && flight.interest.still_serves(interest)
            && flight.depth >= required
            && (!must_be_young || flight.began.elapsed() < LEASE)
        {
            return Boarding::Join(Arc::clone(&flight.end));
        }
        let end = End::default();
        let (interest, began) = (interest.clone(), Instant::now());
        flights.insert(key, Flight { interest, depth: required, began, end: Arc::clone(&end) });
        Boarding::Lead(Leader { flights: Arc::clone(self), key, end })
    }
}

impl Leader {
    /// For the reader on whose behalf the flight was begun.
    pub(super) fn passenger(&self) -> End {
        Arc::clone(&self.end)
    }

    /// Ends the flight with its result. By then the tiers have it, so that whoever comes next needs no flight.
    pub(super) fn land(self, landing: Landing) {
        self.leave();
        // Nobody else sets it before the leader is dropped, which comes now.
        let _ = self.end.set(Some(landing));
    }

    /// From now on nobody joins it.
    pub(super) fn leave(&self) {
        let mut flights = self.flights.shards.of(&self.key);
        // A newer flight may have taken the place.
        if flights.get(&self.key).is_some_and(|flight| Arc::ptr_eq(&flight.end, &self.end)) {
            flights.remove(&self.key);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.end.initialized() {
            self.leave();
            let _ = self.end.set(None);
        }
    }
}

/// What a reader does for all who wait, in his own task, so that no other thread has to be woken for it. If he goes away
/// before its end, it goes on on the main runtime.
pub(super) struct InPlace<F: Future<Output = ()> + Send + 'static> {
    work: Option<Pin<Box<F>>>,
    main: Handle,
}

impl<F: Future<Output = ()> + Send + 'static> InPlace<F> {
    pub(super) fn new(work: F, main: &Handle) -> Self {
        Self { work: Some(Box::pin(work)), main: main.clone() }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Future for InPlace<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // Taken out meanwhile: work that has panicked does not go on.
        if let Some(mut work) = self.work.take()
            && work.as_mut().poll(context).is_pending()
        {
            self.work = Some(work);
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl<F: Future<Output = ()> + Send + 'static> Drop for InPlace<F> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.main.spawn(in_this_request(work));
        }
    }
}

/// Waits for a flight's end. `None`: it ended without a landing.
pub(super) async fn landed(flight: End) -> Option<Landing> {
    flight.wait().await.clone()
}
