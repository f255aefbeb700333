//! Reads that are asked for at the same time go to Redis together. Whoever comes first lets the others of his thread have
//! their turn, sends what they have added along with his own, and hands out the answers: for each read by itself, the
//! connection's task would have to be woken, and the reader once more.
//!
//! It must not make anybody wait for more than that: a batch is never held back for others to come.

use std::{future::Future, mem, sync::Mutex};

use redis::{Cmd, ErrorKind, RedisError, RedisResult};
use tokio::sync::oneshot;

use crate::sharded::{PerThread, lock};

/// Reads of one connection, whose answers are `T`.
pub(super) struct Together<T> {
    lanes: PerThread<Lane<T>>,
    /// A batch of so many does not wait for anything.
    most: usize,
}

type Lane<T> = Mutex<Vec<Waiting<T>>>;

struct Waiting<T> {
    call: Cmd,
    answer: oneshot::Sender<RedisResult<T>>,
}

impl<T> Together<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { lanes: PerThread::default(), most }
    }

    /// Asks, by a `send` that sends several calls in one round trip and yields their answers in order.
    ///
    /// # Errors
    /// Those of the call, and of the round trip.
    pub(super) async fn ask<S>(&self, call: Cmd, send: impl FnOnce(Vec<Cmd>) -> S) -> RedisResult<T>
    where
        S: Future<Output = RedisResult<Vec<RedisResult<T>>>>,
    {
        let (sender, answer) = oneshot::channel();
        let lane = self.lanes.mine();
        let count = {
            let mut waiting = lock(lane);
            waiting.push(Waiting { call, answer: sender });
            waiting.len()
        };
        let batch = if count == 1 {
            let turn = Turn(Some(lane));
            tokio::task::yield_now().await;
            turn.take()
        } else if count >= self.most {
            mem::take(&mut *lock(lane))
        } else {
            Vec::new()
        };
        if !batch.is_empty() {
            let (calls, readers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|Waiting { call, answer }| (call, answer)).unzip();
            match send(calls).await {
                // Whoever has gone away needs no answer.
                Ok(answers) => readers.into_iter().zip(answers).for_each(|(reader, answer)| {
                    let _ = reader.send(answer);
                }),
                Err(err) => readers.into_iter().for_each(|reader| {
                    let _ = reader.send(Err(err.clone()));
                }),
            }
        }
        answer.await.unwrap_or_else(|_gone| Err(not_sent()))
    }
}

/// The duty to send what waits in a lane. Dropped before that, it tells those who wait that nobody will.
struct Turn<'a, T>(Option<&'a Lane<T>>);

impl<T> Turn<'_, T> {
    fn take(mut self) -> Vec<Waiting<T>> {
        self.0.take().map(|lane| mem::take(&mut *lock(lane))).unwrap_or_default()
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            let gone = mem::take(&mut *lock(lane));
            drop(gone);
        }
    }
}

fn not_sent() -> RedisError {
    (ErrorKind::Client, "whoever was to send this call has gone").into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::{join_all, poll_immediate};

    use super::*;

    fn call(number: usize) -> Cmd {
        redis::cmd(&number.to_string())
    }

    /// Answers with what was asked, and notes how many were asked together.
    async fn echo(calls: Vec<Cmd>, batches: &Mutex<Vec<usize>>) -> RedisResult<Vec<RedisResult<Vec<u8>>>> {
        batches.lock().unwrap().push(calls.len());
        Ok(calls.into_iter().map(|call| Ok(call.get_packed_command())).collect())
    }

    #[tokio::test]
    async fn what_is_asked_at_the_same_time_is_asked_together_and_each_has_his_own_answer() {
        let (together, batches) = (Together::new(5), Mutex::default());
        let answers =
            join_all((0..12).map(|number| together.ask(call(number), |calls| echo(calls, &batches)))).await;
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.unwrap(), call(number).get_packed_command());
        }
        // Five are enough; the first of each batch finds that it was sent, or sends what is left.
        assert_eq!(*batches.lock().unwrap(), [5, 5, 2]);
    }

    #[tokio::test]
    async fn an_error_of_the_round_trip_is_everybodys_and_one_of_a_call_his_own() {
        let together = Together::<usize>::new(5);
        let refused = || RedisError::from((ErrorKind::Client, "refused"));
        let lost = join_all((0..3).map(|number| together.ask(call(number), |_| async { Err(refused()) })));
        assert!(lost.await.iter().all(Result::is_err));
        let some = async |calls: Vec<Cmd>| {
            Ok((0..calls.len()).map(|index| if index == 1 { Err(refused()) } else { Ok(index) }).collect())
        };
        let answers = join_all((0..3).map(|number| together.ask(call(number), some))).await;
        assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_ok());
    }

    #[tokio::test]
    async fn whoever_relied_on_one_who_has_gone_away_is_told() {
        let together = Arc::new(Together::<usize>::new(5));
        let never = |_| std::future::pending();
        let mut first = Box::pin(together.ask(call(0), never));
        assert!(poll_immediate(&mut first).await.is_none());
        let mut second = Box::pin(together.ask(call(1), never));
        assert!(poll_immediate(&mut second).await.is_none());
        drop(first);
        assert!(second.await.is_err());
        // And the next one is a first one again.
        let answer = together.ask(call(2), |calls| async move { Ok(vec![Ok(calls.len())]) }).await;
        assert_eq!(answer.unwrap(), 1);
    }
}
