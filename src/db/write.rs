//! Writing: a transaction from its beginning to its announcement, in one task of the main runtime.
//!
//! Connections live there, so that a statement wakes no other thread. Whoever asks waits on his own thread, and is woken
//! once. He may go away: until the commit has begun that ends the task, afterwards it does not. A transaction of a request
//! that is still being judged waits there for its [`Leave`] before it begins.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use diesel::result::Error as QueryError;
use diesel_async::{AnsiTransactionManager, TransactionManager, pooled_connection::deadpool::Object};
use futures_util::future::{self, BoxFuture, Shared};
use tokio::task::JoinHandle;

use super::{Db, DbError, Reader, Tx, Unavailable, check_out, tx::begun};
use crate::{
    cache::{Token, recording},
    domain::Change,
    models::journal::JournalRow,
    telemetry::in_this_request,
};

/// What a transaction has committed.
#[derive(Debug)]
pub struct Committed {
    /// What its rows announced and what the journal recorded, each once.
    pub changes: Vec<Change>,
    /// Its rows in the journal.
    pub journal_ids: Vec<i64>,
    /// Its position there, if it has any.
    pub position: Option<u64>,
}

/// Tells all instances what was committed.
pub type Announce = Arc<dyn Fn(Committed) -> BoxFuture<'static, Token> + Send + Sync>;

/// A value that was written, and the token with which it will be seen.
#[derive(Debug)]
pub struct Written<T> {
    /// The value.
    pub value: T,
    /// For the header `Consistency-Token`.
    pub token: Token,
}

impl<T> Written<T> {
    /// The same write, shown differently.
    pub fn map<U>(self, show: impl FnOnce(T) -> U) -> Written<U> {
        Written { value: show(self.value), token: self.token }
    }
}

/// What is done in a transaction: any `async move |tx| { … }` that owns what it works with.
pub trait Work<T, E>:
    AsyncFnOnce(&mut Tx) -> Result<T, E> + for<'t> SendWork<'t, T, E> + Send + 'static
{
}

impl<T, E, F> Work<T, E> for F where
    F: AsyncFnOnce(&mut Tx) -> Result<T, E> + for<'t> SendWork<'t, T, E> + Send + 'static
{
}

/// What `AsyncFnOnce` cannot say: that the future of the closure may go to another thread.
pub trait SendWork<'t, T, E>: FnOnce(&'t mut Tx) -> Self::Doing {
    /// The future.
    type Doing: Future<Output = Result<T, E>> + Send + 't;
}

impl<'t, T, E, F, D> SendWork<'t, T, E> for F
where
    F: FnOnce(&'t mut Tx) -> D,
    D: Future<Output = Result<T, E>> + Send + 't,
{
    type Doing = D;
}

/// Whether a request may write, which is still being found out.
pub type Leave = Shared<BoxFuture<'static, bool>>;

tokio::task_local! {
    static LEAVE: Leave;
}

/// Does some work whose writes wait for leave: without, they fail with [`DbError::Refused`], having done nothing.
pub fn with_leave<F: Future>(leave: Leave, work: F) -> impl Future<Output = F::Output> {
    LEAVE.scope(leave, work)
}

impl Db {
    /// Runs `work` in a transaction. What its rows announced is heard by every instance after the commit and before
    /// this returns, and never after a rollback. A caller that goes away in the middle leaves nothing behind; one
    /// that goes away during the commit does not keep it from being announced.
    ///
    /// # Errors
    /// What `work` returns, and [`DbError`] when the transaction cannot begin or commit.
    pub async fn write<T, E>(&self, work: impl Work<T, E>) -> Result<Written<T>, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        recording::spoil();
        let (stage, leave) = (Stage::default(), LEAVE.try_with(Clone::clone).ok());
        let (db, working) = (self.clone(), stage.clone());
        let transaction = async move {
            if let Some(leave) = leave
                && !leave.await
            {
                return Err(DbError::Refused.into());
            }
            transact(db, work, working).await
        };
        // In a box, since it is large, and a task moves what it is made of several times.
        let transaction = in_this_request(Box::pin(transaction));
        let mut awaited = Awaited { task: self.0.main.spawn(transaction), stage };
        match (&mut awaited.task).await {
            Ok(outcome) => outcome,
            Err(stopped) => match stopped.try_into_panic() {
                // As if it had been run here.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(stopped) => Err(DbError::from(Unavailable::Unreachable(stopped.into())).into()),
            },
        }
    }
}

