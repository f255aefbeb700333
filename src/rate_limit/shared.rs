//! The log in Redis that all instances share: one script, one round trip.
//!
//! It has a connection of its own, and gives it up when calls fail: while there is none, nobody waits.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{RedisError, Script, aio::MultiplexedConnection};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::policy::Log;
use crate::{
    redis::{Redis, run_script, script_call},
    telemetry::Chain,
};

static LIMITER: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/limiter.lua")));
static REFUND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/refund.lua")));

/// Calls that may time out one after another before the connection is given up.
const TIMEOUTS: u32 = 3;
/// Pauses between attempts to connect.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// The connection, when there is one.
pub struct Shared {
    redis: Redis,
    namespace: String,
    connection: ArcSwapOption<MultiplexedConnection>,
    broken: Notify,
    /// Calls that timed out one after another.
    slow: AtomicU32,
}

/// What the script has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Requests that pass, at most as many as were asked for.
    pub granted: u32,
    /// If they are fewer: until there is room again, in milliseconds.
    pub retry_ms: u64,
    /// The stamp that each log got; 0 if nothing was granted.
    pub stamps: Vec<i64>,
    /// For each policy of each log: what is left, and milliseconds until its oldest stamp leaves.
    pub left: Vec<(u32, u64)>,
}

/// A call could not be made, or its answer did not come.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    #[error("there is no connection to Redis")]
    Disconnected,
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the script's answer cannot be read")]
    Unreadable,
}

impl Shared {
    /// A log that is not connected yet.
    #[must_use]
    pub fn new(redis: Redis, namespace: &str) -> Arc<Self> {
        let (connection, broken, slow) = (ArcSwapOption::empty(), Notify::new(), AtomicU32::new(0));
        Arc::new(Self { redis, namespace: namespace.to_owned(), connection, broken, slow })
    }

    /// Keeps a connection until stopped. To be run on the main runtime.
    pub async fn keep_connected(self: Arc<Self>, stop: CancellationToken) {
        let mut retry = FIRST_RETRY;
        loop {
            let connected = stop.run_until_cancelled(self.connect()).await;
            match connected {
                None => return,
                Some(Ok(connection)) => {
                    retry = FIRST_RETRY;
                    self.slow.store(0, Ordering::Relaxed);
                    self.connection.store(Some(Arc::new(connection)));
                    let broken = stop.run_until_cancelled(self.broken.notified()).await;
                    self.connection.store(None);
                    if broken.is_none() {
                        return;
                    }
                }
                Some(Err(err)) => {
                    log::debug!("error.chain":% = Chain(&err); "limits have no connection to Redis");
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(retry)).await.is_none() {
                return;
            }
            retry = (retry * 2).min(LONGEST_RETRY);
        }
    }

    /// A connection that answers: one that hangs would be given up again at once, at the cost of those who wait.
    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.redis.connect().await?;
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    }

    /// Whether it is worth asking.
    pub fn is_connected(&self) -> bool {
        self.connection.load().is_some()
    }

    /// Asks for `want` requests of a subject, to be used within `lease`.
    ///
    /// # Errors
    /// When there is no connection, or no answer in time. The requests may have been charged.
    pub async fn acquire(
        &self,
        logs: &[&Log],
        subject: &str,
        want: u32,
        lease: Duration,
    ) -> Result<Reply, SharedError> {
        self.acquire_at(logs, subject, want, lease, None).await
    }

    /// The same at a time that is given, for tests, in milliseconds.
    ///
    /// # Errors
    /// The same.
    pub async fn acquire_at(
        &self,
        logs: &[&Log],
        subject: &str,
        want: u32,
        lease: Duration,
        now_ms: Option<u64>,
    ) -> Result<Reply, SharedError> {
        let mut call = script_call(&LIMITER, logs.len(), 4 + 8 * logs.len(), 512);
        for log in logs {
            call.arg(self.key(log, subject));
        }
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        call.arg(want)
            .arg(lease_ms)
            .arg(now_ms.map(|now| now.to_string()).unwrap_or_default())
            .arg(logs.len());
        for log in logs {
            call.arg(log.capacity()).arg(log.policies.len());
            for policy in &log.policies {
                call.arg(policy.rate.count).arg(policy.window_ms());
            }
        }
        let mut connection = self.connection()?;
        let reply: Vec<u8> = self.noting(run_script(&mut connection, &LIMITER, &call).await)?;
        Reply::read(&reply, logs).ok_or(SharedError::Unreadable)
    }

    /// Gives back requests that were granted with these stamps and can no longer be used. At most once for each.
    ///
    /// # Errors
    /// The same. What may have been lost must not be given back again.
    pub async fn refund(
        &self,
        logs: &[&Log],
        subject: &str,
        count: u32,
        stamps: &[i64],
    ) -> Result<Vec<u32>, SharedError> {
        let mut call = REFUND.prepare_invoke();
        call.arg(count);
        for (log, stamp) in logs.iter().zip(stamps) {
            call.key(self.key(log, subject)).arg(*stamp).arg(log.capacity()).arg(log.policies.len());
        }
        let mut connection = self.connection()?;
        self.noting(call.invoke_async(&mut connection).await)
    }

    fn key(&self, log: &Log, subject: &str) -> String {
        [&self.namespace, ":rl:", &log.layout, ":{", subject, "}", log.suffix].concat()
    }

    fn connection(&self) -> Result<MultiplexedConnection, SharedError> {
        Ok(self.connection.load().as_deref().ok_or(SharedError::Disconnected)?.clone())
    }

    /// A connection that fails is given up, so that only those wait who were under way. One slow answer may be an accident.
    fn noting<T>(&self, outcome: Result<T, RedisError>) -> Result<T, SharedError> {
        let slow = match &outcome {
            Ok(_) => {
                self.slow.store(0, Ordering::Relaxed);
                return Ok(outcome?);
            }
            Err(err) if err.is_timeout() => self.slow.fetch_add(1, Ordering::Relaxed) + 1,
            Err(_) => TIMEOUTS,
        };
        if slow >= TIMEOUTS {
            self.connection.store(None);
            self.broken.notify_one();
        }
        Ok(outcome?)
    }
}

impl Reply {
    fn read(text: &[u8], logs: &[&Log]) -> Option<Self> {
        let mut words = text.split(|byte| *byte == b' ').map_while(number);
        let granted = u32::try_from(words.next()?).ok()?;
        let retry_ms = u64::try_from(words.next()?).ok()?;
        let _now = words.next()?;
        let (mut stamps, mut left) = (Vec::with_capacity(logs.len()), Vec::new());
        for log in logs {
            stamps.push(words.next()?);
            for _ in &log.policies {
                let remaining = u32::try_from(words.next()?.max(0)).ok()?;
                left.push((remaining, u64::try_from(words.next()?).ok()?));
            }
        }
        Some(Self { granted, retry_ms, stamps, left })
    }
}

fn number(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
