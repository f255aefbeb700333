//! The monitor: whether the cache keeps its promise, found out while it works, in the manner of Meta's *Polaris* (2022).
//!
//! A sample of what is read is watched. Once something of it was invalidated, or trust was lost, what each tier of this
//! instance would answer is compared with the database, after 1 s and after 10 s. Only what is still different after the
//! bound, while nothing was heard that would explain it, is a finding; none is expected, ever.
//!
//! It must never change what readers get, and what it costs must not grow with the number of instances: they take turns
//! ([`Link::claim_turn`](super::l2::Link::claim_turn)), and each turn is one query, or two where there is a difference. Without
//! Redis nobody knows of the others' turns.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{
    Cache, Loaded,
    entry::{Entry, Stored},
    envelope::Envelope,
    generation::{Interest, Source},
    key::{Key, Tag},
    l2::{L2Read, Wanted},
    load::BoxError,
    policy::Policy,
    trust::Verdict,
};

/// How long after an invalidation to look.
const DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// The promise: nothing is older than this.
const BOUND: Duration = Duration::from_millis(1500);
/// How long a turn of comparing lasts, of which there is one at a time among all instances. A little less often it is looked
/// whether anything has happened.
const TURN: Duration = Duration::from_millis(250);
/// What could not be compared for so long, since it was the turn of others, is let go of: it says little by then.
const LATE: Duration = Duration::from_secs(2);
/// Reads that are watched, and how long each.
const WATCHED: usize = 64;
const WATCHED_FOR: Duration = Duration::from_secs(60);
/// Reads that are considered until it is looked again whether anything has happened. Each takes a lock from other threads,
/// and is compared with all that are watched.
const CONSIDERED: usize = 4 * WATCHED;

/// What is compared of a value: `None` if there is nothing.
type Compared = Option<Vec<u8>>;

/// Something that can be loaded again.
trait Subject: Send + Sync {
    /// Of an entry of L1, if it is of the right type.
    fn in_l1(&self, entry: &Arc<Entry>) -> Option<Compared>;
    /// Of what L2 has, if it is.
    fn in_l2(&self, payload: Option<&[u8]>) -> Option<Compared>;
    fn load(&self) -> BoxFuture<'_, Result<Compared, BoxError>>;
}

struct Typed<T, F> {
    load: F,
    compared: fn(&T) -> Option<Vec<u8>>,
}

impl<T, F> Subject for Typed<T, F>
where
    T: Stored,
    F: Fn() -> BoxFuture<'static, Result<Loaded<T>, BoxError>> + Send + Sync,
{
    fn in_l1(&self, entry: &Arc<Entry>) -> Option<Compared> {
        match entry.value::<T>()? {
            Some(value) => (self.compared)(&value).map(Some),
            None => Some(None),
        }
    }

    fn in_l2(&self, payload: Option<&[u8]>) -> Option<Compared> {
        match payload {
            Some(payload) => (self.compared)(&T::decode(payload)?).map(Some),
            None => Some(None),
        }
    }

    fn load(&self) -> BoxFuture<'_, Result<Compared, BoxError>> {
        let (loading, compared) = ((self.load)(), self.compared);
        Box::pin(async move {
            match loading.await?.value {
                Some(value) => Ok(Some(compared(&value).ok_or("a value without a form")?)),
                None => Ok(None),
            }
        })
    }
}

/// A read that is watched.
#[derive(Clone)]
struct Sample {
    key: Key,
    tags: Vec<Tag>,
    policy: Arc<Policy>,
    /// What had been heard of its tags.
    interest: Interest,
    since: Instant,
    subject: Arc<dyn Subject>,
}

/// Reads that are watched.
pub(super) struct Samples {
    watched: Mutex<VecDeque<Sample>>,
    /// Reads that may still be considered; none, once there was no room.
    to_consider: AtomicUsize,
}

impl Default for Samples {
    fn default() -> Self {
        Self { watched: Mutex::default(), to_consider: AtomicUsize::new(CONSIDERED) }
    }
}

