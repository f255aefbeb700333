//! Charging requests of one kind of subject: users, accounts or addresses.
//!
//! Most requests need no round trip to Redis:
//! * whoever is over a limit is refused here until the time is up (**denial**);
//! * requests of one subject that come while a call for it is under way go together in the next one (**queue**);
//! * whoever asks in bursts gets some requests ahead, for a second, and what is not used is given back (**lease**). A
//!   leased request is stamped with the end of its lease, so it is never older than its stamp, and no window ever holds more
//!   uses than stamps.
//!
//! **Invariants.** A lock is held for the state of one subject and never over I/O. A refund is sent once, after the lease
//! was closed. What was granted here is also written to a log of this process, which decides while Redis is away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::oneshot};

use super::{
    numbers::{Decisions, Numbers, Source},
    pending::Pending,
    policy::{Log, Plan, Quota, Verdict},
    shared::{Reply, Shared},
    subject::{Denied, LEASE, Lease, State, Subject},
    subjects::Subjects,
};
use crate::telemetry::Chain;

/// Subjects are forgotten this long after their longest window.
const IDLE: Duration = Duration::from_secs(60);

/// What one kind of subject is limited by.
pub(super) struct Rules {
    /// Stands before subjects in Redis.
    pub kind: &'static str,
    /// What a subject is called in Redis, behind the kind.
    pub name: fn(u128) -> String,
    pub logs: Vec<Log>,
    pub plans: Vec<Plan>,
    /// Whether requests of the first plan may be granted ahead, and refusals be remembered. Where single charges are taken
    /// back, neither may be.
    pub is_remembered: bool,
}

impl Rules {
    /// One log, to which everything is charged.
    pub(super) fn simple(kind: &'static str, log: Log) -> Self {
        let logs = vec![log];
        let plans = vec![Plan::new(&logs, &[0])];
        Self { kind, name: |digest| format!("{digest:032x}"), logs, plans, is_remembered: false }
    }
}

/// Limits of one kind of subject.
pub struct Limiter {
    rules: Rules,
    shared: Option<Arc<Shared>>,
    instances: u32,
    subjects: Subjects,
    /// Time is counted from here.
    origin: Instant,
    main: Handle,
    decisions: Decisions,
}

impl Limiter {
    /// `shared`: the log in Redis; without it, this process counts by itself. `instances`: the most that run at once.
    pub(super) fn new(
        rules: Rules,
        shared: Option<Arc<Shared>>,
        instances: u32,
        main: Handle,
        numbers: &Numbers,
    ) -> Arc<Self> {
        let longest = rules.logs.iter().map(Log::longest_window_ms).max().unwrap_or_default();
        let subjects = Subjects::new(Duration::from_millis(longest) + IDLE);
        let decisions = numbers.of(rules.kind);
        Arc::new(Self { rules, shared, instances, subjects, origin: Instant::now(), main, decisions })
    }

    pub(super) fn plan(&self, plan: usize) -> &Plan {
        #[expect(clippy::indexing_slicing, reason = "plans are named by constants beside their making")]
        &self.rules.plans[plan]
    }

    /// Charges a request to a subject. What needs Redis is under way when this returns.
    pub(super) fn charge(self: &Arc<Self>, subject: u128, plan: usize) -> Pending {
        if self.plan(plan).logs.is_empty() {
            return Pending::Ready(Some(Verdict::unlimited()));
        }
        let now = Instant::now();
        self.charge_known(self.subject(subject, now), plan, now)
    }

