//! The read path: L1, what this share of the cache reads already, or a reading of one's own: L2 ([`super::load`]), and a load
//! that the process has under way or begins ([`super::join`]).

use std::{sync::Arc, time::Instant};

use tokio_util::task::AbortOnDropHandle;

use super::{
    Cache, LoadError,
    entry::{Entry, Stored, Value},
    flight::{Boarding, HashedKey, InPlace, Landing, landed},
    generation::{Generation, Required},
    key::{Key, Tag},
    load::{BoxError, Trip, timed},
    policy::Policy,
    present::Present,
    recording,
    status::{Status, TierStatus},
    token::Token,
    trust::Verdict,
};
use crate::telemetry::in_this_request;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The entry.
    pub key: Key,
    /// A write that the answer must not be older than.
    pub token: Option<&'a Token>,
}

/// What a loader brings.
#[derive(Debug)]
pub struct Loaded<T> {
    /// `None`: there is no such thing, which is kept as well.
    pub value: Option<T>,
    /// Tags that were not known before loading.
    pub tags: Vec<Tag>,
}

/// The answer.
#[derive(Debug)]
pub struct Read<T> {
    /// `None`: there is no such thing.
    pub value: Option<Value<T>>,
    /// How it was had.
    pub status: Status,
}

/// What came of asking memory, and those who read at present.
pub enum Recalled<T> {
    /// The answer, or why there is none.
    Answered(Result<Read<T>, LoadError>),
    /// It has to be [read](Cache::read_on).
    Unanswered(Unanswered),
}

/// What was seen of an entry that was no use.
pub struct Unanswered(Option<Missed>);

/// An entry that L1 did not have.
struct Missed {
    l1: TierStatus,
    key: HashedKey,
    /// In which it was seen a moment ago that nobody reads it.
    unread_in: Option<Arc<Present>>,
}

/// What L1 has.
pub(super) struct Held<T> {
    pub(super) read: Read<T>,
    pub(super) entry: Arc<Entry>,
    /// It is time to renew the entry, and nobody does yet.
    is_to_be_renewed: bool,
}

impl<T> Loaded<T> {
    /// With each tag once: a page shows the same person many times.
    pub(super) fn with_distinct_tags(mut self) -> Self {
        self.tags.sort_unstable();
        self.tags.dedup();
        self
    }
}

