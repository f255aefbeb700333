//! `RATE_LIMIT_IP`: a guard against floods, per process and client address, before authentication costs anything.
//!
//! The only user of `actix-governor` (GCRA). It counts whole IPv4 addresses and /64 networks of IPv6, which is what one
//! subscriber has. It is no quota: that is what limits per user are for. Its memory is bounded by the rate at which new
//! addresses arrive: see [`FloodGuard::forget_idle`].

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use actix_governor::{
    GovernorConfigBuilder, KeyExtractor,
    governor::{
        RateLimiter,
        clock::{Clock as _, DefaultClock, QuantaInstant},
        middleware::NoOpMiddleware,
        state::keyed::DefaultKeyedStateStore,
    },
};
use actix_web::dev::ServiceRequest;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::{config::Rate, error::AppError, http::client_address::client_address};

/// Of the requests that a window allows, the part that may come at once.
const BURST_PART: u32 = 6;
/// How often idle addresses are forgotten; sooner when there are many.
const FORGET_EVERY: Duration = Duration::from_secs(30);
const FORGET_MANY_EVERY: Duration = Duration::from_secs(5);
const MANY: usize = 10_000;

type Counts =
    RateLimiter<IpAddr, DefaultKeyedStateStore<IpAddr>, DefaultClock, NoOpMiddleware<QuantaInstant>>;

/// The guard of one process: shared by its workers.
pub struct FloodGuard {
    rate: Rate,
    by: ByAddress,
    counts: Arc<Counts>,
}

impl FloodGuard {
    /// A guard that lets `rate` through. `None`: the rate cannot be kept, which no setting leads to.
    #[must_use]
    pub fn new(rate: Rate, trusted_proxies: &[IpNet]) -> Option<Self> {
        let by = ByAddress { trusted_proxies: trusted_proxies.into() };
        let config = GovernorConfigBuilder::default()
            .period(rate.window / rate.count)
            .burst_size((rate.count / BURST_PART).max(1))
            .key_extractor(by.clone())
            .finish()?;
        Some(Self { rate, by, counts: config.limiter() })
    }

    /// Counts a request.
    ///
    /// # Errors
    /// The refusal, if its client has sent too many.
    pub fn charge(&self, request: &ServiceRequest) -> Result<(), AppError> {
        let Ok(client) = self.by.extract(request);
        self.counts.check_key(&client).map_err(|refused| {
            let wait = refused.wait_time_from(self.counts.clock().now());
            AppError::RateLimited { policy: "ip", rate: self.rate, wait, violated: vec!["ip"] }
        })
    }

    /// Forgets addresses that have not been seen for a while, until stopped; nothing else would.
    pub async fn forget_idle(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = if self.counts.len() > MANY { FORGET_MANY_EVERY } else { FORGET_EVERY };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            self.counts.retain_recent();
            self.counts.shrink_to_fit();
        }
    }
}

/// Whom a request counts for.
#[derive(Clone)]
struct ByAddress {
    trusted_proxies: Arc<[IpNet]>,
}

impl KeyExtractor for ByAddress {
    type Key = IpAddr;
    type KeyExtractionError = std::convert::Infallible;

    fn extract(&self, request: &ServiceRequest) -> Result<IpAddr, Self::KeyExtractionError> {
        let peer = request.peer_addr().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip());
        Ok(network(client_address(peer, request.headers(), &self.trusted_proxies)))
    }
}

/// What one subscriber has: an IPv4 address, or a /64 of IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_subscriber_count_as_one() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
