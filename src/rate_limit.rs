//! Limits on how much one caller may ask, over all instances.
//!
//! | limit | whom it counts | where |
//! |---|---|---|
//! | `RATE_LIMIT_IP` | a client address, before authentication | in each process: [`flood_guard`] |
//! | `RATE_LIMIT_BURST`, `_SUSTAINED` | a user, on everything under `/v1` | [`limiter`] |
//! | `RATE_LIMIT_MESSAGE` | a user, on sending messages, in addition | [`limiter`] |
//! | `RATE_LIMIT_LOGIN` | an account, and a client address, on signing in | [`limiter`] |
//!
//! **Invariant.** In any window of a policy no more requests pass than it allows, on all instances together, however they
//! interleave: a log in Redis decides, in one script, for all policies or for none. While Redis is away each instance
//! admits its share, `N / MAX_INSTANCES`, by a log of its own. A refused request is charged to nothing.

pub mod flood_guard;
pub mod headers;
pub mod limiter;
pub mod numbers;
mod pending;
pub mod policy;
pub mod shared;
mod subject;
mod subjects;
mod window;

use std::{net::IpAddr, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use prometheus::Registry;
use sha2::Sha256;
use tokio::runtime::Handle;
use uuid::Uuid;

use self::{
    limiter::Rules,
    numbers::Numbers,
    policy::{Log, Policy},
    shared::Shared,
};
pub use self::{
    limiter::{Limiter, Meter},
    pending::Pending,
    policy::{Plan, Quota, Verdict},
};
use crate::{
    config::{Rate, RateLimitConfig},
    domain::id::UserId,
    error::AppError,
};

/// What a request is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Anything.
    Request,
    /// Sending a message: counts as a request too.
    Message,
    /// Nothing.
    Free,
}

impl Charge {
    /// What is free is judged by none, and shown by that of requests.
    const fn plan(self) -> usize {
        match self {
            Self::Request | Self::Free => REQUEST,
            Self::Message => MESSAGE,
        }
    }
}

/// All limits that count over all instances.
pub struct Limits {
    users: Arc<Limiter>,
    accounts: Arc<Limiter>,
    addresses: Arc<Limiter>,
    /// E-mail addresses and client addresses are not to be read in Redis.
    key: [u8; 32],
}

/// Attempts to sign in from one client address: more than a person needs, fewer than a guesser wants.
const ADDRESS_BURST: Rate = Rate { count: 20, window: std::time::Duration::from_secs(60) };
const ADDRESS_SUSTAINED: Rate = Rate { count: 100, window: std::time::Duration::from_secs(3600) };

const REQUEST: usize = 0;
const MESSAGE: usize = 1;

impl Limits {
    /// The limits of the settings. `shared`: the log in Redis; without it each process counts by itself. `instances`: the
    /// most that run at once.
    ///
    /// # Errors
    /// When its metrics are in the registry already.
    pub fn new(
        config: &RateLimitConfig,
        shared: Option<&Arc<Shared>>,
        instances: u32,
        key: [u8; 32],
        main: &Handle,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let numbers = Numbers::register(registry)?;
        let policies = |all: &[(&'static str, Option<Rate>)]| -> Vec<Policy> {
            all.iter().filter_map(|(name, rate)| rate.map(|rate| Policy { name, rate })).collect()
        };
        let limiter = |rules| Limiter::new(rules, shared.cloned(), instances, main.clone(), &numbers);
        let of_user = Log::new("", policies(&[("burst", config.burst), ("sustained", config.sustained)]));
        let of_messages = Log::new(":msg", policies(&[("message", config.message)]));
        let of_account = Log::new("", policies(&[("login", config.login)]));
        // Off together with the limit per account.
        let address = |rate| config.login.map(|_| rate);
        let of_address = policies(&[
            ("login_address_burst", address(ADDRESS_BURST)),
            ("login_address_sustained", address(ADDRESS_SUSTAINED)),
        ]);
        let of_address = Log::new("", of_address);
        let logs = vec![of_user, of_messages];
        let plans = vec![Plan::new(&logs, &[0]), Plan::new(&logs, &[0, 1])];
        let users =
            Rules { kind: "u", name: |id| Uuid::from_u128(id).to_string(), logs, plans, is_remembered: true };
        Ok(Self {
            users: limiter(users),
            accounts: limiter(Rules::simple("login", of_account)),
            addresses: limiter(Rules::simple("addr", of_address)),
            key,
        })
    }

    /// Charges a user. The answer may still be on its way.
    #[must_use]
    pub fn charge(&self, user: UserId, charge: Charge) -> Option<Pending> {
        (charge != Charge::Free).then(|| self.users.charge(user.as_uuid().as_u128(), charge.plan()))
    }

    /// What a user may ask, for whoever wants to know before he charges it. `None`: it is free, or nothing limits it.
    #[must_use]
    pub fn meter(&self, user: UserId, charge: Charge) -> Option<Meter<'_>> {
        if charge == Charge::Free {
            return None;
        }
        self.users.meter(user.as_uuid().as_u128(), charge.plan())
    }

