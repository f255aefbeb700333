//! Reads that are asked for at the same time go to Redis together: the connection's task is woken once for all that a thread
//! asks for in one turn, and wakes it once.
//!
//! It must not make anybody wait for more than that: a batch is never held back for others to come. And nobody depends on
//! another reader: what sends a batch is a task of its own.

use std::{
    mem,
    sync::{Arc, Mutex},
};

use futures_util::future::{BoxFuture, join_all};
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::sync::oneshot;

use crate::sharded::{PerThread, lock};

/// Reads of one connection, which are asked for by an `R` and answered by a `T`.
pub(super) struct Together<R, T> {
    lanes: PerThread<Arc<Lane<R, T>>>,
}

/// What one thread asks for at this moment.
struct Lane<R, T> {
    waiting: Mutex<Vec<Waiting<R, T>>>,
    batcher: Arc<Batcher<R, T>>,
}

struct Waiting<R, T> {
    reading: R,
    answer: oneshot::Sender<RedisResult<T>>,
}

/// The answers of a batch, in order.
type Answers<T> = RedisResult<Vec<RedisResult<T>>>;

struct Batcher<R, T> {
    /// Sends several in one round trip.
    send: Box<dyn Fn(Vec<R>) -> BoxFuture<'static, Answers<T>> + Send + Sync>,
    /// So many at once, at most.
    most: usize,
}

impl<R: Send + 'static, T: Send + 'static> Together<R, T> {
    /// Sends at most so many at once, by a `send` that yields the answers in order.
    pub(super) fn new(
        most: usize,
        send: impl Fn(Vec<R>) -> BoxFuture<'static, Answers<T>> + Send + Sync + 'static,
    ) -> Self {
        let batcher = Arc::new(Batcher { send: Box::new(send), most });
        let lane = || Arc::new(Lane { waiting: Mutex::default(), batcher: Arc::clone(&batcher) });
        Self { lanes: PerThread::new(lane) }
    }

    /// Asks, along with whatever else this thread asks for at this moment.
    ///
    /// # Errors
    /// Those of the reading, and of the round trip.
    pub(super) async fn ask(&self, reading: R) -> RedisResult<T> {
        let (sender, answer) = oneshot::channel();
        let lane = self.lanes.mine();
        let is_first = {
            let mut waiting = lock(&lane.waiting);
            waiting.push(Waiting { reading, answer: sender });
            waiting.len() == 1
        };
        if is_first {
            let (turn, lane) = (Turn(Some(Arc::clone(lane))), Arc::clone(lane));
            // Its turn comes when those who are being worked on at present have had theirs.
            tokio::spawn(async move { lane.batcher.send_all(turn.take()).await });
        }
        answer.await.unwrap_or_else(|_gone| Err(not_sent()))
    }
}

impl<R, T> Batcher<R, T> {
    async fn send_all(&self, mut waiting: Vec<Waiting<R, T>>) {
        let mut parts = Vec::new();
        while waiting.len() > self.most {
            parts.push(self.send_some(waiting.split_off(waiting.len() - self.most)));
        }
        parts.push(self.send_some(waiting));
        join_all(parts).await;
    }

    async fn send_some(&self, waiting: Vec<Waiting<R, T>>) {
        let (readings, readers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|Waiting { reading, answer }| (reading, answer)).unzip();
        // Whoever has gone away needs no answer.
        match (self.send)(readings).await {
            Ok(answers) => readers.into_iter().zip(answers).for_each(|(reader, answer)| {
                let _ = reader.send(answer);
            }),
            Err(err) => readers.into_iter().for_each(|reader| {
                let _ = reader.send(Err(err.clone()));
            }),
        }
    }
}

/// The duty to send what waits in a lane. Dropped before that, it tells those who wait that nobody will.
struct Turn<R, T>(Option<Arc<Lane<R, T>>>);

impl<R, T> Turn<R, T> {
    /// Ends the duty: whoever asks from now on has another turn.
    fn take(mut self) -> Vec<Waiting<R, T>> {
        self.0.take().map(|lane| mem::take(&mut *lock(&lane.waiting))).unwrap_or_default()
    }
}

impl<R, T> Drop for Turn<R, T> {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            let gone = mem::take(&mut *lock(&lane.waiting));
            drop(gone);
        }
    }
}

fn not_sent() -> RedisError {
    (ErrorKind::Client, "the runtime stops; this was not sent").into()
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    /// Answers with what was asked, and notes how many were asked together.
    fn echo(most: usize) -> (Together<usize, usize>, Arc<Mutex<Vec<usize>>>) {
        let batches = Arc::<Mutex<Vec<usize>>>::default();
        let noted = Arc::clone(&batches);
        let together = Together::new(most, move |numbers: Vec<usize>| {
            noted.lock().unwrap().push(numbers.len());
            async move { Ok(numbers.into_iter().map(Ok).collect()) }.boxed()
        });
        (together, batches)
    }

    #[tokio::test]
    async fn what_is_asked_at_the_same_time_is_asked_together_and_each_has_his_own_answer() {
        let (together, batches) = echo(5);
        let answers = join_all((0..12).map(|number| together.ask(number))).await;
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap(), number);
        }
        assert_eq!(*batches.lock().unwrap(), [5, 5, 2]);
    }

    #[tokio::test]
    async fn an_error_of_the_round_trip_is_everybodys_and_one_of_a_call_his_own() {
        let refused = || RedisError::from((ErrorKind::Client, "refused"));
        let lost = Together::<usize, usize>::new(5, move |_| async move { Err(refused()) }.boxed());
        assert!(join_all((0..3).map(|number| lost.ask(number))).await.iter().all(Result::is_err));
        let some = Together::new(5, move |numbers: Vec<usize>| {
            let answer = move |number| if number == 1 { Err(refused()) } else { Ok(number) };
            async move { Ok(numbers.into_iter().map(answer).collect()) }.boxed()
        });
        let answers = join_all((0..3).map(|number| some.ask(number))).await;
        assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok());
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nobody_elses_answer_along() {
        let (together, batches) = echo(5);
        let mut first = Box::pin(together.ask(0));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(together.ask(1));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(second.await.unwrap(), 1);
        assert_eq!(*batches.lock().unwrap(), [2]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn where_tasks_change_threads_nobody_is_left_behind() {
        let (together, _) = echo(5);
        let together = Arc::new(together);
        let readers = (0..8).map(|_| {
            let together = Arc::clone(&together);
            tokio::spawn(async move {
                for number in 0..5000 {
                    assert!(together.ask(number).await.is_ok());
                }
            })
        });
        assert!(join_all(readers).await.iter().all(Result::is_ok));
    }

    #[test]
    fn whoever_waits_for_a_runtime_that_stops_is_told_and_the_next_one_is_a_first_one_again() {
        let (together, _) = echo(5);
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let stopping = runtime();
        let waits = {
            let _in_it = stopping.enter();
            let mut waits = Box::pin(together.ask(0));
            assert!(waits.as_mut().now_or_never().is_none());
            waits
        };
        drop(stopping);
        runtime().block_on(async {
            assert!(waits.await.is_err());
            assert!(together.ask(1).await.is_ok());
        });
    }
}