impl Samples {
    /// Whether one more read is to be considered.
    fn may_consider(&self) -> bool {
        // Two at once may take the same for one: nothing depends on the number.
        let left = self.to_consider.load(Ordering::Relaxed);
        if left > 0 {
            self.to_consider.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }
}

/// Not the same each time, so that it is not always the same instance that comes first when a turn ends.
fn until_next_look() -> Duration {
    TURN.mul_f64(rand::random_range(1.0..1.5))
}

/// A difference between a tier and the database.
struct Difference {
    tier: &'static str,
}

impl Cache {
    /// Watches this read, if there is room. To be told of reads that L1 could not answer.
    pub fn sample<T, F>(
        &self,
        policy: &Arc<Policy>,
        key: Key,
        tags: &[Tag],
        compared: fn(&T) -> Option<Vec<u8>>,
        load: impl FnOnce() -> F,
    ) where
        T: Stored,
        F: Fn() -> BoxFuture<'static, Result<Loaded<T>, BoxError>> + Send + Sync + 'static,
    {
        if policy.options.ends_by_time || !self.keeps_anything() {
            return;
        }
        // Whoever comes when enough have come, or while others are looking, is not needed.
        if !self.samples.may_consider() {
            return;
        }
        let Ok(mut watched) = self.samples.watched.try_lock() else { return };
        while watched.front().is_some_and(|oldest| oldest.since.elapsed() > WATCHED_FOR) {
            watched.pop_front();
        }
        if watched.len() < WATCHED && !watched.iter().any(|sample| sample.key == key) {
            let subject = Typed { load: load(), compared };
            watched.push_back(Sample {
                key,
                tags: tags.to_vec(),
                policy: Arc::clone(policy),
                interest: self.trust.generation().interest(tags),
                since: Instant::now(),
                subject: Arc::new(subject),
            });
        }
        if watched.len() >= WATCHED {
            self.samples.to_consider.store(0, Ordering::Relaxed);
        }
    }

    /// Compares, until stopped.
    pub async fn monitor(self: Arc<Self>, stop: CancellationToken) {
        let mut due: VecDeque<(Instant, Sample)> = VecDeque::new();
        while stop.run_until_cancelled(tokio::time::sleep(until_next_look())).await.is_some() {
            let now = Instant::now();
            due.retain(|(at, _)| now.saturating_duration_since(*at) < LATE);
            for sample in self.take_disturbed() {
                due.extend(DELAYS.map(|delay| (now + delay, sample.clone())));
            }
            due.truncate(4 * WATCHED);
            // Of more than there are turns for, what has just fallen due: all that is older would be late.
            let fallen_due = due.iter().enumerate().filter(|(_, (at, _))| *at <= now);
            let Some((index, _)) = fallen_due.max_by_key(|(_, (at, _))| *at) else { continue };
            if !self.is_its_turn().await {
                continue;
            }
            let Some((_, sample)) = due.remove(index) else { continue };
            let (cache, stop) = (Arc::clone(&self), stop.clone());
            self.main.spawn(async move { stop.run_until_cancelled(cache.compare(&sample)).await });
        }
    }

    /// Whether no other instance compares at present.
    async fn is_its_turn(&self) -> bool {
        match &self.trust.generation().source {
            Source::Shared(link) => {
                let claimed = link.claim_turn(TURN).await;
                claimed.unwrap_or_else(|err| {
                    log::debug!("error.chain":% = crate::telemetry::Chain(&err); "nothing is compared");
                    false
                })
            }
            Source::Local | Source::Journal | Source::Untrusted => true,
        }
    }

    /// Those of which something was invalidated, or which trust was lost in.
    fn take_disturbed(&self) -> Vec<Sample> {
        let generation = self.trust.generation();
        let mut watched = self.samples.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let (disturbed, quiet) = std::mem::take(&mut *watched).into_iter().partition(|sample| {
            let held = self.l1.as_ref().and_then(|l1| l1.get(&sample.key));
            let outdated = held.and_then(|entry| Some(!self.trust.is_current(entry.stamp.as_ref()?)));
            outdated == Some(true) || !sample.interest.still_serves(&generation.interest(&sample.tags))
        });
        *watched = quiet;
        // Also if none has gone: those that are left may have been watched for long enough.
        self.samples.to_consider.store(CONSIDERED, Ordering::Relaxed);
        disturbed.into()
    }

