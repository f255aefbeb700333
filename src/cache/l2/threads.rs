//! Threads that read for themselves: each has a connection of its own beside that of its link, on its own runtime. Over the
//! link's, whose task runs on another thread, each read would wake that thread, and that thread the reader.
//!
//! **Invariant.** It leads to the same life of the data as the link: that is found out when it is opened, and by each script.
//! It is used by that thread alone. What goes wrong with it counts as if it had with the link's; if it falls silent, which
//! the other threads' answers would hide, the link is given up.
//!
//! A thread that was held up must not take Redis for silent, so what has come meanwhile is looked at before a call counts
//! as unanswered.

use std::{
    io,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use futures_util::FutureExt as _;
use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::{runtime::Handle, time::timeout};

use super::{
    Link, LinkError,
    entries::{AT_ONCE, L2Read},
    identify,
    reads::{Asking, Reading},
    together::Together,
    watch::Watch,
};
use crate::{redis::Redis, sharded::PerThread, telemetry::Chain};

/// Calls over a thread's connection that may be without an answer, one after another.
const UNANSWERED: u32 = 3;

/// The connections over which single reads are made.
pub(super) struct Threads {
    lanes: PerThread<OnceLock<Arc<Lane>>>,
    /// That of the link, for threads that have none.
    common: Arc<Lane>,
}

/// One of them, with all that a read needs, so that a thread that has one counts nothing with the others.
struct Lane {
    /// Whose it is.
    thread: Option<ThreadId>,
    connection: MultiplexedConnection,
    asking: Arc<Asking>,
    watch: Arc<Watch>,
    limit: Duration,
    /// Calls without an answer, one after another.
    unanswered: AtomicU32,
}

impl Threads {
    /// Over a link's own connection, whose calls may take so long.
    pub(super) fn new(
        connection: &MultiplexedConnection,
        asking: &Arc<Asking>,
        watch: &Arc<Watch>,
        limit: Duration,
    ) -> Self {
        let (connection, asking, watch) = (connection.clone(), Arc::clone(asking), Arc::clone(watch));
        let common = Lane { thread: None, connection, asking, watch, limit, unanswered: AtomicU32::new(0) };
        Self { lanes: PerThread::default(), common: Arc::new(common) }
    }

    /// That of this thread. Another one's of the same lane stands still when that is busy.
    fn mine(&self) -> &Arc<Lane> {
        let own = self.lanes.mine().get().filter(|own| own.thread == Some(thread::current().id()));
        own.unwrap_or(&self.common)
    }

    fn add(&self, connection: MultiplexedConnection) {
        let Lane { asking, watch, limit, .. } = &*self.common;
        let own = Lane {
            thread: Some(thread::current().id()),
            connection,
            asking: Arc::clone(asking),
            watch: Arc::clone(watch),
            limit: *limit,
            unanswered: AtomicU32::new(0),
        };
        // Where another has the lane, this thread does without.
        let _ = self.lanes.mine().set(Arc::new(own));
    }
}

impl Lane {
    /// Reads in one round trip.
    async fn ask(&self, readings: &[Reading]) -> RedisResult<Vec<RedisResult<Option<L2Read>>>> {
        let mut connection = self.connection.clone();
        // In one place: each that is waited for within another would move it.
        let asked = Box::pin(self.asking.ask(&mut connection, readings));
        let call = in_time(self.limit, asked);
        let outcome = self.watch.call_of_parts(call).await;
        if self.is_silent(&outcome) {
            self.watch.give_up();
        }
        outcome
    }

    /// Whether a thread's own connection has fallen silent. Of the link's others will know.
    fn is_silent<T>(&self, outcome: &RedisResult<T>) -> bool {
        match outcome {
            Err(err) if err.is_timeout() => {
                self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= UNANSWERED && self.thread.is_some()
            }
            _ => {
                self.unanswered.store(0, Ordering::Relaxed);
                false
            }
        }
    }
}

/// Single reads, over the connection of the thread that asks, or over that of the link.
pub(super) fn reads(threads: &Arc<Threads>) -> Together<Reading, Option<L2Read>> {
    let threads = Arc::clone(threads);
    Together::new(AT_ONCE, move |readings: Vec<Reading>| {
        let lane = Arc::clone(threads.mine());
        async move { lane.ask(&readings).await }.boxed()
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
        let identity =
            in_time(self.timeout.max(super::PATIENCE), identify(&mut connection, &self.asking.names));
        let (_, epoch) = identity.await?;
        if epoch != self.epoch {
            return Err(self.other_epoch());
        }
        self.threads.add(connection);
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
        let comes = tokio::time::Instant::now() + LIMIT / 2;
        // As what reads a connection: a task of the same thread.
        tokio::spawn(async move {
            tokio::time::sleep_until(comes).await;
            let _ = sender.send(7);
        });
        let held_up = async {
            #[expect(clippy::disallowed_methods, reason = "holds the thread up")]
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
