//! The process's numbers, for Prometheus. Labels are bounded: routes, kinds and codes, never ids.

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, Result, TextEncoder,
};

/// The registry, and what the HTTP side counts.
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    connections: IntGaugeVec,
    sign_in_failures: IntCounterVec,
}

impl Metrics {
    /// The numbers of an instance, which none has been counted for yet.
    ///
    /// # Errors
    /// Never in practice: the names are distinct.
    pub fn new(instance: &str) -> Result<Self> {
        let registry = Registry::new();
        let about = Opts::new("lockstep_instance_info", "Which instance this is, and of which version.");
        let about = IntGaugeVec::new(about, &["instance", "version"])?;
        about.with_label_values(&[instance, env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(about))?;
        let requests = HistogramVec::new(
            HistogramOpts::new("http_server_request_duration_seconds", "How long requests took.").buckets(
                vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            ),
            &["http_request_method", "http_route", "http_response_status_code"],
        )?;
        let connections =
            IntGaugeVec::new(Opts::new("lockstep_db_pool_connections", "Database connections."), &["state"])?;
        let sign_in_failures = IntCounterVec::new(
            Opts::new("lockstep_auth_failures_total", "Requests refused for want of a valid sign-in."),
            &["reason"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(sign_in_failures.clone()))?;
        Ok(Self { registry, requests, connections, sign_in_failures })
    }

    /// Where other modules register their numbers.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request.
    pub fn request(&self, method: &str, route: &str, status: u16, elapsed: Duration) {
        // Methods are free text on the wire.
        let method = match method {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "_OTHER",
        };
        let mut digits = [0; 5];
        let status = write_status(status, &mut digits);
        self.requests.with_label_values(&[method, route, status]).observe(elapsed.as_secs_f64());
    }

    /// Counts a refusal.
    pub fn sign_in_failed(&self, reason: &str) {
        self.sign_in_failures.with_label_values(&[reason]).inc();
    }

    /// Sets the state of the pools: connections open, and idle among them.
    pub fn set_connections(&self, open: usize, idle: usize) {
        for (state, count) in [("idle", idle), ("used", open.saturating_sub(idle))] {
            self.connections.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Everything, in the text format of Prometheus.
    ///
    /// # Errors
    /// When a number cannot be written, which would be a bug.
    pub fn render(&self) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// A status code as text, without allocating.
fn write_status(status: u16, digits: &mut [u8; 5]) -> &str {
    let mut rest = status;
    let mut start = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        start -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    digits.get(start..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("0")
}