    async fn compare(&self, sample: &Sample) {
        let kind = sample.policy.kind;
        let result = match self.differences(sample).await {
            Ok(differences) if differences.is_empty() => "consistent",
            Err(reason) => reason,
            Ok(_) => {
                // Perhaps the database was changed a moment ago. Then it will have been heard of by the end of the bound.
                tokio::time::sleep(BOUND).await;
                match self.differences(sample).await {
                    Ok(differences) if differences.is_empty() => "consistent",
                    Err(reason) => reason,
                    Ok(differences) => {
                        for Difference { tier } in differences {
                            self.stats.inconsistent.with_label_values(&[tier, kind]).inc();
                            self.report_finding(sample, tier).await;
                        }
                        "inconsistent"
                    }
                }
            }
        };
        self.stats.comparisons.with_label_values(&[kind, result]).inc();
    }

    /// The tiers that answer otherwise than the database.
    ///
    /// # Errors
    /// Why that cannot be said: `absent`, no tier has anything; `undecided`, something was heard meanwhile, or the database
    /// is away.
    async fn differences(&self, sample: &Sample) -> Result<Vec<Difference>, &'static str> {
        let generation = self.trust.generation();
        let interest = generation.interest(&sample.tags);
        let held = self.held_in_l1(sample);
        let (l2, learned) = self.held_in_l2(sample).await;
        if held.is_none() && l2.is_none() {
            return Err("absent");
        }
        let interest_in_learned = generation.interest(&learned);
        let loading = tokio::time::timeout(sample.policy.options.hard, sample.subject.load());
        let Ok(Ok(in_source)) = loading.await else { return Err("undecided") };

        let now = self.trust.generation();
        let l1_moved = held
            .as_ref()
            .and_then(|entry| entry.stamp.as_ref())
            .is_some_and(|stamp| !self.trust.is_current(stamp));
        let moved = l1_moved
            || !interest.still_serves(&now.interest(&sample.tags))
            || !interest_in_learned.still_serves(&now.interest(&learned));
        if moved {
            return Err("undecided");
        }
        let l1 = held.and_then(|entry| sample.subject.in_l1(&entry));
        let answers = [("l1", l1), ("l2", l2)];
        let differing =
            answers.into_iter().filter(|(_, answer)| answer.as_ref().is_some_and(|it| *it != in_source));
        Ok(differing.map(|(tier, _)| Difference { tier }).collect())
    }

    /// What L1 would answer with.
    fn held_in_l1(&self, sample: &Sample) -> Option<Arc<Entry>> {
        let entry = self.l1.as_ref()?.get(&sample.key)?;
        let fresh = self.trust.judge(entry.stamp.as_ref()?) == Verdict::Fresh;
        (fresh && !entry.times.is_prolonged() && !entry.times.is_over(Instant::now())).then_some(entry)
    }

    /// What L2 would answer, and its tags.
    async fn held_in_l2(&self, sample: &Sample) -> (Option<Compared>, Vec<Tag>) {
        let generation = self.trust.generation();
        let Source::Shared(link) = &generation.source else { return (None, Vec::new()) };
        if !self.uses_l2 {
            return (None, Vec::new());
        }
        let wanted = Wanted::new(&sample.key, &sample.tags, &sample.policy);
        match link.read(&wanted, None).await {
            Ok(L2Read::Hit { envelope, .. }) => match Envelope::read(&envelope) {
                Some(envelope) => (sample.subject.in_l2(envelope.payload.as_deref()), envelope.tags),
                None => (None, Vec::new()),
            },
            _ => (None, Vec::new()),
        }
    }

    /// Everything that is known of the entry.
    async fn report_finding(&self, sample: &Sample, tier: &str) {
        let held = self.l1.as_ref().and_then(|l1| l1.get(&sample.key));
        let l1_age = held.map(|entry| format!("{:?}", entry.times.age(Instant::now())));
        let generation = self.trust.generation();
        let explanation = self.explain(&sample.key.to_string()).await;
        log::error!("cache.key":% = sample.key, tier = tier, "cache.epoch":% = format_args!("{:016x}", generation.epoch),
            sequence = generation.applied(), generation = generation.number(), l1_age:? = l1_age,
            history:? = explanation; "the cache answers otherwise than the database");
    }
}
