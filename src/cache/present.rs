//! The present generation, as one share of the cache holds it: see [`Cache::share`].

use std::{
    ops::Deref,
    sync::{Arc, Mutex, Weak},
};

use super::{
    Cache,
    generation::{Generation, Source},
    l2::Link,
};
use crate::sharded::{Share, lock};

/// A generation, of which reads take as much as they like: how many have it is counted for each share by itself.
pub(super) struct Present {
    generation: Arc<Generation>,
    /// Of a shared one.
    link: Option<Share<Link>>,
}

impl Deref for Present {
    type Target = Generation;

    fn deref(&self) -> &Generation {
        &self.generation
    }
}

impl Present {
    fn new(generation: Arc<Generation>) -> Self {
        let link = match &generation.source {
            Source::Shared(link) => Some(Share::new(Arc::clone(link))),
            Source::Local | Source::Journal | Source::Untrusted => None,
        };
        Self { generation, link }
    }

    /// The way to L2.
    pub(super) fn link(&self) -> Option<Share<Link>> {
        self.link.clone()
    }
}

/// What the last reads of a share were given, for as long as one of them is under way: a generation that is over, and its
/// connection, is not held by who reads nothing.
#[derive(Default)]
pub(super) struct Latest(Mutex<Weak<Present>>);

impl Cache {
    /// The present generation.
    pub(super) fn present(&self) -> Arc<Present> {
        let mut latest = lock(&self.latest.0);
        let known = latest.upgrade().filter(|known| self.trust.is_present(&known.generation));
        known.unwrap_or_else(|| {
            let present = Arc::new(Present::new(self.trust.generation()));
            *latest = Arc::downgrade(&present);
            present
        })
    }
}
