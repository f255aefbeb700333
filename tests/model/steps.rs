//! What can happen next: each thing that is atomic in the system is one step.

use crate::{
    Protocol,
    outages::fail_redis,
    promise::Required,
    rules::Rule,
    state::{Instance, Link, Phase, Source, State, Token, Write},
};

/// One step. Numbers are instances; the second number is a load of it, or a write whose token a reader brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Commits(usize),
    /// Announces in Redis if there is one; if not, remembers, and acknowledges.
    Announces(usize),
    /// Redis has announced, and cannot say so.
    LosesTheAnswer(usize),
    Acknowledges(usize),
    WriterDies(usize),
    Relays(usize),
    /// Announces what was announced in another life of Redis.
    RelaysFromElsewhere(usize),
    Hears(usize),
    MessageIsLost(usize),
    AsksForTheSequence(usize),
    RenewsItsLease(usize),
    FindsAGap(usize),
    BeginsALoad(usize, Required),
    LooksInL2(usize, usize),
    ReadsTheRow(usize, usize),
    FillsL2(usize, usize),
    Lands(usize, usize),
    /// A reader comes and shares the load that is under way.
    Joins(usize, u8),
    IsCutOff(usize),
    CanReachRedisAgain(usize),
    GivesUpItsConnection(usize),
    ReadsTheJournal(usize),
    Connects(usize),
    AnnouncesWhatWasLeft(usize),
    AsksWhereToBegin(usize),
    BeginsASharedGeneration(usize),
    StartsAnew(usize),
    RedisForgetsTheVersion,
    RedisForgetsTheEntry,
    RedisSavesASnapshot,
    RedisComesBackEmpty,
    RedisIsReplacedByItsReplica,
    RedisComesBackFromTheSnapshot,
    FormerRedisEnds,
}

impl Protocol {
    /// Steps that may be possible; [`Self::take`] says which are.
    pub(crate) fn possible(&self, state: &State, steps: &mut Vec<Step>) {
        for i in 0..2 {
            self.possible_at(i, &state.instances[i], state, steps);
        }
        if state.left.evictions > 0 {
            steps.extend([Step::RedisForgetsTheVersion, Step::RedisForgetsTheEntry]);
        }
        if state.left.snapshots > 0 {
            steps.push(Step::RedisSavesASnapshot);
        }
        if state.left.failovers > 0 {
            steps.extend([Step::RedisComesBackEmpty, Step::RedisIsReplacedByItsReplica]);
            if state.snapshot.is_some() {
                steps.push(Step::RedisComesBackFromTheSnapshot);
            }
        }
        if state.former.is_some() {
            steps.push(Step::FormerRedisEnds);
        }
    }

    fn possible_at(&self, i: usize, at: &Instance, state: &State, steps: &mut Vec<Step>) {
        match at.write {
            Write::None => steps.push(Step::Commits(i)),
            Write::Committed(_) => {
                steps.extend([Step::Announces(i), Step::LosesTheAnswer(i), Step::WriterDies(i)]);
            }
            Write::Announced { .. } => steps.push(Step::Acknowledges(i)),
        }
        match at.link {
            Link::None => steps.push(Step::Connects(i)),
            Link::Open => steps.push(Step::AnnouncesWhatWasLeft(i)),
            Link::Relayed => steps.push(Step::AsksWhereToBegin(i)),
            Link::Asked(_) => steps.push(Step::BeginsASharedGeneration(i)),
            Link::InUse => {
                if at.bus != 0 {
                    steps.extend([Step::Hears(i), Step::MessageIsLost(i)]);
                }
                match at.asked {
                    None => steps.push(Step::AsksForTheSequence(i)),
                    Some(_) => steps.extend([Step::RenewsItsLease(i), Step::FindsAGap(i)]),
                }
                steps.push(Step::Relays(i));
                if self.bounds.split {
                    steps.push(Step::RelaysFromElsewhere(i));
                }
            }
        }
        if at.link != Link::None {
            steps.push(Step::GivesUpItsConnection(i));
        }
        steps.push(if at.reachable { Step::IsCutOff(i) } else { Step::CanReachRedisAgain(i) });
        if state.left.journal_mode && at.source != Source::Shared {
            steps.push(Step::ReadsTheJournal(i));
        }
        self.possible_for_readers(i, at, state, steps);
        if state.left.restarts > 0 {
            steps.push(Step::StartsAnew(i));
        }
    }

    /// The step, if it is possible.
    pub(crate) fn take(&self, before: &State, step: Step) -> Option<State> {
        let mut state = *before;
        self.change(&mut state, step)?;
        if !state.left.slow {
            self.hurry(&mut state, step);
        }
        self.simplify(&mut state);
        (state != *before).then_some(state)
    }

