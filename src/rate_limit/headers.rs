//! How limits show in answers: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), and the
//! `X-RateLimit-*` that older clients know.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};

use super::policy::{Plan, Quota, Verdict};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const X_RESOURCE: HeaderName = HeaderName::from_static("x-ratelimit-resource");

/// Adds what a verdict says to an answer.
pub fn add(headers: &mut HeaderMap, plan: &Plan, verdict: &Verdict) {
    let Some(scarcest) = verdict.quotas.iter().min_by_key(|quota| scarcity(quota)) else { return };
    let mut text = String::with_capacity(verdict.quotas.len() * 32);
    for quota in &verdict.quotas {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let (name, remaining, reset) = (quota.policy.name, quota.remaining, seconds(quota.reset));
        let _ = write!(text, "\"{name}\";r={remaining};t={reset}");
    }
    let fields = [(POLICY, HeaderValue::try_from(&*plan.header)), (RATE_LIMIT, HeaderValue::try_from(text))];
    for (name, value) in fields {
        // Names and numbers, which headers may hold.
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    headers.insert(X_LIMIT, scarcest.policy.rate.count.into());
    headers.insert(X_REMAINING, scarcest.remaining.into());
    headers.insert(X_RESET, seconds(now + scarcest.reset).into());
    headers.insert(X_RESOURCE, HeaderValue::from_static(scarcest.policy.name));
}

/// What is left, in millionths of what is allowed.
fn scarcity(quota: &Quota) -> u64 {
    u64::from(quota.remaining) * 1_000_000 / u64::from(quota.policy.rate.count.max(1))
}

/// Whole seconds, never too few.
#[must_use]
pub fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
