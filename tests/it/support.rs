//! What tests stand on: databases, instances, clients, and waiting for conditions.

pub mod client;
pub mod database;
pub mod instance;
pub mod openapi;
pub mod proxy;
pub mod redis;
pub mod stream;
pub mod world;

use std::time::{Duration, Instant};

pub use self::{
    client::{Client, Reply},
    database::TestDatabase,
    instance::{Cluster, Instance},
    stream::EventStream,
};

/// Waits until `condition` yields something.
///
/// # Panics
/// When it does not within `limit`.
pub async fn eventually<T>(what: &str, limit: Duration, condition: impl AsyncFn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A setting that `scripts/test` makes.
pub fn test_setting(name: &str) -> String {
    optional_setting(name).unwrap_or_else(|| panic!("{name} is not set: run the tests with scripts/test"))
}

/// A setting that whoever runs the tests may make.
pub fn optional_setting(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment where the stores are")]
    std::env::var(name).ok()
}

/// A name that no other test uses.
pub fn unique_name(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}
