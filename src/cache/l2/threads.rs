//! Threads that read for themselves: each has a connection of its own beside that of its link, on its own runtime. Over the
//! link's, whose task runs on another thread, each read would wake that thread, and that thread the reader.
//!
//! **Invariant.** It leads to the same life of the data as the link: that is found out when it is opened, and by each script.
//! What goes wrong with it counts as if it had with the link's.
//!
//! A thread that was held up must not take Redis for slow, so what has come meanwhile is looked at before a call counts as
//! unanswered.

use std::{
    io,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt as _;
use redis::{Cmd, RedisResult, aio::MultiplexedConnection};
use tokio::{runtime::Handle, time::timeout};

use super::{
    Link, LinkError,
    entries::{AT_ONCE, Answer},
    identify,
    together::Together,
};
use crate::{redis::Redis, sharded::PerThread, telemetry::Chain};

/// The connections of threads.
pub(super) type Own = PerThread<OnceLock<MultiplexedConnection>>;

/// Single reads, over the connection of the thread that asks, or over this one. An error of one is none of the others.
pub(super) fn reads(shared: &MultiplexedConnection, own: Arc<Own>, limit: Duration) -> Together<Answer> {
    let shared = shared.clone();
    Together::new(AT_ONCE, move |calls: Vec<Cmd>| {
        let (mut connection, mut pipe) = (own.mine().get().unwrap_or(&shared).clone(), redis::pipe());
        for call in calls {
            pipe.add_command(call);
        }
        in_time(limit, async move { pipe.ignore_errors().query_async(&mut connection).await }).boxed()
    })
}

impl Link {
    /// Opens a connection for the thread whose runtime this is. Until it is open, and if it cannot be opened, the thread
    /// reads over that of the link.
    pub(in crate::cache) fn open_for(self: &Arc<Self>, thread: &Handle, redis: &Redis) {
        let (link, redis) = (Arc::downgrade(self), redis.clone());
        thread.spawn(async move {
            let opened = redis.connect_here().await;
            let Some(link) = link.upgrade() else { return };
            let added = match opened {
                Ok(connection) => link.add(connection).await,
                Err(err) => Err(err.into()),
            };
            if let Err(err) = added {
                log::warn!("error.chain":% = Chain(&err); "a thread has no connection to Redis of its own");
            }
        });
    }

    async fn add(&self, mut connection: MultiplexedConnection) -> Result<(), LinkError> {
        let identity = in_time(self.timeout.max(super::PATIENCE), identify(&mut connection, &self.names));
        let (_, epoch) = identity.await?;
        if epoch != self.epoch {
            return Err(self.other_epoch());
        }
        // Another thread of the same lane may have had its own earlier; that will do for both.
        let _ = self.own.mine().set(connection);
        Ok(())
    }
}

/// Bounds a call, in two steps: when a thread goes on that was held up for longer than the first, the answer may be there,
/// and is read in the second.
async fn in_time<T>(limit: Duration, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let (mut call, last) = (pin!(call), limit / 10);
    if let Ok(outcome) = timeout(limit - last, &mut call).await {
        return outcome;
    }
    timeout(last, call).await.unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn an_answer_that_came_while_the_thread_was_held_up_counts() {
        let (sender, answer) = tokio::sync::oneshot::channel();
        // As what reads a connection: a task of the same thread.
        tokio::spawn(async move {
            tokio::time::sleep(LIMIT / 2).await;
            let _ = sender.send(7);
        });
        let held_up = async {
            thread::sleep(LIMIT * 3);
            Ok(answer.await.unwrap())
        };
        assert_eq!(in_time(LIMIT, held_up).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_is_not_answered_in_time_is_a_timeout() {
        let begun = Instant::now();
        let outcome = in_time(LIMIT, std::future::pending::<RedisResult<()>>()).await;
        assert!(outcome.unwrap_err().is_timeout());
        assert!(begun.elapsed() >= LIMIT);
    }
}
