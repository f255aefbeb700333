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
        let begun = Instant::now();
        let outcome = call.await;
        let now = Instant::now();
        match &outcome {
            Ok(_) if self.breaker.is_slow(now - begun) => self.count(Outcome::Slow, now),
            Ok(_) => self.count(Outcome::Fine, now),
            Err(err) => self.failed(err, now),
        }
        outcome
    }

    /// Something has failed, be it a part of a call only.
    pub(super) fn failed(&self, err: &RedisError, now: Instant) {
        self.notice(err);
        self.count(if err.is_timeout() { Outcome::Unanswered } else { Outcome::Failed }, now);
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

    fn count(&self, outcome: Outcome, now: Instant) {
        if let Some(trip) = self.breaker.count(outcome, now)
            && !self.broken.is_cancelled()
        {
            log::warn!(cause = trip.cause(); "Redis fails or dawdles too often; the connection is given up");
            self.give_up();
        }
    }
}
