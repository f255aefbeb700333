//! How limits show in answers: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10), and the
//! `X-RateLimit-*` that older clients know.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::BytesMut;

use super::policy::{Plan, Quota, Verdict};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const X_RESOURCE: HeaderName = HeaderName::from_static("x-ratelimit-resource");

/// Adds what a verdict says to an answer. Every answer has it, so the values are written into one piece of memory.
pub fn add(headers: &mut HeaderMap, plan: &Plan, verdict: &Verdict) {
    let Some(scarcest) = verdict.quotas.iter().min_by_key(|quota| scarcity(quota)) else { return };
    if let Some(policy) = &plan.header {
        headers.insert(POLICY, policy.clone());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = BytesMut::with_capacity(verdict.quotas.len() * 40 + 50);
    write_quotas(&mut text, &verdict.quotas);
    let mut insert = |name, value: BytesMut| {
        // Names and numbers, which headers may hold.
        if let Ok(value) = HeaderValue::from_maybe_shared(value.freeze()) {
            headers.insert(name, value);
        }
    };
    insert(RATE_LIMIT, text.split());
    let numbers = [
        (X_LIMIT, scarcest.policy.rate.count.into()),
        (X_REMAINING, scarcest.remaining.into()),
        (X_RESET, seconds(now + scarcest.reset)),
    ];
    for (name, number) in numbers {
        text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        insert(name, text.split());
    }
    headers.insert(X_RESOURCE, HeaderValue::from_static(scarcest.policy.name));
}

/// `"burst";r=59;t=60, "sustained";r=999;t=3600`.
fn write_quotas(text: &mut BytesMut, quotas: &[Quota]) {
    let mut digits = itoa::Buffer::new();
    for (index, quota) in quotas.iter().enumerate() {
        text.extend_from_slice(if index > 0 { b", \"" } else { b"\"" });
        text.extend_from_slice(quota.policy.name.as_bytes());
        text.extend_from_slice(b"\";r=");
        text.extend_from_slice(digits.format(quota.remaining).as_bytes());
        text.extend_from_slice(b";t=");
        text.extend_from_slice(digits.format(seconds(quota.reset)).as_bytes());
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Rate,
        rate_limit::policy::{Log, Policy},
    };

    #[test]
    fn the_headers_read_as_the_draft_says_and_older_clients_see_what_is_scarcest() {
        let policy =
            |name, count, window| Policy { name, rate: Rate { count, window: Duration::from_secs(window) } };
        let policies = vec![policy("burst", 60, 60), policy("sustained", 1000, 3600)];
        let logs = [Log::new("", policies.clone())];
        let left = [(59, 59_001), (0, 3_600_000)];
        let quotas = policies.iter().zip(left).map(|(policy, (remaining, reset))| Quota {
            policy: *policy,
            remaining,
            reset: Duration::from_millis(reset),
        });
        let verdict = Verdict { quotas: quotas.collect(), ..Verdict::unlimited() };
        let mut headers = HeaderMap::new();
        add(&mut headers, &Plan::new(&logs, &[0]), &verdict);
        let text = |name| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(text("ratelimit-policy"), r#""burst";q=60;w=60, "sustained";q=1000;w=3600"#);
        assert_eq!(text("ratelimit"), r#""burst";r=59;t=60, "sustained";r=0;t=3600"#);
        assert_eq!(text("x-ratelimit-limit"), "1000");
        assert_eq!(text("x-ratelimit-remaining"), "0");
        assert_eq!(text("x-ratelimit-resource"), "sustained");
        assert!(text("x-ratelimit-reset").parse::<u64>().unwrap() > 1_700_000_000);
    }

    #[test]
    fn without_limits_there_are_no_headers() {
        let mut headers = HeaderMap::new();
        add(&mut headers, &Plan::new(&[], &[]), &Verdict::unlimited());
        assert!(headers.is_empty());
    }
}
