//! Many reads at once: one round trip to Redis for all that L1 does not have, one load for all that neither has, and one
//! round trip to store it. Each value keeps its own key, tags and stamp, and its own flight, which single reads join too.
//!
//! Instances do not wait for each other here: a lock for each key would cost more than it saves.

use std::sync::Arc;

use super::{
    Cache, LoadError, Loaded,
    entry::Stored,
    flight::{Boarding, Leader, landed},
    generation::{Generation, Interest},
    key::{Key, Tag},
    l2::Filling,
    load::{AfterL2, BoxError, Plan, Trip, timed},
    policy::Policy,
    present::Present,
    read::{Read, required_by},
    status::TierStatus,
    token::Token,
};
use crate::telemetry::in_this_request;

/// One of several things that are asked for.
#[derive(Debug, Clone)]
pub struct Item {
    /// The entry.
    pub key: Key,
    /// The tags that are known before loading.
    pub tags: Vec<Tag>,
}

/// A flight of a batch, and which item it is for.
struct Seat {
    item: usize,
    trip: Trip,
    leader: Leader,
    interest: Interest,
}

/// A flight that has to load.
struct Pending {
    seat: Seat,
    plan: Plan,
}

impl Pending {
    fn without_l2(seat: Seat, as_of: u64) -> Self {
        let plan = Plan::without_l2(seat.interest.clone(), as_of);
        Self { seat, plan }
    }
}

impl Cache {
    /// Reads all items through both tiers, and returns them in their order. `load` is given the positions of those that
    /// neither tier has, and yields one value for each, in that order; it may be called a second time for items that
    /// another reader was loading already when they were invalidated.
    ///
    /// # Errors
    /// When the load of any of them fails. Errors are never cached.
    pub async fn read_many<T, F, L>(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        items: &[Item],
        token: Option<&Token>,
        load: F,
    ) -> Result<Vec<Read<T>>, LoadError>
    where
        T: Stored,
        F: Fn(Vec<usize>) -> L + Clone + Send + 'static,
        L: Future<Output = Result<Vec<Loaded<T>>, BoxError>> + Send + 'static,
    {
        let mut reads: Vec<Option<Read<T>>> = items.iter().map(|_| None).collect();
        for attempt in 0.. {
            let generation = self.present();
            let required = required_by(&generation, policy, token);
            let mut waiting = Vec::new();
            let mut seats = Vec::new();
            for (item, Item { key, tags }) in items.iter().enumerate() {
                let Some(slot) = reads.get_mut(item).filter(|slot| slot.is_none()) else { continue };
                let l1 = match self.look_in_l1(policy, key, required) {
                    Ok(held) => {
                        *slot = Some(held.read);
                        continue;
                    }
                    Err(status) => status,
                };
                let interest = generation.interest(tags);
                let hashed = self.loads.hashed(*key);
                match self.loads.board(hashed, &generation, &interest, required, &self.trust) {
                    Boarding::Join(flight) => waiting.push((item, flight.end, l1, false)),
                    Boarding::Lead(leader) => {
                        waiting.push((item, leader.passenger(), l1, true));
                        let named = (*key, tags.clone());
                        let trip = self.trip(policy, named, required, Arc::clone(&generation), l1);
                        seats.push(Seat { item, trip, leader, interest });
                    }
                }
            }
            if !seats.is_empty() {
                self.main.spawn(in_this_request(fly(Arc::clone(&generation), seats, load.clone())));
            }
            for (item, flight, l1, is_own) in waiting {
                let landing = match landed(flight).await {
                    // A panic of one's own load ends it; that of another's is his.
                    None if is_own => return Err(LoadError::Panicked),
                    landing if is_own => landing,
                    landing => landing.and_then(|it| self.for_who_joined(it, required, attempt)),
                };
                if let (Some(landing), Some(slot)) = (landing, reads.get_mut(item)) {
                    let (entry, status) = landing?;
                    let value = entry.value().ok_or(LoadError::Panicked)?;
                    let status = if is_own { status } else { status.of_who_joined(l1) };
                    *slot = Some(Read { value, status });
                }
            }
            if reads.iter().all(Option::is_some) {
                break;
            }
        }
        let reads: Vec<_> = reads.into_iter().flatten().collect();
        reads.iter().for_each(|read| policy.stats.count(&read.status));
        Ok(reads)
    }
}

/// L2 for all, then one load for those that are left.
async fn fly<T, F, L>(generation: Arc<Present>, seats: Vec<Seat>, load: F)
where
    T: Stored,
    F: Fn(Vec<usize>) -> L,
    L: Future<Output = Result<Vec<Loaded<T>>, BoxError>>,
{
    let pending = look_in_l2::<T>(&generation, seats).await;
    let Some(first) = pending.first() else { return };
    let policy = Arc::clone(&first.seat.trip.policy);
    let wanted = pending.iter().map(|pending| pending.seat.item).collect();
    match timed(&policy, load(wanted)).await {
        Ok(loaded) if loaded.len() == pending.len() => fill(&generation, pending, loaded).await,
        Ok(_) => {
            log::error!(kind = policy.kind; "a load of many did not yield one value for each");
            land_all(pending, &LoadError::Panicked);
        }
        Err(err) => land_all(pending, &err),
    }
}