    /// A subject of which more than one thing is to be asked. `None`: nothing limits it.
    pub(super) fn meter(self: &Arc<Self>, subject: u128, plan: usize) -> Option<Meter<'_>> {
        let is_limited = !self.plan(plan).logs.is_empty();
        is_limited.then(|| Meter { limiter: self, subject: self.subject(subject, Instant::now()), plan })
    }

    fn charge_known(self: &Arc<Self>, subject: Arc<Subject>, plan: usize, now: Instant) -> Pending {
        let mut state = subject.state();
        let Some(shared) = &self.shared else {
            let verdict = self.decide_here(&mut state, plan, 1, now);
            return self.ready(Source::Process, verdict);
        };
        state.kind(plan).note(now, self.plan(plan).most_leased);
        if let Some(held) = state.kind(plan).take_leased(now) {
            self.charge_here(&mut state, plan, now);
            let policies = &self.plan(plan).policies;
            let mut quotas = Vec::with_capacity(policies.len());
            quotas.extend(policies.iter().filter_map(|policy| state.latest(policy.name, held, now)));
            let verdict = Verdict { granted: true, retry: Duration::ZERO, quotas, stamps: Vec::new() };
            return self.ready(Source::Lease, verdict);
        }
        if let Some(verdict) = state.kind(plan).denial(now) {
            return self.ready(Source::Denial, verdict);
        }
        if !shared.is_connected() {
            let verdict = self.decide_here(&mut state, plan, self.instances, now);
            return self.ready(Source::Share, verdict);
        }
        let (waiting, answer) = oneshot::channel();
        let kind = state.kind(plan);
        kind.waiting.push(waiting);
        if !kind.busy {
            kind.busy = true;
            drop(state);
            let (limiter, shared) = (Arc::clone(self), Arc::clone(shared));
            self.main.spawn(async move { limiter.serve(&shared, subject, plan).await });
        }
        Pending::Waiting(answer)
    }

    /// Where a subject stands, free of charge.
    pub(super) async fn look(&self, subject: u128, plan: usize) -> Verdict {
        let logs = self.logs_of(plan);
        if logs.is_empty() {
            return Verdict::unlimited();
        }
        let subject = self.subject(subject, Instant::now());
        if let Some(shared) = &self.shared
            && let Ok(reply) = shared.acquire(&logs, &subject.name, 0, Duration::ZERO).await
        {
            return self.verdict(plan, true, &reply);
        }
        let instances = if self.shared.is_some() { self.instances } else { 1 };
        let (quotas, retry) = self.look_here(&subject.state(), plan, instances, Instant::now());
        let retry = Duration::from_millis(retry);
        Verdict { granted: retry.is_zero(), retry, quotas, stamps: Vec::new() }
    }

    /// Takes back a charge of one request that was granted.
    pub(super) fn refund(self: &Arc<Self>, subject: u128, plan: usize, verdict: Verdict) {
        if !verdict.granted || self.plan(plan).logs.is_empty() {
            return;
        }
        let subject = self.subject(subject, Instant::now());
        let mut state = subject.state();
        for index in &self.plan(plan).logs {
            if let Some(window) = state.windows.get_mut(*index) {
                window.refund();
            }
        }
        state.kind(plan).denied = None;
        drop(state);
        if !verdict.stamps.is_empty() {
            let limiter = Arc::clone(self);
            self.main.spawn(async move { limiter.give_back(&subject, plan, 1, &verdict.stamps).await });
        }
    }

    fn subject(&self, subject: u128, now: Instant) -> Arc<Subject> {
        self.subjects.get(subject, now, || {
            let name = format!("{}:{}", self.rules.kind, (self.rules.name)(subject));
            Subject::new(name, self.rules.logs.len(), self.rules.plans.len())
        })
    }

    fn logs_of(&self, plan: usize) -> Vec<&Log> {
        self.plan(plan).logs.iter().filter_map(|index| self.rules.logs.get(*index)).collect()
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }

    fn ready(&self, source: Source, verdict: Verdict) -> Pending {
        self.count(source, verdict.granted);
        Pending::Ready(Some(verdict))
    }

    fn count(&self, source: Source, granted: bool) {
        self.decisions.count(source, granted);
    }

    /// Asks Redis for those who wait, until nobody does.
    async fn serve(self: &Arc<Self>, shared: &Shared, subject: Arc<Subject>, plan: usize) {
        let _unbusy = Unbusy { subject: &subject, plan };
        loop {
            let (waiting, leased) = {
                let mut state = subject.state();
                let kind = state.kind(plan);
                let waiting = std::mem::take(&mut kind.waiting);
                if waiting.is_empty() {
                    // In the same breath: whoever comes now begins a call of his own.
                    kind.busy = false;
                    return;
                }
                // Messages are few, and not leased.
                let now = Instant::now();
                if waiting.len() > 1 {
                    kind.crowded = Some(now);
                }
                let leases = self.rules.is_remembered && plan == 0;
                let leased = if leases {
                    kind.worth_leasing(self.instances, self.plan(plan).most_leased, now)
                } else {
                    0
                };
                (waiting, leased)
            };
            let waiters = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            let lease = if leased > 0 { LEASE } else { Duration::ZERO };
            let asked = Instant::now();
            let answer = shared.acquire(&self.logs_of(plan), &subject.name, waiters + leased, lease).await;
            let mut state = subject.state();
            match answer {
                Ok(reply) => self.distribute(&mut state, plan, (asked, leased), waiting, &reply),
                Err(err) => {
                    log::debug!("error.chain":% = Chain(&err); "a limit was judged by this instance's share");
                    for waiter in waiting {
                        let verdict = self.decide_here(&mut state, plan, self.instances, Instant::now());
                        self.count(Source::Share, verdict.granted);
                        let _gone = waiter.send(verdict);
                    }
                }
            }
            let ends =
                state.kind(plan).lease.as_ref().filter(|lease| lease.since == asked).map(|lease| lease.until);
            drop(state);
            if let Some(until) = ends {
                self.close_later(&subject, plan, until);
            }
        }
    }

    fn distribute(
        &self,
        state: &mut State,
        plan: usize,
        (asked, leased): (Instant, u32),
        waiting: Vec<oneshot::Sender<Verdict>>,
        reply: &Reply,
    ) {
        let is_refused = (reply.granted as usize) < waiting.len();
        let mut left = reply.granted;
        for waiter in waiting {
            let granted = left > 0;
            left = left.saturating_sub(1);
            if granted {
                // Whoever has gone meanwhile has been charged all the same, as by any request that is given up.
                self.charge_here(state, plan, Instant::now());
            }
            self.count(Source::Redis, granted);
            let _gone = waiter.send(self.verdict(plan, granted, reply));
        }
        state.learn(&self.verdict(plan, true, reply).quotas, asked);
        let kind = state.kind(plan);
        kind.left = reply.left.iter().map(|(remaining, _)| *remaining).min().unwrap_or_default();
        if leased > 0 && left > 0 {
            kind.lease =
                Some(Lease { left, since: asked, until: asked + LEASE, stamps: reply.stamps.clone() });
        }
        if !is_refused {
            kind.passed();
        } else if self.rules.is_remembered && kind.left == 0 {
            let lasts = kind.refused(asked, Duration::from_millis(reply.retry_ms));
            let verdict = self.verdict(plan, false, reply);
            kind.denied = Some(Denied { since: asked, lasts, verdict });
        }
    }

    /// Gives back what is left of a lease when it ends.
    fn close_later(self: &Arc<Self>, subject: &Arc<Subject>, plan: usize, until: Instant) {
        let (limiter, subject) = (Arc::clone(self), Arc::clone(subject));
        self.main.spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            let closed = subject.state().kind(plan).lease.take_if(|lease| lease.until == until);
            if let Some(lease) = closed.filter(|lease| lease.left > 0) {
                limiter.give_back(&subject, plan, lease.left, &lease.stamps).await;
            }
        });
    }

    async fn give_back(&self, subject: &Subject, plan: usize, count: u32, stamps: &[i64]) {
        let Some(shared) = &self.shared else { return };
        // Never again, whatever became of it: it may have arrived.
        if let Err(err) = shared.refund(&self.logs_of(plan), &subject.name, count, stamps).await {
            log::debug!("error.chain":% = Chain(&err); "unused requests were not given back");
        }
    }

    fn verdict(&self, plan: usize, granted: bool, reply: &Reply) -> Verdict {
        let quotas =
            self.plan(plan).policies.iter().zip(&reply.left).map(|(policy, (remaining, reset_ms))| Quota {
                policy: *policy,
                remaining: *remaining,
                reset: Duration::from_millis(*reset_ms),
            });
        let retry = if granted { Duration::ZERO } else { Duration::from_millis(reply.retry_ms) };
        let stamps = if granted { reply.stamps.clone() } else { Vec::new() };
        Verdict { granted, retry, quotas: quotas.collect(), stamps }
    }

    /// Decides by what this process has admitted itself.
    fn decide_here(&self, state: &mut State, plan: usize, instances: u32, now: Instant) -> Verdict {
        let (mut quotas, retry) = self.look_here(state, plan, instances, now);
        let granted = retry == 0;
        if granted {
            self.charge_here(state, plan, now);
            quotas.iter_mut().for_each(|quota| quota.remaining = quota.remaining.saturating_sub(1));
        }
        Verdict { granted, retry: Duration::from_millis(retry), quotas, stamps: Vec::new() }
    }

    fn look_here(&self, state: &State, plan: usize, instances: u32, now: Instant) -> (Vec<Quota>, u64) {
        let now = self.ms(now);
        let (mut quotas, mut retry) = (Vec::new(), 0);
        for index in &self.plan(plan).logs {
            if let (Some(log), Some(window)) = (self.rules.logs.get(*index), state.windows.get(*index)) {
                let (left, wait) = window.look(log, instances, now);
                quotas.extend(left);
                retry = retry.max(wait);
            }
        }
        (quotas, retry)
    }

    fn charge_here(&self, state: &mut State, plan: usize, now: Instant) {
        let now = self.ms(now);
        for index in &self.plan(plan).logs {
            if let (Some(log), Some(window)) = (self.rules.logs.get(*index), state.windows.get_mut(*index)) {
                window.charge(log, now);
            }
        }
    }
}

/// What one subject may ask by one plan.
pub struct Meter<'l> {
    limiter: &'l Arc<Limiter>,
    subject: Arc<Subject>,
    plan: usize,
}

impl Meter<'_> {
    /// Whether a refusal is still known to hold, free of charge.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.subject.state().kind(self.plan).denial(Instant::now()).is_some()
    }

    /// Charges a request. What needs Redis is under way when this returns.
    #[must_use]
    pub fn charge(self) -> Pending {
        self.limiter.charge_known(self.subject, self.plan, Instant::now())
    }
}

/// However a call ends, the next request can begin another: nobody waits for one that has panicked.
struct Unbusy<'a> {
    subject: &'a Subject,
    plan: usize,
}

impl Drop for Unbusy<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.subject.state();
            let kind = state.kind(self.plan);
            kind.busy = false;
            kind.waiting.clear();
        }
    }
}
