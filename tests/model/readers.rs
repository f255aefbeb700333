//! What readers do: loads, which fill both tiers, and sharing them.

use crate::{
    Protocol,
    promise::Required,
    rules::Rule,
    state::{Entry, Flight, Instance, Phase, Redis, Source, State, Waiter},
    steps::Step,
};

impl Protocol {
    pub(crate) fn possible_for_readers(&self, i: usize, at: &Instance, state: &State, steps: &mut Vec<Step>) {
        for (slot, flight) in at.flights.iter().enumerate() {
            match flight.phase {
                Phase::None => {}
                Phase::Begun => steps.push(Step::LooksInL2(i, slot)),
                Phase::Stamped => steps.push(Step::ReadsTheRow(i, slot)),
                Phase::Loaded => steps.push(Step::FillsL2(i, slot)),
                Phase::Ready => steps.push(Step::Lands(i, slot)),
            }
        }
        if at.flights.iter().filter(|flight| flight.phase != Phase::None).count()
            < state.left.flights[i].into()
        {
            steps.push(Step::BeginsALoad(i, Required::Nothing));
            if self.strictest(state, i) == Required::Load {
                steps.push(Step::BeginsALoad(i, Required::Load));
            }
        }
        if state.left.sharing && at.waiter.is_none() && at.newest_flight().is_some() {
            steps.push(Step::Joins(i, 0));
            let rows = (1..=state.row).filter(|row| state.has_token(*row));
            steps.extend(rows.map(|row| Step::Joins(i, row)));
        }
    }

    pub(crate) fn change_for_readers(&self, state: &mut State, step: Step) -> Option<()> {
        match step {
            Step::BeginsALoad(i, required) => {
                // That an entry's time is up, or the lease, is no other case than that there is none.
                (required > Required::Nothing || self.l1_answers(state, i).is_none()).then_some(())?;
                if let Some(slot) = state.instances[i].newest_flight() {
                    (!self.serves(&state.instances[i], slot, required)).then_some(())?;
                }
                self.begin_load(state, i, required == Required::Load)?;
            }
            Step::LooksInL2(i, slot) => {
                let epoch = state.instances[i].flights[slot].epoch;
                let mut flight = state.instances[i].flights[slot];
                match state.redis_of(i, epoch) {
                    Some(redis) => self.look_in_l2(&mut flight, redis),
                    // Stamped with what was applied when it began.
                    None => (flight.phase, flight.epoch) = (Phase::Stamped, 0),
                }
                state.instances[i].flights[slot] = flight;
            }
            Step::ReadsTheRow(i, slot) => {
                let row = state.row;
                let flight = &mut state.instances[i].flights[slot];
                if self.keeps(Rule::SnapshotAfterStamp) {
                    flight.value = row;
                }
                flight.phase = if flight.epoch == 0 { Phase::Ready } else { Phase::Loaded };
            }
            Step::FillsL2(i, slot) => {
                let mut flight = state.instances[i].flights[slot];
                if let Some(redis) = state.redis_of(i, flight.epoch) {
                    self.fill_l2(&mut flight, redis);
                }
                (flight.phase, flight.epoch) = (Phase::Ready, 0);
                state.instances[i].flights[slot] = flight;
            }
            Step::Lands(i, slot) => self.land(state, i, slot)?,
            Step::Joins(i, row) => {
                let slot = state.instances[i].newest_flight()?;
                let required = self.required(state, i, row);
                let at = &mut state.instances[i];
                self.serves(at, slot, required).then_some(())?;
                at.waiter = Some(Waiter {
                    slot: u8::try_from(slot).ok()?,
                    token: row,
                    anything: required == Required::Nothing,
                    again: false,
                    floor: at.owed.max(row),
                });
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether a reader who comes now may share this load, which began before him.
    fn serves(&self, at: &Instance, slot: usize, required: Required) -> bool {
        let flight = &at.flights[slot];
        if !self.keeps(Rule::FlightsJudged) {
            return true;
        }
        flight.current && flight.interest == at.heard && (required < Required::Load || flight.deep)
    }

    fn begin_load(&self, state: &mut State, i: usize, deep: bool) -> Option<()> {
        let row = state.row;
        let at = &mut state.instances[i];
        let slot = at.flights.iter().position(|flight| flight.phase == Phase::None)?;
        for other in &mut at.flights {
            other.newest = false;
        }
        let epoch = if at.source == Source::Shared { at.epoch } else { 0 };
        at.flights[slot] = Flight {
            phase: if epoch == 0 { Phase::Stamped } else { Phase::Begun },
            current: true,
            newest: true,
            deep,
            interest: at.heard,
            epoch,
            as_of: at.applied,
            value: if self.keeps(Rule::SnapshotAfterStamp) { 0 } else { row },
        };
        Some(())
    }

    fn look_in_l2(&self, flight: &mut Flight, redis: &mut Redis) {
        let valid = self.valid_in_l2(redis, flight.epoch).filter(|_| !flight.deep);
        if self.keeps(Rule::MissingVersionIsPresent) {
            redis.version.get_or_insert(redis.sequence);
        }
        flight.as_of = redis.sequence;
        match valid {
            Some(value) => (flight.phase, flight.epoch, flight.value) = (Phase::Ready, 0, value),
            None => flight.phase = Phase::Stamped,
        }
    }

    fn fill_l2(&self, flight: &mut Flight, redis: &mut Redis) {
        if !self.keeps(Rule::StampBeforeLoad) {
            flight.as_of = redis.sequence;
        }
        let overtaken = |entry: Entry| entry.epoch == flight.epoch && entry.as_of > flight.as_of;
        if self.keeps(Rule::StampsInL2) && redis.entry.is_some_and(overtaken) {
            return;
        }
        redis.entry = Some(Entry { value: flight.value, as_of: flight.as_of, epoch: flight.epoch });
        if self.keeps(Rule::MissingVersionIsPresent) {
            redis.version.get_or_insert(redis.sequence);
        }
    }

    fn land(&self, state: &mut State, i: usize, slot: usize) -> Option<()> {
        let at = &mut state.instances[i];
        (at.flights[slot].phase == Phase::Ready).then_some(())?;
        let flight = std::mem::replace(&mut at.flights[slot], Flight::NONE);
        let current = (flight.current || !self.keeps(Rule::GenerationOfLoads))
            && (flight.as_of >= at.heard || !self.keeps(Rule::StampsInL1));
        if current && at.source != Source::Untrusted {
            at.l1 = Some(Entry { value: flight.value, as_of: flight.as_of, epoch: 0 });
        }
        let Some(waiter) = at.waiter.filter(|waiter| usize::from(waiter.slot) == slot) else {
            return Some(());
        };
        at.waiter = None;
        if waiter.again || (waiter.anything && current) || !self.keeps(Rule::FlightsJudged) {
            state.broken |= flight.value < waiter.floor;
            return Some(());
        }
        // What is under way now began after he came. If nothing is, he loads himself.
        let required = self.required(state, i, waiter.token);
        let at = &mut state.instances[i];
        match at.newest_flight() {
            Some(slot) if self.serves(at, slot, required) => {
                at.waiter = Some(Waiter { slot: u8::try_from(slot).ok()?, again: true, ..waiter });
                Some(())
            }
            _ => self.begin_load(state, i, required == Required::Load),
        }
    }
}
