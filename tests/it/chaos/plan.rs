//! Which faults, in which order, how long. The environment may say; `scripts/chaos` does.

use std::{
    fmt,
    time::{Duration, Instant},
};

use rand::{rngs::StdRng, seq::SliceRandom as _};

use super::fault::Fault;
use crate::support::optional_setting;

/// What is to be run.
pub struct Plan {
    pub seed: u64,
    /// How long things stay wrong.
    pub hold: Duration,
    faults: Vec<Fault>,
    limit: Limit,
}

enum Limit {
    Rounds(u64),
    Until(Instant),
}

/// How long things stay wrong unless somebody says otherwise.
const HOLD: Duration = Duration::from_secs(2);

impl Plan {
    /// Every fault once, in order; or what `TEST_CHAOS_FAULT`, `TEST_CHAOS_ROUNDS`, `TEST_CHAOS_MINUTES`,
    /// `TEST_CHAOS_SECONDS` and `TEST_SEED` say.
    pub fn from_environment() -> Self {
        let number = |name: &str| {
            let parse = |text: String| -> u64 {
                text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
            };
            optional_setting(name).map(parse)
        };
        let faults = match optional_setting("TEST_CHAOS_FAULT") {
            None => Fault::ALL.to_vec(),
            Some(name) => {
                let named = Fault::ALL.iter().copied().find(|fault| fault.name() == name);
                let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
                vec![named.unwrap_or_else(|| panic!("there is no {name}, but {}", names.join(", ")))]
            }
        };
        let limit = match (number("TEST_CHAOS_MINUTES"), number("TEST_CHAOS_ROUNDS")) {
            (Some(minutes), _) => Limit::Until(Instant::now() + Duration::from_secs(60 * minutes)),
            (None, rounds) => Limit::Rounds(rounds.unwrap_or(1)),
        };
        Self {
            seed: number("TEST_SEED").unwrap_or_else(rand::random),
            hold: number("TEST_CHAOS_SECONDS").map_or(HOLD, Duration::from_secs),
            faults,
            limit,
        }
    }

    /// The faults of a round: the first time in order, then in any. `None`: it is over.
    pub fn round(&self, round: u64, rng: &mut StdRng) -> Option<Vec<Fault>> {
        let goes_on = match self.limit {
            Limit::Rounds(rounds) => round < rounds,
            Limit::Until(end) => Instant::now() < end,
        };
        let mut faults = self.faults.clone();
        if round > 0 {
            faults.shuffle(rng);
        }
        goes_on.then_some(faults)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, each fault lasts about {:?}", self.seed, self.hold)
    }
}