    /// Takes the steps at once that nobody comes between, if time is short.
    fn hurry(&self, state: &mut State, step: Step) {
        let rest = match step {
            Step::Connects(i) => {
                vec![
                    Step::AnnouncesWhatWasLeft(i),
                    Step::AsksWhereToBegin(i),
                    Step::BeginsASharedGeneration(i),
                ]
            }
            Step::AsksForTheSequence(i) => vec![Step::RenewsItsLease(i), Step::FindsAGap(i)],
            Step::BeginsALoad(i, _) if self.keeps(Rule::SnapshotAfterStamp) => {
                let looks = (0..2).filter(|slot| state.instances[i].flights[*slot].phase == Phase::Begun);
                looks.flat_map(|slot| [Step::LooksInL2(i, slot), Step::Lands(i, slot)]).collect()
            }
            Step::LooksInL2(i, slot) | Step::FillsL2(i, slot) => vec![Step::Lands(i, slot)],
            _ => vec![],
        };
        for step in rest {
            let _ = self.change(state, step);
        }
    }

    fn change(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::Commits(i) => {
                spend(&mut state.left.writes[i])?;
                state.row += 1;
                if self.keeps(Rule::Journal) {
                    state.unrelayed |= 1 << state.row;
                }
                state.instances[i].write = Write::Committed(state.row);
            }
            Step::Announces(i) => self.announce(state, i)?,
            Step::LosesTheAnswer(i) => {
                spend(&mut state.left.losses)?;
                shared(&state.instances[i])?;
                self.bump(state, state.instances[i].epoch, i)?;
                state.instances[i].distrust();
            }
            Step::Acknowledges(i) => self.acknowledge(state, i)?,
            Step::WriterDies(i) => {
                spend(&mut state.left.deaths)?;
                state.instances[i].write = Write::None;
            }
            Step::Relays(i) => {
                let mut left = state.unrelayed;
                if !state.left.slow {
                    // It leaves time to a writer who is alive.
                    for at in &state.instances {
                        if let Write::Committed(row) | Write::Announced { row, .. } = at.write {
                            left &= !(1 << row);
                        }
                    }
                }
                (left != 0).then_some(())?;
                shared(&state.instances[i])?;
                let epoch = state.instances[i].epoch;
                self.bump(state, epoch, i)?;
                state.mark(left, epoch);
            }
            Step::RelaysFromElsewhere(i) => {
                self.keeps(Rule::ElsewhereAnnouncedHere).then_some(())?;
                shared(&state.instances[i])?;
                let elsewhere = state.elsewhere(i);
                (elsewhere != 0).then_some(())?;
                self.bump(state, state.instances[i].epoch, i)?;
                state.instances[i].repeated |= elsewhere;
            }
            Step::Hears(i) => self.hear(state, i),
            Step::MessageIsLost(i) => {
                spend(&mut state.left.losses)?;
                let at = &mut state.instances[i];
                at.bus &= at.bus - 1;
            }
            Step::AsksForTheSequence(i) => {
                let redis = *state.redis_at(i)?;
                let at = &mut state.instances[i];
                // What it knows already is not asked for: nothing would come of it.
                (redis.sequence > at.applied || redis.newest() > at.owed).then_some(())?;
                at.asked = Some((redis.sequence, redis.newest()));
            }
            Step::RenewsItsLease(i) => {
                let newest = state.redis_at(i).map(|redis| redis.newest());
                let at = &mut state.instances[i];
                let (sequence, row) = at.asked?;
                (at.applied >= sequence || !self.keeps(Rule::Sequence)).then_some(())?;
                at.asked = None;
                at.owes(row);
                if let (false, Some(newest)) = (self.keeps(Rule::LeaseFromQuestion), newest) {
                    at.owes(newest);
                }
            }
            Step::FindsAGap(i) => {
                let at = &mut state.instances[i];
                let (sequence, _) = at.asked?;
                // Messages that are under way are given time to arrive.
                (at.applied < sequence && at.bus == 0 && self.keeps(Rule::Sequence)).then_some(())?;
                at.distrust();
            }
            Step::IsCutOff(i) => {
                spend(&mut state.left.cuts[i])?;
                (state.instances[i].reachable, state.instances[i].bus) = (false, 0);
            }
            Step::CanReachRedisAgain(i) => state.instances[i].reachable = true,
            Step::GivesUpItsConnection(i) => {
                // From one that was replaced, whenever it is noticed.
                let replaced = state.instances[i].epoch != state.redis.epoch;
                (replaced || state.redis_at(i).is_none()).then_some(())?;
                match state.instances[i].source {
                    Source::Shared => state.instances[i].distrust(),
                    Source::Local | Source::Untrusted => state.instances[i].give_up(),
                }
            }
            Step::ReadsTheJournal(i) => self.read_journal(state, i)?,
            Step::Connects(_)
            | Step::AnnouncesWhatWasLeft(_)
            | Step::AsksWhereToBegin(_)
            | Step::BeginsASharedGeneration(_) => self.connect(state, step)?,
            Step::StartsAnew(i) => {
                spend(&mut state.left.restarts)?;
                state.instances[i] = Instance::new(state.instances[i].owed, state.instances[i].reachable);
            }
            Step::BeginsALoad(..)
            | Step::LooksInL2(..)
            | Step::ReadsTheRow(..)
            | Step::FillsL2(..)
            | Step::Lands(..)
            | Step::Joins(..) => self.change_for_readers(state, step)?,
            Step::RedisForgetsTheVersion
            | Step::RedisForgetsTheEntry
            | Step::RedisSavesASnapshot
            | Step::RedisComesBackEmpty
            | Step::RedisIsReplacedByItsReplica
            | Step::RedisComesBackFromTheSnapshot
            | Step::FormerRedisEnds => fail_redis(state, step)?,
        }
        Some(())
    }

    /// Gives out the next number in the Redis of an epoch, through instance `i`, and sends it to all who listen there.
    pub(crate) fn bump(&self, state: &mut State, epoch: u8, i: usize) -> Option<u8> {
        let row = state.row;
        let redis = state.redis_of(i, epoch)?;
        let sequence = redis.bump(row);
        if !self.keeps(Rule::StampsInL2) {
            redis.entry = None;
        }
        for at in &mut state.instances {
            if at.reachable && at.link != Link::None && at.epoch == epoch {
                at.bus |= 1 << sequence;
            }
        }
        Some(sequence)
    }

    fn announce(&self, state: &mut State, i: usize) -> Option<()> {
        let Write::Committed(row) = state.instances[i].write else { return None };
        let (source, epoch) = (state.instances[i].source, state.instances[i].epoch);
        if source == Source::Shared {
            match self.bump(state, epoch, i) {
                Some(sequence) => {
                    state.instances[i].write = Write::Announced { row, sequence, current: true };
                }
                // And once more, in the generation that follows.
                None => state.instances[i].distrust(),
            }
            return Some(());
        }
        let at = &mut state.instances[i];
        at.hear_local();
        self.forget(at);
        at.owes(row);
        (at.unannounced, at.write) = (true, Write::None);
        if !self.keeps(Rule::OnlyAnnouncedIsMarked) {
            state.unrelayed &= !(1 << row);
        }
        let token = if source == Source::Local {
            at.own |= 1 << row;
            Token::Local(u8::from(i == 1))
        } else {
            Token::Unknown
        };
        give_token(state, row, token);
        Some(())
    }

    fn acknowledge(&self, state: &mut State, i: usize) -> Option<()> {
        let at = &mut state.instances[i];
        let Write::Announced { row, sequence, current } = at.write else { return None };
        if !current {
            at.write = Write::Committed(row);
            return Some(());
        }
        if self.keeps(Rule::HeardBeforeAcknowledged) {
            at.heard = at.heard.max(sequence);
            if at.applied + 1 == sequence {
                at.applied = sequence;
            }
            self.forget(at);
        }
        at.owes(row);
        at.write = Write::None;
        let epoch = at.epoch;
        let token = Token::Shared { epoch, sequence };
        state.mark(1 << row, epoch);
        give_token(state, row, token);
        Some(())
    }

    fn hear(&self, state: &mut State, i: usize) {
        let redis = state.redis_at(i).map(|redis| *redis);
        let at = &mut state.instances[i];
        let Ok(sequence) = u8::try_from(at.bus.trailing_zeros()) else { return };
        at.bus &= at.bus - 1;
        at.heard = at.heard.max(sequence);
        self.forget(at);
        if let Some(redis) = redis {
            at.owes(redis.announced[usize::from(sequence)]);
        }
        if sequence <= at.applied + 1 || !self.keeps(Rule::Sequence) {
            at.applied = at.applied.max(sequence);
        } else {
            at.distrust();
        }
    }

    /// What takes the place of stamps in L1, where they are not judged.
    pub(crate) fn forget(&self, at: &mut Instance) {
        if !self.keeps(Rule::StampsInL1) {
            at.l1 = None;
        }
    }
}

fn give_token(state: &mut State, row: u8, token: Token) {
    if state.left.tokens {
        state.tokens[usize::from(row)] = token;
    }
}

/// One of what may happen only so often.
pub(crate) fn spend(left: &mut u8) -> Option<()> {
    *left = left.checked_sub(1)?;
    Some(())
}

fn shared(at: &Instance) -> Option<()> {
    (at.source == Source::Shared).then_some(())
}
