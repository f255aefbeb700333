//! What is promised, as properties of states.
//!
//! A read that a tier would answer is a function of the state, so it takes no step: every state says what each
//! instance would serve in it. What a load brings to the reader who began it is either that, or a row that was read after
//! he came; only readers who share loads are followed one by one.

use stateright::{Model, Property};

use crate::{
    Protocol,
    rules::Rule,
    state::{Link, Phase, Redis, Source, State, Token, Write},
    steps::Step,
};

/// How deep a reader with a token has to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Required {
    Nothing,
    L2,
    Load,
}

impl State {
    pub(crate) fn has_token(&self, row: u8) -> bool {
        self.tokens[usize::from(row)] != Token::None
    }

    fn redis_behind(&self, i: usize) -> Option<Redis> {
        let mut state = *self;
        state.redis_at(i).map(|redis| *redis)
    }
}

impl Protocol {
    /// What L1 answers now, if there is a lease. That one may have ended makes no difference to what may be served.
    pub(crate) fn l1_answers(&self, state: &State, i: usize) -> Option<u8> {
        let at = &state.instances[i];
        let entry = at.l1.filter(|_| at.source != Source::Untrusted)?;
        (entry.as_of >= at.heard || !self.keeps(Rule::StampsInL1)).then_some(entry.value)
    }

    /// What L2 answers now.
    fn l2_answers(&self, state: &State, i: usize) -> Option<u8> {
        let at = &state.instances[i];
        let redis = state.redis_behind(i).filter(|_| at.source == Source::Shared)?;
        self.valid_in_l2(&redis, at.epoch)
    }

    pub(crate) fn valid_in_l2(&self, redis: &Redis, epoch: u8) -> Option<u8> {
        let entry = redis.entry.filter(|entry| entry.epoch == epoch || !self.keeps(Rule::Epoch))?;
        let missing = if self.keeps(Rule::MissingVersionIsPresent) { redis.sequence } else { 0 };
        let valid = redis.version.unwrap_or(missing) <= entry.as_of || !self.keeps(Rule::StampsInL2);
        valid.then_some(entry.value)
    }

    /// What a reader with the token of a write has to pass over; 0 is no write.
    pub(crate) fn required(&self, state: &State, i: usize, row: u8) -> Required {
        let at = &state.instances[i];
        if !self.keeps(Rule::Token) {
            return Required::Nothing;
        }
        match (state.tokens[usize::from(row)], at.source) {
            (Token::None, _) => Required::Nothing,
            (Token::Shared { epoch, sequence }, Source::Shared)
                if epoch == at.epoch || !self.keeps(Rule::Epoch) =>
            {
                if sequence <= at.applied {
                    Required::Nothing
                } else {
                    Required::L2
                }
            }
            (Token::Local(origin), Source::Local) if usize::from(origin) == i => Required::Nothing,
            _ => Required::Load,
        }
    }

    pub(crate) fn strictest(&self, state: &State, i: usize) -> Required {
        (1..=state.row).map(|row| self.required(state, i, row)).max().unwrap_or(Required::Nothing)
    }

    /// No tier serves anything older than what was acknowledged here, announced and heard, vouched for by a lease, or
    /// (L2) announced in its Redis at all.
    fn keeps_what_it_owes(&self, state: &State) -> bool {
        (0..2).all(|i| {
            let at = &state.instances[i];
            let l1 = self.l1_answers(state, i).is_none_or(|value| value >= at.owed.max(at.told));
            let announced = state.redis_behind(i).map_or(0, |redis| redis.newest());
            l1 && self.l2_answers(state, i).is_none_or(|value| value >= at.owed.max(announced))
        }) && !state.broken
    }

    /// No reader with a token is given anything from before the token's write.
    fn keeps_tokens(&self, state: &State) -> bool {
        (0..2).all(|i| {
            (1..=state.row).filter(|row| state.has_token(*row)).all(|row| {
                let (required, token) = (self.required(state, i, row), |value| value >= row);
                (required > Required::Nothing || self.l1_answers(state, i).is_none_or(token))
                    && (required > Required::L2 || self.l2_answers(state, i).is_none_or(token))
            })
        })
    }

