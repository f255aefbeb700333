//! The process's numbers, for Prometheus. Labels are bounded: routes, kinds and codes, never ids.

pub mod busy;

use std::{cell::RefCell, rc::Rc, time::Duration};

use actix_web::http::Method;
use prometheus::{Encoder, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry, Result, TextEncoder};

use self::busy::{BusyCounter, BusyCounterVec, BusyHistogram, BusyHistogramVec};

/// A URL as it is mounted in one worker, and its numbers, looked up once for each method and status.
#[derive(Debug, Clone)]
pub struct Route(Rc<Mounted>);

#[derive(Debug)]
struct Mounted {
    pattern: Box<str>,
    seen: RefCell<Vec<(Method, u16, BusyHistogram)>>,
}

impl Route {
    #[must_use]
    pub fn new(pattern: impl Into<Box<str>>) -> Self {
        Self(Rc::new(Mounted { pattern: pattern.into(), seen: RefCell::default() }))
    }

    /// The pattern, never the path: there are as many paths as ids.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.0.pattern
    }
}

/// The registry, and what the HTTP side counts.
pub struct Metrics {
    registry: Registry,
    requests: BusyHistogramVec,
    repeats: BusyCounter,
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
        let requests = BusyHistogramVec::new(
            HistogramOpts::new("http_server_request_duration_seconds", "How long requests took.").buckets(
                vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            ),
            &["http_request_method", "http_route", "http_response_status_code"],
        )?;
        let repeats = BusyCounterVec::new(
            Opts::new(
                "http_server_repeats_total",
                "Requests that were answered from what L1 had given for one like them, and still would.",
            ),
            &[],
        )?;
        let connections =
            IntGaugeVec::new(Opts::new("lockstep_db_pool_connections", "Database connections."), &["state"])?;
        let sign_in_failures = IntCounterVec::new(
            Opts::new("lockstep_auth_failures_total", "Requests refused for want of a valid sign-in."),
            &["reason"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(repeats.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(sign_in_failures.clone()))?;
        let repeats = repeats.with_label_values(&[]);
        Ok(Self { registry, requests, repeats, connections, sign_in_failures })
    }

    /// Where other modules register their numbers.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts a request that did not get as far as to its URL, or to none that there is.
    pub fn refused(&self, method: &Method, pattern: &str, status: u16, elapsed: Duration) {
        let mut digits = [0; 5];
        let labels = [label(method), pattern, write_status(status, &mut digits)];
        self.requests.observe(&labels, elapsed.as_secs_f64());
    }

    /// Counts a request to a URL.
    pub fn request(&self, method: &Method, route: &Route, status: u16, elapsed: Duration) {
        if !is_known(method.as_str()) {
            // They have one label, and are seldom.
            return self.refused(method, route.pattern(), status, elapsed);
        }
        let elapsed = elapsed.as_secs_f64();
        let mut seen = route.0.seen.borrow_mut();
        if let Some((.., known)) = seen.iter().find(|(m, s, _)| *s == status && m == method) {
            return known.observe(elapsed);
        }
        let part = self.requests.part(&[label(method), route.pattern(), write_status(status, &mut [0; 5])]);
        part.observe(elapsed);
        seen.push((method.clone(), status, part));
    }

    /// Counts a request that was answered like the one before it.
    pub fn repeated(&self) {
        self.repeats.inc();
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

/// Methods are free text on the wire.
fn label(method: &Method) -> &str {
    Some(method.as_str()).filter(|method| is_known(method)).unwrap_or("_OTHER")
}

fn is_known(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_under_the_pattern_their_method_and_their_status() {
        let (metrics, route) = (Metrics::new("test").unwrap(), Route::new("/v1/things/{thing}"));
        let other = Method::from_bytes(b"BREW").unwrap();
        for (method, status) in [(&Method::GET, 200), (&Method::GET, 200), (&Method::GET, 404), (&other, 405)]
        {
            metrics.request(method, &route, status, Duration::from_millis(3));
        }
        metrics.refused(&Method::POST, "none", 404, Duration::ZERO);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        let count = |method, route, status| {
            let labels = format!(
                "{{http_request_method=\"{method}\",http_response_status_code=\"{status}\",http_route=\"{route}\"}} "
            );
            let line = format!("http_server_request_duration_seconds_count{labels}");
            text.lines().find_map(|found| found.strip_prefix(&line)).unwrap_or("0").to_owned()
        };
        assert_eq!(count("GET", "/v1/things/{thing}", 200), "2");
        assert_eq!(count("GET", "/v1/things/{thing}", 404), "1");
        assert_eq!(count("_OTHER", "/v1/things/{thing}", 405), "1");
        assert_eq!(count("POST", "none", 404), "1");
    }
}
