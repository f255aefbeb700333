//! One load: L2, PostgreSQL, and the filling of both tiers.
//!
//! Order matters and is kept here: interest in the tags is taken first, then the sequence is read, then the load
//! begins, and what it brings is stamped with that sequence. See [`super::generation`] for why. Whoever waits is given
//! an answer as soon as there is one; a load that has begun goes on behind it, with the stamp that it began with.

use std::{
    error::Error,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Cache, LoadError, Loaded,
    entry::{Entry, Stored},
    flight::{Landing, Leader, Leaders},
    generation::{Interest, Required, Source},
    key::{Key, Tag},
    l2::{L2Read, Left, Link, LinkError, Lock, LockOwner, Wanted},
    policy::Policy,
    present::Present,
    status::{Status, TierStatus},
    trust::Verdict,
};
use crate::{sharded::Share, telemetry::in_this_request};

/// How long something else is served before it is tried to load again.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// How long to leave a load to another instance; its lock lasts no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// First pause before looking again for what another instance loads; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// One flight: everything its leader needs.
pub(super) struct Trip {
    pub(super) cache: Arc<Cache>,
    pub(super) policy: Arc<Policy>,
    pub(super) key: Key,
    pub(super) tags: Vec<Tag>,
    pub(super) required: Required,
    pub(super) generation: Arc<Present>,
    pub(super) status: Status,
    /// Loads of other threads that were waited for and were no use.
    pub(super) joined: usize,
}

/// What is known before a load begins.
pub(super) struct Plan {
    pub(super) interest: Interest,
    /// The sequence as of which the load begins.
    pub(super) as_of: u64,
    /// Where L2 is filled, if it can be.
    pub(super) link: Option<Share<Link>>,
    /// What could serve instead, though its time is up.
    pub(super) instead: Option<Arc<Entry>>,
}

impl Plan {
    /// Where L2 is not there, or has failed.
    pub(super) const fn without_l2(interest: Interest, as_of: u64) -> Self {
        Self { interest, as_of, link: None, instead: None }
    }
}

/// What came of looking into L2.
enum Looked {
    /// An entry, which is perhaps to be renewed.
    Found(Arc<Entry>, Option<Plan>),
    /// Another thread has loaded it meanwhile.
    Joined(Landing),
    Load(Plan),
}

/// What L2 left to do.
pub(super) enum AfterL2 {
    /// It had the value, which is perhaps to be renewed.
    Found(Arc<Entry>, Option<Plan>),
    Load(Plan),
    /// Another instance loads it.
    Wait,
}

