//! States that no future can tell apart are made one: what can have no effect any more is taken out.
//!
//! Only what the rules that are in force make harmless is taken out, so that a model without a rule still sees what the
//! rule was for.

use crate::{
    Protocol,
    rules::Rule,
    state::{Flight, Instance, Link, Phase, Source, State},
};

impl Protocol {
    pub(crate) fn simplify(&self, state: &mut State) {
        let kept = self.keeps(Rule::StampsInL2)
            && self.keeps(Rule::MissingVersionIsPresent)
            && self.keeps(Rule::Epoch);
        for redis in std::iter::once(&mut state.redis).chain(&mut state.former).chain(&mut state.snapshot) {
            // Once not valid, never again; and what would not overwrite it would not be valid either.
            redis.entry = redis.entry.filter(|entry| {
                !kept
                    || (entry.epoch == redis.epoch
                        && redis.version.is_none_or(|version| version <= entry.as_of))
            });
        }
        if state.left.failovers == 0 {
            (state.snapshot, state.left.snapshots) = (None, 0);
        }
        let mut referenced = 0_u16;
        for at in &mut state.instances {
            self.simplify_instance(at, state.left.sharing);
            referenced |= at.bus;
            if let Link::Asked(sequence) = at.link {
                referenced |= 1 << sequence;
            }
        }
        for redis in std::iter::once(&mut state.redis).chain(&mut state.former) {
            for (sequence, row) in redis.announced.iter_mut().enumerate().take(redis.sequence.into()) {
                if referenced & (1 << sequence) == 0 {
                    *row = 0;
                }
            }
        }
    }

    fn simplify_instance(&self, at: &mut Instance, sharing: bool) {
        let heard = at.heard;
        let stamps = self.keeps(Rule::StampsInL1);
        at.l1 = at.l1.filter(|entry| entry.as_of >= heard || !stamps);
        if sharing {
            return;
        }
        for flight in &mut at.flights {
            (flight.newest, flight.interest) = (false, 0);
            let fills_l1 = !self.keeps(Rule::GenerationOfLoads)
                || (flight.current && at.source != Source::Untrusted && (flight.as_of >= heard || !stamps));
            let reads_l2 = flight.epoch != 0;
            if flight.phase != Phase::None && !reads_l2 && !fills_l1 {
                *flight = Flight::NONE;
            }
            // Only counts if Redis cannot be reached, or once it is replaced by what Redis says.
            if flight.phase == Phase::Begun && at.reachable && !self.counts_without_redis() {
                flight.as_of = 0;
            }
        }
    }

    /// Whether a connection to Redis may be lost.
    fn counts_without_redis(&self) -> bool {
        self.bounds.cuts != [0, 0] || self.bounds.failovers > 0
    }
}