impl Cache {
    /// Reads through both tiers. `tags` are those that are known before loading; they and `load` are asked for
    /// only on a miss. The load runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// When the load fails. Errors are never cached.
    pub async fn read<T, F, L>(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        question: Question<'_>,
        tags: impl Fn() -> Vec<Tag>,
        load: F,
    ) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        // Only a token needs the generation, which is shared by counting.
        let required = match question.token {
            None => Required::Nothing,
            token => required_by(&self.present(), policy, token),
        };
        let l1 = match self.look_in_l1(policy, &question.key, required) {
            Ok(Held { read, entry, is_to_be_renewed }) => {
                policy.stats.count(&read.status);
                if is_to_be_renewed && entry.claim_refresh() {
                    self.renew(policy, question.key, tags(), load);
                }
                return Ok(read);
            }
            Err(status) => status,
        };
        let read = if self.keeps_anything() {
            let missed = Missed { l1, key: self.flights.hashed(question.key), unread_in: None };
            self.read_through(policy, question.token, missed, tags, load).await
        } else {
            self.load_only(policy, load).await
        }?;
        policy.stats.count(&read.status);
        Ok(read)
    }

    /// The same for what [`recall_or_join`](Self::recall_or_join) could not answer: what that has seen is not looked at
    /// again.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub async fn read_on<T, F, L>(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        question: &Question<'_>,
        unanswered: Unanswered,
        tags: impl Fn() -> Vec<Tag>,
        load: F,
    ) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        match unanswered {
            Unanswered(Some(missed)) => {
                let read = self.read_through(policy, question.token, missed, tags, load).await?;
                policy.stats.count(&read.status);
                Ok(read)
            }
            // Seldom, and apart: it would make every read larger.
            Unanswered(None) => Box::pin(self.read(policy, *question, tags, load)).await,
        }
    }

    /// What this process holds and may use, at once. `None`: it has to be read, or to be renewed.
    pub fn recall<T: Stored>(&self, policy: &Arc<Policy>, question: Question<'_>) -> Option<Read<T>> {
        self.look_at_once(policy, &question).ok()
    }

    /// The same, or what is to be said of L1 if it was no use.
    fn look_at_once<T: Stored>(
        &self,
        policy: &Arc<Policy>,
        question: &Question<'_>,
    ) -> Result<Read<T>, Option<TierStatus>> {
        // A token may need more than is known here.
        let required = if question.token.is_none() { Required::Nothing } else { Required::Load };
        let held = self.look_in_l1(policy, &question.key, required).map_err(Some)?;
        if held.is_to_be_renewed {
            return Err(None);
        }
        policy.stats.count(&held.read.status);
        Ok(held.read)
    }

    /// What this process holds, or is about to: somebody reads it at present, and will say what he has found. Otherwise it
    /// has to be read, or to be renewed.
    pub async fn recall_or_join<T: Stored>(
        &self,
        policy: &Arc<Policy>,
        question: &Question<'_>,
    ) -> Recalled<T> {
        let l1 = match self.look_at_once(policy, question) {
            Ok(read) => return Recalled::Answered(Ok(read)),
            // What a token needs is found out by a read; and without a tier nothing is shared.
            Err(Some(l1)) if question.token.is_none() && self.keeps_anything() => l1,
            Err(_) => return Recalled::Unanswered(Unanswered(None)),
        };
        let flight = {
            let (key, generation) = (self.flights.hashed(question.key), self.present());
            let flight = self.flights.join(&key, &generation, Required::Nothing, &self.trust);
            let Some(flight) = flight else {
                let missed = Missed { l1, key, unread_in: Some(generation) };
                return Recalled::Unanswered(Unanswered(Some(missed)));
            };
            flight
        };
        let landing = landed(flight.end).await;
        match landing.and_then(|it| self.for_who_joined(it, Required::Nothing, 0)) {
            Some(landing) => {
                let read = collapsed(landing, l1);
                Recalled::Answered(read.inspect(|read| policy.stats.count(&read.status)))
            }
            // Whom it does not serve reads for himself, and may have to wait for one more.
            None => Recalled::Unanswered(Unanswered(None)),
        }
    }

    /// What L1 has.
    pub(super) fn look_in_l1<T: Stored>(
        &self,
        policy: &Arc<Policy>,
        key: &Key,
        required: Required,
    ) -> Result<Held<T>, TierStatus> {
        let held = self.find_in_l1(key, required);
        match &held {
            Ok(held) => recording::note(key, &held.entry, policy),
            Err(_) => recording::spoil(),
        }
        held
    }

    pub(super) fn find_in_l1<T: Stored>(&self, key: &Key, required: Required) -> Result<Held<T>, TierStatus> {
        let Some(l1) = &self.l1 else { return Err(TierStatus::Unused) };
        if required != Required::Nothing {
            return Err(TierStatus::Request);
        }
        let Some(entry) = l1.get(key) else {
            return Err(if self.trust.has_lease() { TierStatus::Miss } else { TierStatus::NoLease });
        };
        let now = Instant::now();
        let read = self.judge(&entry, now)?;
        let is_to_be_renewed = entry.is_to_be_renewed(now);
        Ok(Held { read, entry, is_to_be_renewed })
    }

    /// What an entry of L1 is worth.
    fn judge<T: Stored>(&self, entry: &Arc<Entry>, now: Instant) -> Result<Read<T>, TierStatus> {
        let verdict = entry.stamp.as_ref().map_or(Verdict::Outdated, |stamp| self.trust.judge_at(stamp, now));
        match (verdict, entry.value()) {
            (Verdict::Fresh, Some(value)) if !entry.times.is_over(now) => {
                Ok(Read { value, status: Status::new(entry.times.status(now)) })
            }
            (Verdict::Fresh, _) => Err(TierStatus::Miss),
            (Verdict::NoLease, _) => Err(TierStatus::NoLease),
            (Verdict::Outdated, _) => Err(TierStatus::Stale),
        }
    }

    /// Renews an entry behind the readers that it still serves: from L2 if another instance has done so, else by a load,
    /// of which there is one among all instances.
    fn renew<T, F, L>(self: &Arc<Self>, policy: &Arc<Policy>, key: Key, tags: Vec<Tag>, load: F)
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let generation = self.present();
        let interest = generation.interest(&tags);
        let boarding = self.flights.board(
            self.flights.hashed(key),
            &generation,
            &interest,
            Required::Nothing,
            &self.trust,
        );
        if let Boarding::Lead(leader) = boarding {
            policy.stats.refreshed_l1.inc();
            let trip = self.trip(policy, (key, tags), Required::Nothing, generation, TierStatus::Miss);
            self.main.spawn(in_this_request(trip.fly(leader, interest, load)));
        }
    }

    /// On the main runtime, where connections live: a load of several statements wakes this thread once.
    async fn load_only<T, F, L>(&self, policy: &Arc<Policy>, load: F) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let (policy, load) = (Arc::clone(policy), load());
        let loading = self.main.spawn(in_this_request(async move { timed(&policy, load).await }));
        // Nobody else waits for it.
        let loaded = AbortOnDropHandle::new(loading).await.map_err(|_panicked| LoadError::Panicked)??;
        Ok(Read { value: loaded.value.map(Value::from), status: Status::new(TierStatus::Unused) })
    }

    async fn read_through<T, F, L>(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        token: Option<&Token>,
        missed: Missed,
        tags: impl Fn() -> Vec<Tag>,
        load: F,
    ) -> Result<Read<T>, LoadError>
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let Missed { l1, ref key, mut unread_in } = missed;
        for attempt in 0.. {
            let is_unread = unread_in.is_some();
            let generation = unread_in.take().unwrap_or_else(|| self.present());
            let required = required_by(&generation, policy, token);
            let joined =
                if is_unread { None } else { self.flights.join(key, &generation, required, &self.trust) };
            let flight = match joined {
                Some(flight) => flight,
                None => {
                    let tags = tags();
                    let interest = generation.interest(&tags);
                    match self.flights.board(*key, &generation, &interest, required, &self.trust) {
                        Boarding::Join(flight) => flight,
                        Boarding::Lead(leader) => {
                            // Whoever was loading it may have landed since this reader looked.
                            if let Ok(held) = self.look_in_l1(policy, &key.key(), required) {
                                return Ok(held.read);
                            }
                            let passenger = leader.passenger();
                            let named = (key.key(), tags);
                            let trip = self.trip(policy, named, required, generation, l1);
                            InPlace::new(trip.fly(leader, interest, load), self).await;
                            let (entry, status) = landed(passenger).await.ok_or(LoadError::Panicked)??;
                            return Ok(Read { value: entry.value().ok_or(LoadError::Panicked)?, status });
                        }
                    }
                }
            };
            let landing = landed(flight.end).await;
            if let Some(landing) = landing.and_then(|it| self.for_who_joined(it, required, attempt)) {
                return collapsed(landing, l1);
            }
        }
        Err(LoadError::Panicked)
    }

    /// What a load is worth to a reader who has joined it: nothing, if it may be older than what he must see. One that he
    /// joins at his second attempt began after he came.
    pub(super) fn for_who_joined(
        &self,
        landing: Landing,
        required: Required,
        attempt: usize,
    ) -> Option<Landing> {
        let serves = match &landing {
            // Judged by what was heard here, which may not be all that this reader must see.
            Ok((_, status)) if required != Required::Nothing && status.is_fail_safe() => false,
            _ if attempt > 0 => true,
            Ok((entry, _)) => {
                let current = entry.stamp.as_ref().is_some_and(|stamp| self.trust.is_current(stamp));
                required == Required::Nothing && current
            }
            Err(_) => required == Required::Nothing,
        };
        serves.then_some(landing)
    }

    /// A load that is about to begin, for whoever found this in L1.
    pub(super) fn trip(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        (key, tags): (Key, Vec<Tag>),
        required: Required,
        generation: Arc<Present>,
        l1: TierStatus,
    ) -> Trip {
        let (cache, policy, status) = (Arc::clone(self), Arc::clone(policy), Status::new(l1));
        Trip { cache, policy, key, tags, required, generation, status, joined: 0 }
    }
}

/// What a reader is given by the load of another, whom he has joined.
fn collapsed<T: Stored>(landing: Landing, l1: TierStatus) -> Result<Read<T>, LoadError> {
    let (entry, status) = landing?;
    Ok(Read { value: entry.value().ok_or(LoadError::Panicked)?, status: status.of_who_joined(l1) })
}

pub(super) fn required_by(generation: &Generation, policy: &Policy, token: Option<&Token>) -> Required {
    match token {
        None => Required::Nothing,
        Some(_) if policy.options.ends_by_time => Required::Load,
        Some(token) => generation.required_by(token),
    }
}