    /// Where a user stands, free of charge.
    pub async fn look(&self, user: UserId) -> Verdict {
        self.users.look(user.as_uuid().as_u128(), MESSAGE).await
    }

    /// The plan by which a charge is judged.
    #[must_use]
    pub fn plan(&self, charge: Charge) -> &Plan {
        self.users.plan(charge.plan())
    }

    /// Charges an attempt to prove who one is to the address that it comes from.
    ///
    /// # Errors
    /// The refusal, if the address has failed too often.
    pub async fn charge_address(&self, address: IpAddr) -> Result<Attempt, AppError> {
        let subject = self.hidden(&[flood_guard::network(address).to_string().as_bytes()]);
        Attempt::new(&self.addresses, subject).await
    }

    /// Charges an attempt to sign in to an account. Attempts from an address from which its owner has signed in before are
    /// counted apart, so that strangers cannot lock the owner out.
    ///
    /// # Errors
    /// The refusal, if there were too many.
    pub async fn charge_account(
        &self,
        email: &str,
        known_address: Option<&[u8]>,
    ) -> Result<Attempt, AppError> {
        let subject = self.hidden(&[email.as_bytes(), known_address.unwrap_or_default()]);
        Attempt::new(&self.accounts, subject).await
    }

    /// Charges an attempt to name a user's password, by somebody who is signed in as that user.
    ///
    /// # Errors
    /// The refusal, if there were too many.
    pub async fn charge_password(&self, user: UserId) -> Result<Attempt, AppError> {
        Attempt::new(&self.accounts, self.hidden(&[b"password", user.as_uuid().as_bytes()])).await
    }

    /// A client address in a form that says nothing, to recognise it by.
    #[must_use]
    pub fn address_digest(&self, address: IpAddr) -> Vec<u8> {
        self.mac(&[b"address", flood_guard::network(address).to_string().as_bytes()])
    }

    fn hidden(&self, parts: &[&[u8]]) -> u128 {
        self.mac(parts).iter().take(16).fold(0, |digest, byte| digest << 8 | u128::from(*byte))
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    fn mac(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of 32 bytes");
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().to_vec()
    }
}

/// An attempt to prove who one is, which was charged before it was looked at.
pub struct Attempt {
    limiter: Arc<Limiter>,
    subject: u128,
    verdict: Verdict,
}

impl Attempt {
    async fn new(limiter: &Arc<Limiter>, subject: u128) -> Result<Self, AppError> {
        let verdict = limiter.charge(subject, 0).await;
        match verdict.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(Self { limiter: Arc::clone(limiter), subject, verdict }),
        }
    }

    /// Takes the charge back unless the attempt was looked at and was wrong.
    pub fn settle<T>(self, outcome: &Result<T, AppError>) {
        let is_guess = match outcome {
            Ok(_) => false,
            Err(err) => !matches!(
                err,
                AppError::Unavailable(_) | AppError::Internal(_) | AppError::RateLimited { .. }
            ),
        };
        if !is_guess {
            self.limiter.refund(self.subject, 0, self.verdict);
        }
    }
}
