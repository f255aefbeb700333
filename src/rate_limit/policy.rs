//! What is counted, and what came of it.

use std::time::Duration;

use actix_web::http::header::HeaderValue;
use sha2::{Digest, Sha256};

use super::subject::most_leased;
use crate::{config::Rate, hex::hex, sharded::lasting_header};

/// A limit with its name, as callers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub name: &'static str,
    pub rate: Rate,
}

impl Policy {
    pub(super) fn window_ms(&self) -> u64 {
        u64::try_from(self.rate.window.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The admitted requests of a subject that several policies count alike.
#[derive(Debug)]
pub struct Log {
    pub(super) suffix: &'static str,
    pub(super) policies: Vec<Policy>,
    /// Names the policies in keys: limits are settings, and the layout depends on them.
    pub(super) layout: String,
}

impl Log {
    /// A log that these policies judge.
    #[must_use]
    pub fn new(suffix: &'static str, policies: Vec<Policy>) -> Self {
        let mut digest = Sha256::new();
        for policy in &policies {
            digest.update(format!("{}/{};", policy.rate.count, policy.window_ms()));
        }
        let layout = hex(digest.finalize().get(..4).unwrap_or_default());
        Self { suffix, policies, layout }
    }

    /// Stamps that the log has to remember.
    pub(super) fn capacity(&self) -> u32 {
        self.policies.iter().map(|policy| policy.rate.count).max().unwrap_or_default()
    }

    pub(super) fn longest_window_ms(&self) -> u64 {
        self.policies.iter().map(Policy::window_ms).max().unwrap_or_default()
    }
}

/// The logs that a kind of request is charged to, all or none; those without policies are left out.
#[derive(Debug)]
pub struct Plan {
    /// Indexes of logs.
    pub(super) logs: Vec<usize>,
    /// All policies, in the order of their logs.
    pub(super) policies: Vec<Policy>,
    /// For the header `RateLimit-Policy`. Names and numbers, which headers may hold.
    pub(super) header: Option<HeaderValue>,
    /// Requests that may be granted ahead at once.
    pub(super) most_leased: u32,
}

impl Plan {
    pub(super) fn new(logs: &[Log], indexes: &[usize]) -> Self {
        let known = indexes.iter().filter_map(|index| Some((*index, logs.get(*index)?)));
        let used: Vec<_> = known.filter(|(_, log)| !log.policies.is_empty()).collect();
        let policies: Vec<_> = used.iter().flat_map(|(_, log)| log.policies.iter().copied()).collect();
        let words = policies
            .iter()
            .map(|Policy { name, rate }| format!("\"{name}\";q={};w={}", rate.count, rate.window.as_secs()));
        let header = lasting_header(&words.collect::<Vec<_>>().join(", ")).ok();
        let most_leased =
            most_leased(policies.iter().map(|policy| policy.rate.count).min().unwrap_or_default());
        Self { logs: used.into_iter().map(|(index, _)| index).collect(), policies, header, most_leased }
    }
}

/// What is left of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    pub policy: Policy,
    /// Requests that would pass now.
    pub remaining: u32,
    /// Until there is more; zero if all of it is there.
    pub reset: Duration,
}

/// Whether a request passes.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub granted: bool,
    /// If not: until the next one would.
    pub retry: Duration,
    /// Of all policies that apply.
    pub quotas: Vec<Quota>,
    /// The stamps of a grant in Redis, by which it can be taken back; empty if it was granted elsewhere.
    pub(super) stamps: Vec<i64>,
}

impl Verdict {
    /// Nothing is limited.
    pub(super) const fn unlimited() -> Self {
        Self { granted: true, retry: Duration::ZERO, quotas: Vec::new(), stamps: Vec::new() }
    }

    /// The policies that are used up, the one that lasts longest first.
    #[must_use]
    pub fn violated(&self) -> Vec<Quota> {
        let mut used_up: Vec<_> = self.quotas.iter().filter(|quota| quota.remaining == 0).copied().collect();
        used_up.sort_by_key(|quota| std::cmp::Reverse(quota.reset));
        used_up
    }
}