    /// Where nothing is left to be announced or heard, what is served is the row.
    fn settles(&self, state: &State) -> bool {
        (0..2).all(|i| {
            let is_row = |value| value == state.row;
            !self.is_settled(state, i)
                || (self.l1_answers(state, i).is_none_or(is_row)
                    && self.l2_answers(state, i).is_none_or(is_row))
        })
    }

    fn is_settled(&self, state: &State, i: usize) -> bool {
        let at = &state.instances[i];
        let announced = state.unrelayed == 0
            && (state.elsewhere(i) == 0 || !self.keeps(Rule::ElsewhereAnnouncedHere))
            && state.instances.iter().all(|at| {
                at.write == Write::None
                    && !at.unannounced
                    // Whoever is about to use a Redis may still have something to say.
                    && (at.link == Link::InUse || at.known_epoch == 0)
            });
        match at.source {
            Source::Untrusted => false,
            Source::Local => at.journal == state.row,
            Source::Shared => {
                let sequence = state.redis_behind(i).map_or(u8::MAX, |redis| redis.sequence);
                let unaware = at.applied < sequence && self.keeps(Rule::Sequence);
                announced && at.reachable && at.bus == 0 && !unaware
            }
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.bounds)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.possible(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        self.take(state, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let bounds = self.bounds;
        let mut properties = vec![
            Property::always("nothing served is older than owed", |model: &Self, state: &State| {
                model.keeps_what_it_owes(state)
            }),
            Property::always("nothing served is older than the token", |model: &Self, state: &State| {
                model.keeps_tokens(state)
            }),
            Property::always("nothing stale is served once all is quiet", |model: &Self, state: &State| {
                model.settles(state)
            }),
            Property::sometimes("L1 serves the last write", |model: &Self, state: &State| {
                state.left.writes == [0, 0] && (0..2).any(|i| model.l1_answers(state, i) == Some(state.row))
            }),
            Property::sometimes("all is quiet after the last write", |model: &Self, state: &State| {
                state.left.writes == [0, 0] && (0..2).any(|i| model.is_settled(state, i))
            }),
            Property::sometimes("an instance lags behind and may", |model: &Self, state: &State| {
                (0..2).any(|i| model.l1_answers(state, i).is_some_and(|value| value < state.row))
            }),
        ];
        let loads_by_journal =
            bounds.journal_mode && (0..2).any(|i| bounds.cuts[i] > 0 && bounds.flights[i] > 0);
        let mut sometimes = |possible: bool, name, condition: fn(&Self, &State) -> bool| {
            if possible {
                properties.push(Property::sometimes(name, condition));
            }
        };
        sometimes(true, "L2 serves the last write", |model, state| {
            state.left.writes == [0, 0] && (0..2).any(|i| model.l2_answers(state, i) == Some(state.row))
        });
        sometimes(true, "an invalidation overtakes a fill", |_, state| {
            let loads = state.instances.iter().flat_map(|at| at.flights);
            loads
                .into_iter()
                .any(|load| load.phase == Phase::Loaded && Some(load.as_of) < state.redis.version)
        });
        sometimes(loads_by_journal, "L1 serves by the journal", |model, state| {
            let by_journal = |i: usize| state.instances[i].source == Source::Local;
            (0..2).any(|i| by_journal(i) && model.l1_answers(state, i).is_some_and(|value| value > 0))
        });
        sometimes(bounds.failovers > 0, "L2 serves after a failover", |model, state| {
            state.redis.epoch > 1 && (0..2).any(|i| model.l2_answers(state, i).is_some_and(|value| value > 0))
        });
        sometimes(bounds.tokens, "a token passes over L1", |model, state| {
            (0..2).any(|i| {
                model.l1_answers(state, i).is_some_and(|value| value < state.row)
                    && model.required(state, i, state.row) == Required::L2
            })
        });
        sometimes(bounds.tokens && bounds.losses > 0, "a token asks for the database", |model, state| {
            (0..2).any(|i| {
                model.l2_answers(state, i).is_some() && model.required(state, i, state.row) == Required::Load
            })
        });
        sometimes(bounds.sharing, "a reader shares a second load", |_, state| {
            state.instances.iter().any(|at| at.waiter.is_some_and(|waiter| waiter.again))
        });
        properties
    }
}