async fn transact<T, E: From<DbError>>(db: Db, work: impl Work<T, E>, stage: Stage) -> Result<Written<T>, E> {
    let connection = check_out(&db.0.write).await.map_err(DbError::from)?;
    let mut unfinished = Unfinished(Some(Tx::on(connection).map_err(DbError::from)?));
    let Some(tx) = unfinished.0.as_mut() else { return Err(rolled_back().into()) };
    match work(tx).await {
        // Nobody waits for it any more.
        Ok(_) if !stage.begin_commit() => Err(rolled_back().into()),
        Ok(value) => Ok(Written { value, token: finish(unfinished, &db).await? }),
        Err(err) => {
            // A connection that cannot roll back is broken, and the pool drops it.
            if tx.roll_back().await.is_ok() {
                drop(unfinished.0.take());
            }
            Err(err)
        }
    }
}

fn rolled_back() -> DbError {
    QueryError::RollbackTransaction.into()
}

/// Commits and announces.
async fn finish(mut unfinished: Unfinished, db: &Db) -> Result<Token, DbError> {
    let Some(tx) = unfinished.0.as_mut() else { return Err(rolled_back()) };
    let Tx { reader: Reader { connection, begins }, changes, last, recorded } = tx;
    begun(connection, begins).await?;
    // The journal knows more than the hooks: rows that a foreign key took along.
    let recorded = match recorded.take() {
        Some(recorded) if last.is_empty() => recorded,
        _ => {
            let last = future::join_all(last.drain(..).map(|statement| statement(connection)));
            let (last, recorded) = future::join(last, JournalRow::list_of_transaction(connection)).await;
            for announced in last {
                changes.extend(announced?);
            }
            recorded?
        }
    };
    let Some(tx) = unfinished.0.take() else { return Err(rolled_back()) };
    let Tx { reader: Reader { mut connection, .. }, mut changes, .. } = tx;
    changes.extend(recorded.iter().flat_map(|row| row.changes.clone()));
    changes.sort_unstable();
    changes.dedup();
    let outcome = AnsiTransactionManager::commit_transaction(&mut *connection).await;
    // Given back before the announcement: no connection is held over the round trip to Redis.
    drop(connection);
    // A commit whose answer was lost may have happened, or may still happen after this: announced now, and left to the
    // relay for then.
    let journal_ids = if outcome.is_ok() { recorded.iter().map(|row| row.id).collect() } else { Vec::new() };
    let position = recorded.first().map(|row| row.position);
    let token = (db.0.announce)(Committed { changes, journal_ids, position }).await;
    outcome?;
    Ok(token)
}

/// A transaction that is under way. Dropped before its end, it goes with its connection: given back to the pool, that
/// would keep its locks until it is borrowed again.
struct Unfinished(Option<Tx>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(tx) = self.0.take() {
            drop(Object::take(tx.reader.connection));
        }
    }
}

/// How far a transaction is. Only one of two can leave `WORKING`: whoever commits, or whoever goes away.
#[derive(Clone, Default)]
struct Stage(Arc<AtomicU8>);

impl Stage {
    const WORKING: u8 = 0;
    const COMMITTING: u8 = 1;
    const ABANDONED: u8 = 2;

    /// False: nobody waits for it any more.
    fn begin_commit(&self) -> bool {
        self.leave_working(Self::COMMITTING)
    }

    /// False: it is committing, or has.
    fn abandon(&self) -> bool {
        self.leave_working(Self::ABANDONED)
    }

    fn leave_working(&self, next: u8) -> bool {
        self.0.compare_exchange(Self::WORKING, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// A transaction that somebody waits for. Dropped before the commit has begun, it ends.
struct Awaited<T> {
    task: JoinHandle<T>,
    stage: Stage,
}

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        if self.stage.abandon() {
            self.task.abort();
        }
    }
}
