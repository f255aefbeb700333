//! Keeping account of how calls to Redis go, and giving a connection up that is no use any more.

use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio_util::sync::CancellationToken;

use crate::cache::breaker::{Breaker, Outcome};

/// What is known of a link's calls, over whichever connection.
pub(super) struct Watch {
    breaker: Breaker,
    broken: CancellationToken,
}

impl Watch {
    /// Of calls that may take so long.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { breaker: Breaker::new(timeout), broken: CancellationToken::new() }
    }

    /// Runs a call and keeps account of how it went. A lost connection, or a server that has become a replica, is given
    /// up at once; what may be an accident is for the breaker to judge.
    pub(super) async fn call<T>(&self, call: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        self.judge(call, |_| false).await
    }

    /// The same for a call of several parts. One that fails is an accident of its own; if all do, the call has failed.
    pub(super) async fn call_of_parts<T>(
        &self,
        call: impl Future<Output = RedisResult<Vec<RedisResult<T>>>>,
    ) -> RedisResult<Vec<RedisResult<T>>> {
        let has_failed = |parts: &Vec<RedisResult<T>>| !parts.is_empty() && parts.iter().all(Result::is_err);
        let parts = self.judge(call, has_failed).await?;
        parts.iter().filter_map(|part| part.as_ref().err()).for_each(|err| self.notice(err));
        Ok(parts)
    }

    async fn judge<T>(
        &self,
        call: impl Future<Output = RedisResult<T>>,
        has_failed: impl FnOnce(&T) -> bool,
    ) -> RedisResult<T> {
        let begun = Instant::now();
        let outcome = call.await;
        let now = Instant::now();
        let counted = match &outcome {
            Ok(answer) if has_failed(answer) => Outcome::Failed,
            Ok(_) if self.breaker.is_slow(now - begun) => Outcome::Slow,
            Ok(_) => Outcome::Fine,
            Err(err) if err.is_timeout() => Outcome::Unanswered,
            Err(_) => Outcome::Failed,
        };
        if let Err(err) = &outcome {
            self.notice(err);
        }
        if let Some(trip) = self.breaker.count(counted, now)
            && !self.broken.is_cancelled()
        {
            log::warn!(cause = trip.cause(); "Redis fails or dawdles too often; the connection is given up");
            self.give_up();
        }
        outcome
    }

    /// Gives up a connection that is lost, or leads to a server that has become a replica.
    pub(super) fn notice(&self, err: &RedisError) {
        let wrong_server = matches!(
            err.kind(),
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading
            )
        );
        if wrong_server || (!err.is_timeout() && (err.is_io_error() || err.is_connection_dropped())) {
            self.give_up();
        }
    }

    /// The connection is given up; a new one will be opened.
    pub(super) fn give_up(&self) {
        self.broken.cancel();
    }

    /// Ends when it is.
    pub(super) async fn given_up(&self) {
        self.broken.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::cache::breaker::ENOUGH;

    fn refused() -> RedisError {
        (ErrorKind::Client, "refused").into()
    }

    async fn answered(watch: &Watch, parts: Vec<RedisResult<u8>>) {
        watch.call_of_parts(ready(Ok(parts))).await.unwrap();
    }

    #[tokio::test]
    async fn a_part_that_fails_each_time_gives_up_no_connection_and_calls_that_fail_whole_do() {
        let watch = Watch::new(Duration::from_secs(1));
        for _ in 0..5 * ENOUGH {
            answered(&watch, vec![Ok(1), Err(refused()), Err(refused())]).await;
        }
        assert!(!watch.broken.is_cancelled());
        for _ in 0..5 * ENOUGH {
            answered(&watch, vec![Err(refused()), Err(refused())]).await;
        }
        assert!(watch.broken.is_cancelled());
    }

    #[tokio::test]
    async fn a_part_that_a_replica_has_answered_gives_the_connection_up_at_once() {
        let watch = Watch::new(Duration::from_secs(1));
        let replica = RedisError::from((ErrorKind::Server(ServerErrorKind::ReadOnly), "READONLY"));
        answered(&watch, vec![Ok(1), Err(refused()), Err(replica)]).await;
        assert!(watch.broken.is_cancelled());
    }
}