impl Trip {
    /// L2, and if that has nothing, a load behind whoever waits, on the main runtime: a busy Actix worker does not hold it
    /// up.
    pub(super) async fn fly<T, F, L>(mut self, leader: Leader, interest: Interest, load: F)
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let owner = self.cache.lock_owner();
        match self.look_in_l2::<T>(&leader, interest, owner).await {
            Looked::Found(entry, renewal) => {
                leader.land(Ok((self.keep(entry), self.status)));
                if let Some(plan) = renewal {
                    self.policy.stats.refreshed_l2.inc();
                    self.begin_load(plan, owner, load, None);
                }
            }
            Looked::Joined(landing) => leader.land(landing),
            // Apart, so that a look that finds something is not made with room for what only a load needs.
            Looked::Load(plan) => Box::pin(self.load_or_join(plan, owner, load, leader)).await,
        }
    }

    pub(super) fn begin_load<T, F, L>(self, plan: Plan, owner: LockOwner, load: F, waiting: Option<Leaders>)
    where
        T: Stored,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Loaded<T>, BoxError>> + Send + 'static,
    {
        let main = self.cache.main.clone();
        main.spawn(in_this_request(async move { self.load_and_fill(plan, owner, load(), waiting).await }));
    }

    /// Loads, fills both tiers, and tells those who wait, if there are any.
    async fn load_and_fill<T, L>(
        mut self,
        plan: Plan,
        owner: LockOwner,
        load: L,
        mut waiting: Option<Leaders>,
    ) where
        T: Stored,
        L: Future<Output = Result<Loaded<T>, BoxError>>,
    {
        let Plan { interest, as_of, link, instead } = plan;
        let instead = waiting.as_ref().and_then(|_| instead.or_else(|| self.held_here()));
        let policy = Arc::clone(&self.policy);
        let mut loading = pin!(timed(&policy, load));
        let outcome = match &instead {
            None => loading.await,
            Some(instead) => match tokio::time::timeout(policy.options.soft, &mut loading).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => {
                    // Kept until the load has ended, so that meanwhile nobody begins another.
                    let until = Instant::now() + policy.options.hard.saturating_sub(policy.options.soft);
                    if let Some(landing) = self.fall_back(instead, until) {
                        policy.stats.soft_timeouts.inc();
                        land(&mut waiting, Ok(landing));
                    }
                    loading.await
                }
            },
        };
        match outcome {
            Ok(loaded) => {
                let loaded = loaded.with_distinct_tags();
                let l2_life = policy.l2_life(loaded.value.is_none());
                if let Some(link) = &link {
                    self.fill_l2(link, &loaded, as_of, l2_life, owner).await;
                }
                let stamp = self.generation.stamp(&interest, loaded.tags.iter().map(Tag::as_str), as_of);
                let entry = self.entry(loaded.value, stamp, l2_life);
                let entry = self.keep(entry);
                land(&mut waiting, Ok((entry, self.status)));
            }
            Err(err) => {
                if let Some(link) = link {
                    // At worst others wait until the lock's time is up.
                    let _ = link.unlock(&self.key, owner).await;
                }
                let landing = self.failed(err, instead.as_ref());
                land(&mut waiting, landing);
            }
        }
    }

    /// An entry of L2, which is perhaps to be renewed, or what is to be loaded.
    async fn look_in_l2<T: Stored>(
        &mut self,
        leader: &Leader,
        interest: Interest,
        owner: LockOwner,
    ) -> Looked {
        // Every invalidation up to here was applied before the interest was taken or is remembered by it.
        let as_of = self.generation.applied();
        let Some(link) = self.l2() else {
            return Looked::Load(Plan::without_l2(interest, as_of));
        };
        let mut asks_for_lock = (self.required != Required::Load).then_some(owner);
        let mut patience_ends = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = link.read(&self.wanted(), asks_for_lock).await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(err) => {
                    self.l2_failed(&err);
                    return Looked::Load(Plan::without_l2(interest, as_of));
                }
            };
            match self.interpret::<T>(&link, &interest, answer) {
                AfterL2::Wait => {
                    let now = Instant::now();
                    if now < *patience_ends.get_or_insert(now + PATIENCE) {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    } else {
                        // Once more, for what there is instead.
                        asks_for_lock = None;
                    }
                    // By now it is known whether it is a thread of this process that loads it.
                    if let Some(landing) = self.join_other_thread(leader).await {
                        return Looked::Joined(landing);
                    }
                }
                AfterL2::Found(entry, renewal) => return Looked::Found(entry, renewal),
                AfterL2::Load(plan) => return Looked::Load(plan),
            }
        }
    }

    pub(super) fn l2_failed(&mut self, err: &LinkError) {
        log::warn!("cache.key":% = self.key, "error.chain":% = crate::telemetry::Chain(err);
            "L2 read failed; loading from PostgreSQL");
        self.status.l2 = TierStatus::Unavailable;
    }

    /// The link to L2, if that can be used.
    pub(super) fn l2(&mut self) -> Option<Share<Link>> {
        match &self.generation.source {
            _ if !self.cache.uses_l2 => None,
            Source::Shared(_) => self.generation.link(),
            Source::Local => None,
            Source::Journal | Source::Untrusted => {
                self.status.l2 = TierStatus::Unavailable;
                None
            }
        }
    }

    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted::new(&self.key, &self.tags, &self.policy)
    }

    /// What an answer of L2 means for this load.
    pub(super) fn interpret<T: Stored>(
        &mut self,
        link: &Share<Link>,
        interest: &Interest,
        answer: L2Read,
    ) -> AfterL2 {
        let plan = |as_of, instead: Option<Arc<Entry>>| Plan {
            interest: interest.clone(),
            as_of,
            link: Some(link.clone()),
            instead,
        };
        match answer {
            L2Read::Hit { sequence, .. } if self.required == Required::Load => {
                self.status.l2 = TierStatus::Request;
                AfterL2::Load(plan(sequence, None))
            }
            L2Read::Hit { sequence, ttl, envelope, lock } => {
                self.status.l2 = TierStatus::Hit(ttl);
                match self.decode::<T>(interest, sequence, ttl, &envelope) {
                    Some(entry) => {
                        let renewal = (lock == Lock::Acquired).then(|| plan(sequence, None));
                        AfterL2::Found(entry, renewal)
                    }
                    None => {
                        self.policy.stats.undecodable.inc();
                        self.status.l2 = TierStatus::Miss;
                        AfterL2::Load(plan(sequence, None))
                    }
                }
            }
            L2Read::Miss { lock: Lock::HeldByAnother, left, .. } => {
                self.missed(&left);
                AfterL2::Wait
            }
            L2Read::Miss { sequence, left, .. } => {
                self.missed(&left);
                let instead = match left {
                    Left::Expired { envelope, kept } if self.required != Required::Load => {
                        self.decode_expired::<T>(interest, sequence, kept, &envelope)
                    }
                    _ => None,
                };
                AfterL2::Load(plan(sequence, instead))
            }
        }
    }

    fn missed(&mut self, left: &Left) {
        let stale = matches!(left, Left::Stale);
        self.status.l2 = if stale { TierStatus::Stale } else { TierStatus::Miss };
    }

    /// What this process holds itself, for want of anything newer.
    pub(super) fn held_here(&self) -> Option<Arc<Entry>> {
        self.cache.l1.as_ref().filter(|_| self.required == Required::Nothing)?.get(&self.key)
    }

    /// Serves what there is, and until then does not try again. Never what was invalidated meanwhile, or what nothing
    /// vouches for.
    pub(super) fn fall_back(&mut self, instead: &Arc<Entry>, until: Instant) -> Option<(Arc<Entry>, Status)> {
        let fresh =
            instead.stamp.as_ref().is_some_and(|stamp| self.cache.trust.judge(stamp) == Verdict::Fresh);
        let now = Instant::now();
        if !fresh || !instead.times.is_usable(now) || self.policy.options.fail_safe.is_zero() {
            return None;
        }
        // One that is renewed ahead of its end may serve as long as it is.
        let entry = if instead.times.outlast(until) {
            Arc::clone(instead)
        } else {
            self.keep(instead.prolonged(until))
        };
        let tier = entry.times.status(now);
        if self.status.l2 == TierStatus::Unused {
            self.status.l1 = tier;
        } else {
            self.status.l2 = tier;
        }
        Some((entry, self.status))
    }

    /// What becomes of a load that has failed: what there is instead, if the source is away, for a moment.
    pub(super) fn failed(&mut self, err: LoadError, instead: Option<&Arc<Entry>>) -> Landing {
        let instead = instead.filter(|_| err.is_source_away());
        instead.and_then(|instead| self.fall_back(instead, Instant::now() + RETRY)).ok_or(err)
    }
}

fn land(waiting: &mut Option<Leaders>, landing: Landing) {
    if let Some(leaders) = waiting.take() {
        leaders.land(landing);
    }
}

/// Runs a load for no longer than it may take, and counts it.
pub(super) async fn timed<T>(
    policy: &Policy,
    load: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, LoadError> {
    let started = Instant::now();
    let outcome = match tokio::time::timeout(policy.options.hard, load).await {
        Ok(Ok(loaded)) => Ok(loaded),
        Ok(Err(err)) => Err(LoadError::Failed(err.into())),
        Err(_elapsed) => Err(LoadError::TimedOut(policy.options.hard)),
    };
    match &outcome {
        Ok(_) => policy.stats.loaded.inc(),
        Err(_) => policy.stats.load_failed.inc(),
    }
    policy.stats.load_seconds.observe(started.elapsed().as_secs_f64());
    outcome
}
