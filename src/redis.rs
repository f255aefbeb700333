//! Connections to Redis. The only module that opens any.
//!
//! A connection's driver task lives on the runtime that opened it, so all that are shared are opened from tasks of the main
//! runtime: one opened on an Actix worker would stand still whenever that worker is busy. For the same reason
//! nothing here reconnects by itself; whoever owns a connection opens a new one.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult,
    aio::{MultiplexedConnection, PubSub},
};

/// Where Redis is, and how long a call may take.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    timeout: Duration,
}

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

impl Redis {
    /// Checks the URL; connects to nothing yet.
    ///
    /// # Errors
    /// When the URL is not one of Redis.
    pub fn new(url: &str, timeout: Duration) -> RedisResult<Self> {
        #[expect(clippy::disallowed_methods, reason = "this is the module that opens Redis")]
        let client = Client::open(url.into_connection_info()?)?;
        Ok(Self { client, timeout })
    }

    /// How long a call may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A connection for commands that many callers share. To be called on the main runtime.
    ///
    /// # Errors
    /// When Redis cannot be reached in time.
    pub async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.open(Some(self.timeout)).await
    }

    /// A connection for commands of a single thread, to be called on its runtime. Whoever uses it bounds the time that a
    /// call may take, and has to tell a Redis that is slow from a thread that is busy.
    ///
    /// # Errors
    /// When Redis cannot be reached in time.
    pub async fn connect_here(&self) -> RedisResult<MultiplexedConnection> {
        self.open(None).await
    }

    async fn open(&self, response_timeout: Option<Duration>) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(response_timeout);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// A connection that listens. To be called on the main runtime.
    ///
    /// # Errors
    /// When Redis cannot be reached in time.
    pub async fn listen(&self, channel: &str) -> RedisResult<PubSub> {
        let subscribed = async {
            let mut pubsub = self.client.get_async_pubsub().await?;
            pubsub.subscribe(channel).await?;
            Ok(pubsub)
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, subscribed).await {
            Ok(result) => result,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}
