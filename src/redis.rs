//! Connections to Redis. The only module that opens any.
//!
//! A connection's driver task lives on the runtime that opened it, so all that are shared are opened from tasks of the main
//! runtime: one opened on an Actix worker would stand still whenever that worker is busy. For the same reason
//! nothing here reconnects by itself; whoever owns a connection opens a new one.

use std::time::Duration;

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError,
    RedisResult, Script, ServerErrorKind,
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

/// A call of a script, to be given so many keys and about so many arguments and bytes of them in one piece: what [`Script`]
/// makes of a call is copied several times.
pub fn script_call(script: &Script, keys: usize, arguments: usize, bytes: usize) -> Cmd {
    let mut call = Cmd::with_capacity(3 + keys + arguments, bytes + 64);
    call.arg("EVALSHA").arg(script.get_hash()).arg(keys);
    call
}

/// Runs a call of a script, which Redis is told if it does not know it.
///
/// # Errors
/// Those of the call.
pub async fn run_script<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    script: &Script,
    call: &Cmd,
) -> RedisResult<T> {
    match call.query_async(connection).await {
        Err(err) if is_unknown_script(&err) => {
            let _: String = script.load_async(connection).await?;
            call.query_async(connection).await
        }
        outcome => outcome,
    }
}

/// Redis does not have the script yet.
pub fn is_unknown_script(err: &RedisError) -> bool {
    err.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