/// Lands what L2 has, in one round trip, and returns the rest.
async fn look_in_l2<T: Stored>(generation: &Generation, mut seats: Vec<Seat>) -> Vec<Pending> {
    let as_of = generation.applied();
    let link = seats.iter_mut().map(|seat| seat.trip.l2()).last().flatten();
    let wanted: Vec<_> = seats.iter().map(|seat| seat.trip.wanted()).collect();
    let answers = match &link {
        Some(link) => link.read_many(&wanted).await.inspect_err(|err| {
            log::warn!("error.chain":% = crate::telemetry::Chain(err); "L2 read failed; loading from PostgreSQL");
        }),
        None => Ok(Vec::new()),
    };
    let unavailable = link.is_some();
    let (Some(link), Ok(answers)) = (link, answers) else {
        let without_l2 = seats.into_iter().map(|mut seat| {
            if unavailable {
                seat.trip.status.l2 = TierStatus::Unavailable;
            }
            Pending::without_l2(seat, as_of)
        });
        return without_l2.collect();
    };
    let mut pending = Vec::new();
    for (mut seat, answer) in seats.into_iter().zip(answers) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(err) => {
                seat.trip.l2_failed(&err);
                pending.push(Pending::without_l2(seat, as_of));
                continue;
            }
        };
        match seat.trip.interpret::<T>(&link, &seat.interest, answer) {
            AfterL2::Found(entry, _) => seat.leader.land(Ok((seat.trip.keep(entry), seat.trip.status))),
            AfterL2::Load(plan) => pending.push(Pending { seat, plan }),
            // No lock was asked for.
            AfterL2::Wait => {}
        }
    }
    pending
}

/// Stores what was loaded in both tiers, and tells those who wait.
async fn fill<T: Stored>(generation: &Generation, pending: Vec<Pending>, loaded: Vec<Loaded<T>>) {
    let link = pending.iter().find_map(|pending| pending.plan.link.clone());
    let mut envelopes = Vec::new();
    let mut filled = Vec::new();
    for (Pending { seat, plan }, loaded) in pending.into_iter().zip(loaded) {
        let loaded = loaded.with_distinct_tags();
        let life = seat.trip.policy.l2_life(loaded.value.is_none());
        let envelope = plan.link.as_ref().and_then(|link| seat.trip.envelope(link, &loaded, plan.as_of));
        if plan.link.is_some() && envelope.is_none() {
            seat.trip.policy.stats.oversized.inc();
        }
        envelopes.push(envelope.map(|envelope| (envelope.write(), envelope)));
        filled.push((seat, plan, loaded, life));
    }
    if let Some(link) = &link {
        let fillings: Vec<_> = filled
            .iter()
            .zip(&envelopes)
            .filter_map(|((seat, _, _, life), envelope)| {
                let (bytes, envelope) = envelope.as_ref()?;
                let fail_safe = seat.trip.policy.options.fail_safe;
                Some(Filling { key: &seat.trip.key, envelope, bytes, life: *life, fail_safe })
            })
            .collect();
        match link.fill_many(&fillings).await {
            Ok(stored) => {
                let seats = filled.iter_mut().zip(&envelopes).filter(|(_, envelope)| envelope.is_some());
                for (((seat, ..), envelope), stored) in seats.zip(stored) {
                    let bytes = envelope.as_ref().filter(|_| stored).map_or(0, |(bytes, _)| bytes.len());
                    seat.trip.note_stored(bytes);
                }
            }
            Err(err) => log::warn!("error.chain":% = crate::telemetry::Chain(&err); "L2 was not filled"),
        }
    }
    for (Seat { mut trip, leader, .. }, plan, loaded, life) in filled {
        let stamp = generation.stamp(&plan.interest, loaded.tags.iter().map(Tag::as_str), plan.as_of);
        let entry = trip.entry(loaded.value, stamp, life);
        leader.land(Ok((trip.keep(entry), trip.status)));
    }
}

/// Tells those who wait that nothing could be loaded, or gives them what is there instead.
fn land_all(pending: Vec<Pending>, err: &LoadError) {
    // First of all: whoever is told of one may try again at once, and must not meet the others.
    pending.iter().for_each(|pending| pending.seat.leader.leave());
    for Pending { seat: Seat { mut trip, leader, .. }, plan } in pending {
        let instead = plan.instead.or_else(|| trip.held_here());
        leader.land(trip.failed(err.clone(), instead.as_ref()));
    }
}
