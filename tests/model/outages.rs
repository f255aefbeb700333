//! What happens while Redis is away, on the way back to it, and to Redis itself.

use crate::{
    Protocol,
    rules::Rule,
    state::{Link, Redis, Source, State},
    steps::{Step, spend},
};

impl Protocol {
    pub(crate) fn read_journal(&self, state: &mut State, i: usize) -> Option<()> {
        self.keeps(Rule::Journal).then_some(())?;
        let row = state.row;
        let at = &mut state.instances[i];
        match at.source {
            Source::Untrusted => at.begin(Source::Local, 0),
            Source::Local => {
                if (at.journal + 1..=row).any(|news| at.own & (1 << news) == 0) {
                    at.hear_local();
                    self.forget(at);
                    // L2 may not know of it yet.
                    at.unannounced |= self.keeps(Rule::HeardAnnouncedFirst);
                    at.owes(row);
                }
            }
            Source::Shared => return None,
        }
        // The lease that follows vouches for this.
        (at.journal, at.told) = (row, row);
        Some(())
    }

    pub(crate) fn connect(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Connects(i) => {
                state.instances[i].reachable.then_some(())?;
                let at = &mut state.instances[i];
                if at.known_epoch != state.redis.epoch {
                    at.repeated = 0;
                }
                (at.link, at.epoch, at.bus) = (Link::Open, state.redis.epoch, 0);
                // What the journal has told until now is going to be announced before L2 is used.
                if at.source == Source::Local {
                    at.owes(at.told);
                }
            }
            Step::AnnouncesWhatWasLeft(i) => {
                let at = state.instances[i];
                let others = at.known_epoch != 0 && at.known_epoch != at.epoch;
                let invalidates = others && self.keeps(Rule::Epoch);
                let elsewhere = if self.keeps(Rule::ElsewhereAnnouncedHere) { state.elsewhere(i) } else { 0 };
                let relays = state.unrelayed | elsewhere != 0 && self.keeps(Rule::AnnouncedBeforeUse);
                state.redis_at(i)?;
                if relays || invalidates {
                    self.bump(state, at.epoch, i)?;
                }
                if relays {
                    state.mark(state.unrelayed, at.epoch);
                    state.instances[i].repeated |= elsewhere;
                }
                (state.instances[i].link, state.instances[i].known_epoch) = (Link::Relayed, at.epoch);
            }
            Step::AsksWhereToBegin(i) => {
                let sequence = state.redis_at(i)?.sequence;
                state.instances[i].link = Link::Asked(sequence);
            }
            Step::BeginsASharedGeneration(i) => {
                let Link::Asked(sequence) = state.instances[i].link else { return None };
                let redis = *state.redis_at(i)?;
                if state.instances[i].unannounced && self.keeps(Rule::OwnAnnouncedFirst) {
                    self.bump(state, redis.epoch, i)?;
                    state.instances[i].link = Link::Relayed;
                } else {
                    let at = &mut state.instances[i];
                    at.begin(Source::Shared, sequence);
                    at.link = Link::InUse;
                    at.owes(redis.announced[usize::from(sequence)]);
                }
                state.instances[i].unannounced = false;
            }
            _ => return None,
        }
        Some(())
    }
}

pub(crate) fn fail_redis(state: &mut State, step: Step) -> Option<()> {
    let old = state.redis;
    let epoch = old.epoch + 1;
    let new = match step {
        Step::RedisForgetsTheVersion => {
            spend(&mut state.left.evictions)?;
            state.redis.version = None;
            return Some(());
        }
        Step::RedisForgetsTheEntry => {
            spend(&mut state.left.evictions)?;
            state.redis.entry.take()?;
            return Some(());
        }
        Step::RedisSavesASnapshot => {
            // Of an empty one there is another step.
            old.entry?;
            spend(&mut state.left.snapshots)?;
            state.snapshot = Some(old);
            return Some(());
        }
        Step::FormerRedisEnds => {
            let former = state.former.take()?;
            silence(state, former.epoch);
            return Some(());
        }
        Step::RedisComesBackEmpty => Redis::empty(epoch, old.newest()),
        Step::RedisIsReplacedByItsReplica => Redis { epoch, ..old },
        Step::RedisComesBackFromTheSnapshot => {
            let mut new = Redis { epoch, ..state.snapshot? };
            new.announced.fill(old.newest());
            new
        }
        _ => return None,
    };
    spend(&mut state.left.failovers)?;
    state.redis = new;
    if state.left.split {
        state.former = Some(old);
    } else {
        silence(state, old.epoch);
    }
    Some(())
}

/// Nothing more comes from the Redis of this epoch.
fn silence(state: &mut State, epoch: u8) {
    for at in state.instances.iter_mut().filter(|at| at.epoch == epoch) {
        at.bus = 0;
    }
}
